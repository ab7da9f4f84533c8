//! How far each projection has read each partition: registering, claiming and moving checkpoints.

use std::collections::BTreeMap;

use sqlx::{PgConnection, PgPool, Row};

use calos_domain::Timestamp;

use crate::moment::Moment;
use crate::registry::AnyProjection;

/// Makes every projection known to the database, at the beginning of the log. Those it knows stay where they are, so a
/// new read model joins a running system and catches up beside it.
///
/// # Errors
/// The database's.
pub async fn ensure_registered(pool: &PgPool, projections: &[&'static dyn AnyProjection]) -> Result<(), sqlx::Error> {
    let names: Vec<&str> = projections.iter().map(|projection| projection.name()).collect();
    let mut transaction = pool.begin().await?;
    sqlx::query(
        "INSERT INTO projections (name, live_version) SELECT name, 1 FROM unnest($1::text[]) AS n (name)
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(&names)
    .execute(&mut *transaction)
    .await?;
    // Another server that begins at the same time waits here, and sees then what this one made.
    sqlx::query("SELECT FROM projections WHERE name = ANY($1) ORDER BY name FOR UPDATE")
        .bind(&names)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(
        "INSERT INTO checkpoints (projection, version, partition, position)
         SELECT p.name, p.live_version, h.partition, 0 FROM projections p CROSS JOIN partitions h
         WHERE p.name = ANY($1) AND NOT EXISTS (SELECT FROM checkpoints c
             WHERE c.projection = p.name AND c.version = p.live_version AND c.partition = h.partition)",
    )
    .bind(&names)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}

/// A partition a projection is behind in, locked until the transaction ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Claim {
    /// Which of the projections that were asked for.
    pub(crate) projection: usize,
    /// Its live version.
    pub(crate) version: i32,
    /// The partition.
    pub(crate) partition: i32,
    /// The last position it has taken.
    pub(crate) position: i64,
    /// The partition's head, when the claim was made or a little before.
    pub(crate) head: i64,
}

// Heads and checkpoints only go up, so the one that counts has the highest position: found from that end of the key, however
// many versions of them an old snapshot keeps.
const CLAIM: &str = "
WITH heads AS MATERIALIZED (
    SELECT partition, last_position FROM public.heads
)
SELECT p.name, p.live_version, heads.partition, own.position, heads.last_position
FROM projections AS p
CROSS JOIN heads
CROSS JOIN LATERAL (
    SELECT c.position FROM checkpoints AS c
    WHERE c.projection = p.name AND c.version = p.live_version AND c.partition = heads.partition
        AND c.position < heads.last_position AND c.halted IS NULL
    ORDER BY c.position DESC LIMIT 1
    FOR UPDATE SKIP LOCKED
) AS own
WHERE p.name = ANY($1)";

/// Claims every partition that one of the projections is behind in and nobody else works on.
///
/// A switch of versions may have been committed between the statement's snapshot and its locks; [`advance`] looks
/// again, with the locks held, and moves nothing then.
pub(crate) async fn claim(
    connection: &mut PgConnection,
    projections: &[&'static dyn AnyProjection],
) -> Result<Vec<Claim>, sqlx::Error> {
    let names: Vec<&str> = projections.iter().map(|projection| projection.name()).collect();
    let rows = sqlx::query(CLAIM).bind(&names).fetch_all(connection).await?;
    let mut claims = Vec::with_capacity(rows.len());
    for row in &rows {
        let name: &str = row.try_get(0)?;
        let Some(projection) = names.iter().position(|known| *known == name) else { continue };
        claims.push(Claim {
            projection,
            version: row.try_get(1)?,
            partition: row.try_get(2)?,
            position: row.try_get(3)?,
            head: row.try_get(4)?,
        });
    }
    Ok(claims)
}

/// Where a claimed partition stands once its events have been taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Advance {
    /// The projection.
    pub(crate) projection: &'static str,
    /// Its version.
    pub(crate) version: i32,
    /// The partition.
    pub(crate) partition: i32,
    /// Where the claim stood.
    pub(crate) from: i64,
    /// The last position taken.
    pub(crate) position: i64,
    /// When the event there was recorded; none when nothing was taken.
    pub(crate) recorded_at: Option<Timestamp>,
    /// Why nothing further can be taken from this partition, when that is so.
    pub(crate) halted: Option<String>,
}

/// Moves checkpoints. False when one of the versions is no longer the live one: the transaction must be rolled back.
pub(crate) async fn advance(connection: &mut PgConnection, moves: &[Advance]) -> Result<bool, sqlx::Error> {
    let moved = sqlx::query(
        "UPDATE checkpoints AS c
         SET position = u.position, recorded_at = coalesce(u.recorded_at, c.recorded_at), halted = u.halted
         FROM unnest($1::text[], $2::int4[], $3::int4[], $4::int8[], $5::timestamptz[], $6::text[], $7::int8[])
                 AS u (projection, version, partition, position, recorded_at, halted, stood_at),
             projections AS p
         WHERE c.projection = u.projection AND c.version = u.version AND c.partition = u.partition
             AND c.position = u.stood_at AND p.name = u.projection AND p.live_version = u.version",
    )
    .bind(moves.iter().map(|to| to.projection).collect::<Vec<_>>())
    .bind(moves.iter().map(|to| to.version).collect::<Vec<_>>())
    .bind(moves.iter().map(|to| to.partition).collect::<Vec<_>>())
    .bind(moves.iter().map(|to| to.position).collect::<Vec<_>>())
    .bind(moves.iter().map(|to| to.recorded_at.map(Moment)).collect::<Vec<_>>())
    .bind(moves.iter().map(|to| to.halted.as_deref()).collect::<Vec<_>>())
    .bind(moves.iter().map(|to| to.from).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(moved.rows_affected() == moves.len() as u64)
}

/// Where a projection's live version stands, by partition; empty for one that is not registered.
///
/// # Errors
/// The database's.
pub async fn positions(pool: &PgPool, projection: &str) -> Result<BTreeMap<i32, i64>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT c.partition, c.position FROM checkpoints c
         JOIN projections p ON p.name = c.projection AND p.live_version = c.version WHERE c.projection = $1",
    )
    .bind(projection)
    .fetch_all(pool)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Lets a halted partition go on from where it stands; it halts again at once if what was missing is still missing.
/// True when it had been halted.
///
/// # Errors
/// The database's.
pub async fn clear_halt(pool: &PgPool, projection: &str, partition: i32) -> Result<bool, sqlx::Error> {
    let cleared = sqlx::query(
        "UPDATE checkpoints AS c SET halted = NULL FROM projections AS p
         WHERE p.name = c.projection AND p.live_version = c.version AND c.projection = $1 AND c.partition = $2
             AND c.halted IS NOT NULL",
    )
    .bind(projection)
    .bind(partition)
    .execute(pool)
    .await?;
    Ok(cleared.rows_affected() > 0)
}
