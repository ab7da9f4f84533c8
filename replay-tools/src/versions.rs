//! The rows that say which versions of a read model exist and how far each has read.

use std::collections::BTreeMap;

use sqlx::{PgConnection, PgPool};

use crate::error::ToolError;

/// A position per partition.
pub type Vector = BTreeMap<i32, i64>;

/// The versions of one projection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Versions {
    pub(crate) live: i32,
    pub(crate) building: Option<i32>,
}

/// Which versions there are; with `FOR UPDATE` when somebody is about to change that.
pub(crate) async fn versions(
    connection: &mut PgConnection,
    projection: &str,
    for_update: bool,
) -> Result<Versions, ToolError> {
    let lock = if for_update { " FOR UPDATE" } else { "" };
    let text = format!("SELECT live_version, building_version FROM projections WHERE name = $1{lock}");
    let row: Option<(i32, Option<i32>)> = sqlx::query_as(&text).bind(projection).fetch_optional(connection).await?;
    let (live, building) = row.ok_or_else(|| {
        ToolError::Environment(format!("the projection {projection} is not installed; run `calos migrate` first"))
    })?;
    Ok(Versions { live, building })
}

/// How far a version has read.
pub(crate) async fn positions(
    connection: &mut PgConnection,
    projection: &str,
    version: i32,
) -> Result<Vector, ToolError> {
    let rows = sqlx::query_as(
        "SELECT partition, position FROM checkpoints WHERE projection = $1 AND version = $2 ORDER BY partition",
    );
    Ok(rows.bind(projection).bind(version).fetch_all(connection).await?.into_iter().collect())
}

/// How far a version has read, and nobody moves it until the transaction ends.
pub(crate) async fn lock_positions(
    connection: &mut PgConnection,
    projection: &str,
    version: i32,
) -> Result<Vector, ToolError> {
    let rows = sqlx::query_as(
        "SELECT partition, position FROM checkpoints WHERE projection = $1 AND version = $2 \
         ORDER BY partition FOR UPDATE",
    );
    Ok(rows.bind(projection).bind(version).fetch_all(connection).await?.into_iter().collect())
}

/// The last position of every partition of the log.
pub(crate) async fn heads(connection: &mut PgConnection) -> Result<Vector, ToolError> {
    let rows = sqlx::query_as("SELECT partition, last_position FROM heads ORDER BY partition");
    // Planned each time: the table grows from nothing to many versions and back.
    Ok(rows.persistent(false).fetch_all(connection).await?.into_iter().collect())
}

/// The last position of every partition of the log, on any connection.
pub(crate) async fn heads_of(pool: &PgPool) -> Result<Vector, ToolError> {
    heads(&mut *pool.acquire().await?).await
}

/// Positions of one vector, none beyond the other.
pub(crate) fn at_most(vector: &Vector, bound: &Vector) -> Vector {
    let bounded = |(&partition, &position): (&i32, &i64)| {
        (partition, position.min(bound.get(&partition).copied().unwrap_or_default()))
    };
    vector.iter().map(bounded).collect()
}

/// How many positions the first vector lacks of the second.
pub(crate) fn lag_events(behind: &Vector, ahead: &Vector) -> u64 {
    let missing = |(partition, position): (&i32, &i64)| {
        let reached = behind.get(partition).copied().unwrap_or_default();
        u64::try_from(position - reached).unwrap_or_default()
    };
    ahead.iter().map(missing).sum()
}
