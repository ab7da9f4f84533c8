//! What a rebuild leaves in the log beside its result: that it began, and that it was stopped.

use sqlx::PgPool;

use calos_commands::log::EventLog;
use calos_domain::operation::{
    OperationCommand, ProjectionRepaired, RebuildCancelled, RebuildOnly, RebuildScope, RebuildStarted, RunBy,
};
use calos_projections::registry;

use super::RebuildReport;
use crate::error::ToolError;
use crate::fold::ReadModel;
use crate::operation::{self, now};

/// Records that a rebuild of these read models begins: all of them, one, or some.
pub(super) async fn announce<L: EventLog>(
    log: &L,
    run: &RunBy,
    models: &[ReadModel],
    only: Option<&RebuildOnly>,
) -> Result<(), ToolError> {
    let scopes: Vec<RebuildScope> = if models.len() == registry::ALL.len() {
        vec![RebuildScope::Every]
    } else {
        models.iter().map(|model| RebuildScope::named(model.name())).collect()
    };
    for scope in scopes {
        let fact = RebuildStarted { run: run.clone(), scope, only: only.cloned(), until: None, started_at: now() };
        operation::record(log, run, OperationCommand::RecordRebuildStarted(fact)).await?;
    }
    Ok(())
}

/// Records that the operator stopped a rebuild, if it had begun: what it finished is kept, and the live versions are as they
/// were.
///
/// # Errors
/// It could not be looked up or recorded; it is stopped all the same.
pub async fn record_cancelled<L: EventLog>(
    pool: &PgPool,
    log: &L,
    projection: &str,
    run: &RunBy,
) -> Result<(), ToolError> {
    let begun: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM events WHERE aggregate_type = 'operation' AND aggregate_id = $1 \
         AND event_type = 'rebuild_started')",
    )
    .bind(run.operation_id.to_string())
    .fetch_one(pool)
    .await?;
    if !begun {
        return Ok(());
    }
    let fact = RebuildCancelled { run: run.clone(), projection: projection.to_owned(), cancelled_at: now() };
    operation::record(log, run, OperationCommand::RecordRebuildCancelled(fact)).await
}

/// The live version was replaced in place.
pub(super) fn repaired(report: &RebuildReport, run: &RunBy) -> ProjectionRepaired {
    ProjectionRepaired {
        run: run.clone(),
        projection: report.projection.to_owned(),
        version: report.to_version,
        positions: operation::positions(&report.positions),
        differences: report.parity.differing_rows(),
        only: None,
        repaired_at: now(),
    }
}
