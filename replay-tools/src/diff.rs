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
use crate::versions::{Vector, lag_events, positions, versions};

/// What a comparison with the log found.
#[derive(Clone, PartialEq, Debug, Serialize)]
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

/// Folds the log into temporary tables, up to where the live version has read, and compares row by row.
///
/// # Errors
/// The log cannot be read up to those positions, the live tables cannot be read, or the database failed.
pub async fn diff(pool: &PgPool, model: ReadModel, listed_rows: i64, show: Show) -> Result<DiffReport, ToolError> {
    let connections = Connections::beside(pool, 1);
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
    let mut counter = progress.counter();
    for (&partition, &through) in &live {
        let bulk = Bulk::new(partition, Schema::Scratch).with(model, through);
        bulk.load(connections.readers(), &mut snapshot, &mut counter).await?;
    }
    drop(counter);
    progress.finish();
    let differences = compare_all(&mut snapshot, model.tables(), Schema::Live, Schema::Scratch, listed_rows).await?;
    snapshot.rollback().await?;
    connections.close().await;
    Ok(DiffReport { projection: name, version, positions: live, events: progress.events(), dead_letters, differences })
}
