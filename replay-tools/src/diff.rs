//! `diff`: the rows as they stand against a fresh fold of the log at the same positions. Changes nothing.

use serde::Serialize;
use sqlx::{Connection, PgPool};

use calos_projections::Schema;

use crate::bulk::Bulk;
use crate::connections::{Connections, run_sql};
use crate::differences::{Differences, compare_all};
use crate::error::ToolError;
use crate::fold::ReadModel;
use crate::progress::{Progress, Show};
use crate::skips::Skips;
use crate::versions::{Vector, lag_events, positions, versions};

/// What a comparison with the log found.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiffReport {
    /// The projection.
    pub projection: &'static str,
    /// The live version.
    pub version: i32,
    /// Its positions, at which both sides were read.
    pub positions: Vector,
    /// Events folded.
    pub events: u64,
    /// Events the live version could not take; its rows lack them until they are retried.
    pub dead_letters: i64,
    /// What differs.
    pub differences: Differences,
}

/// A comparison during which the tables were replaced is repeated, this often at the most.
const DIFF_ATTEMPTS_MAX: u32 = 5;

/// Folds the log into temporary tables, up to where the live version has read, and compares row by row.
///
/// # Errors
/// The log cannot be read up to those positions, the live tables cannot be read, or the database failed.
pub async fn diff(pool: &PgPool, model: ReadModel, listed_rows: i64, show: Show) -> Result<DiffReport, ToolError> {
    let connections = Connections::beside(pool, 1);
    for _ in 0..DIFF_ATTEMPTS_MAX {
        let before = tables(connections.readers(), model).await?;
        let compared = compare(&connections, model, listed_rows, show).await;
        // Names are looked up as they are now, rows as they were in the snapshot: when a rebuild put other tables in
        // the place of the ones that were to be compared, whatever was found means nothing.
        if tables(connections.readers(), model).await? == before {
            connections.close().await;
            return compared;
        }
    }
    Err(ToolError::Environment(format!("{} is being rebuilt again and again; try later", model.name())))
}

/// Which tables stand under a read model's names.
async fn tables(pool: &PgPool, model: ReadModel) -> Result<Vec<Option<i64>>, ToolError> {
    let names: Vec<String> = model.tables().iter().map(|table| format!("{}.{}", Schema::Live, table.name)).collect();
    let ids = sqlx::query_scalar(
        "SELECT to_regclass(name)::oid::bigint FROM unnest($1::text[]) WITH ORDINALITY AS n (name, at) ORDER BY at",
    );
    Ok(ids.bind(names).fetch_all(pool).await?)
}

async fn compare(
    connections: &Connections,
    model: ReadModel,
    listed_rows: i64,
    show: Show,
) -> Result<DiffReport, ToolError> {
    let mut connection = connections.connect().await?;
    let mut snapshot = connection.begin().await?;
    run_sql(&mut snapshot, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
    let name = model.name();
    let version = versions(&mut snapshot, name, false).await?.live;
    let live = positions(&mut snapshot, name, version).await?;
    let dead_letters: i64 =
        sqlx::query_scalar("SELECT count(*) FROM dead_letters WHERE projection = $1 AND version = $2")
            .bind(name)
            .bind(version)
            .fetch_one(&mut *snapshot)
            .await?;
    for table in model.tables() {
        run_sql(&mut snapshot, &table.create_table(Schema::Scratch)).await?;
    }
    let progress = Progress::new(show, name, lag_events(&Vector::new(), &live));
    let skips = Skips::read(connections.readers()).await?;
    let mut counter = progress.counter();
    for (&partition, &through) in &live {
        let bulk = Bulk::new(partition, Schema::Scratch).with(model, through, &skips);
        bulk.load(connections.readers(), &mut snapshot, &mut counter).await?;
    }
    drop(counter);
    progress.finish();
    let differences = compare_all(&mut snapshot, model.tables(), Schema::Live, Schema::Scratch, listed_rows).await?;
    snapshot.rollback().await?;
    Ok(DiffReport { projection: name, version, positions: live, events: progress.events(), dead_letters, differences })
}
