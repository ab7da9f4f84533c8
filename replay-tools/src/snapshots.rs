//! `snapshots drop`: the stored states of aggregates go. They only speed a load up: with any of them gone the answer is
//! the same, and new ones are written as streams grow.

use serde::Serialize;
use sqlx::PgPool;

use calos_commands::log::EventLog;
use calos_domain::operation::{OperationCommand, RunBy, SnapshotsDropped};

use crate::error::ToolError;
use crate::operation::{now, record};
use crate::turn::{Deed, Part, Reach, Turn};
use crate::write_guard::Confirmed;

/// Snapshots deleted in one statement, so that none holds its locks for long.
const BATCH_MAX_SNAPSHOTS: i64 = 10_000;

/// What was dropped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dropped {
    /// Of which kind of aggregate; of all when there is none.
    pub kind: Option<String>,
    /// How many.
    pub snapshots: u64,
}

/// Deletes the snapshots of one kind of aggregate, or all, and records that.
///
/// # Errors
/// The database's, or that it could not be recorded; what was deleted stays deleted.
pub async fn drop_snapshots<L: EventLog>(
    pool: &PgPool,
    log: &L,
    kind: Option<String>,
    run: &RunBy,
    _confirmed: &Confirmed,
) -> Result<Dropped, ToolError> {
    let turn = Turn::take(pool, Deed::Snapshots, run, Reach::Part(Part::Snapshots)).await?;
    let mut snapshots = 0;
    loop {
        let deleted = sqlx::query(
            "DELETE FROM snapshots WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM snapshots WHERE $1::text IS NULL OR aggregate_type = $1 LIMIT $2))",
        )
        .bind(&kind)
        .bind(BATCH_MAX_SNAPSHOTS)
        .execute(pool)
        .await?
        .rows_affected();
        snapshots += deleted;
        // Fewer than asked for: what a server writes meanwhile is new, and stays.
        if deleted < BATCH_MAX_SNAPSHOTS.unsigned_abs() {
            break;
        }
    }
    let fact = SnapshotsDropped { run: run.clone(), kind: kind.clone(), snapshots, dropped_at: now() };
    record(log, run, OperationCommand::RecordSnapshotsDropped(fact)).await?;
    turn.end().await?;
    Ok(Dropped { kind, snapshots })
}
