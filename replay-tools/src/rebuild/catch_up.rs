//! Catching up: what was added to the log since a version was built, folded on top of its rows.

use sqlx::PgConnection;

use calos_projections::{Growth, LogSlice};

use super::Building;
use super::build::begin_lazily;
use crate::background::apart;
use crate::bulk::Bulk;
use crate::connections::Connections;
use crate::error::ToolError;
use crate::fold::{PartitionFold, ReadModel, VersionAt, steps};
use crate::progress::{Counter, Progress};
use crate::skips::Skips;
use crate::versions::{Vector, at_most, heads, lag_events, positions};

/// Catching up goes on in rounds until no more than this is missing; the rest is done while the live version waits.
const REST_EVENTS: u64 = 2_000;

/// A log that grows faster than it can be folded is not chased for ever.
const ROUNDS_MAX: u32 = 20;

/// Events caught up with in one transaction.
const STEP_EVENTS: i64 = 4_000;

/// Rounds of catching up, until little is left to do.
pub(super) async fn near(
    connections: &Connections,
    writer: &mut PgConnection,
    building: &Building,
    progress: &Progress,
) -> Result<(), ToolError> {
    let name = building.model.name();
    for _ in 0..ROUNDS_MAX {
        let live = positions(writer, name, building.live).await?;
        let target = at_most(&live, &heads(writer).await?);
        let reached = positions(writer, name, building.version).await?;
        let left = lag_events(&reached, &target);
        if left <= REST_EVENTS {
            return Ok(());
        }
        progress.left(left);
        in_steps(connections, writer, building, &target, &mut progress.counter()).await?;
    }
    Ok(())
}

/// The same for whoever has time: on a thread of its own, while everybody else goes on.
pub(super) async fn near_apart(
    connections: &Connections,
    building: &Building,
    progress: &Progress,
) -> Result<(), ToolError> {
    let (options, progress, building) = (connections.options().clone(), progress.clone(), building.clone());
    apart(1, move || async move {
        let connections = Connections::in_the_background(&options, 1);
        let mut writer = connections.connect_to_write().await?;
        let caught_up = near(&connections, &mut writer, &building, &progress).await;
        connections.close().await;
        caught_up
    })
    .await?
}

/// Folds what a version lacks of `target` on top of its rows, a transaction per step: nobody else's is to see an old one.
async fn in_steps(
    connections: &Connections,
    writer: &mut PgConnection,
    building: &Building,
    target: &Vector,
    counter: &mut Counter,
) -> Result<(), ToolError> {
    let (model, at) = (building.model, building.at());
    let skips = Skips::read(connections.readers()).await?;
    let reached = positions(writer, at.projection, at.version).await?;
    for (&partition, &through) in target {
        let after = reached.get(&partition).copied().unwrap_or_default();
        for slice in steps(partition, after, through, STEP_EVENTS) {
            let mut transaction = begin_lazily(writer).await?;
            advance(connections, &mut transaction, model, &at, slice, &skips, counter).await?;
            transaction.commit().await?;
        }
    }
    Ok(())
}

/// The same in the caller's transaction.
pub(super) async fn within(
    connections: &Connections,
    writer: &mut PgConnection,
    model: ReadModel,
    at: &VersionAt<'_>,
    target: &Vector,
    counter: &mut Counter,
) -> Result<(), ToolError> {
    let skips = Skips::read(connections.readers()).await?;
    let reached = positions(writer, at.projection, at.version).await?;
    for (&partition, &through) in target {
        let after = reached.get(&partition).copied().unwrap_or_default();
        for slice in steps(partition, after, through, STEP_EVENTS) {
            advance(connections, writer, model, at, slice, &skips, counter).await?;
        }
    }
    Ok(())
}

/// Folds one stretch on top of the rows of what came before it, and moves the checkpoint along.
async fn advance(
    connections: &Connections,
    writer: &mut PgConnection,
    model: ReadModel,
    at: &VersionAt<'_>,
    slice: LogSlice,
    skips: &Skips,
    counter: &mut Counter,
) -> Result<(), ToolError> {
    let LogSlice { partition, after, through } = slice;
    let mut fold = PartitionFold::new(model, partition);
    fold.leave_out(skips);
    fold.go_on(at, writer).await?;
    match model.growth() {
        // New rows alone: loading them costs less than half of inserting them.
        Growth::PerEvent => {
            let bulk = Bulk::new(partition, at.schema).going_on(fold, model, after, through);
            for folded in bulk.load(connections.readers(), writer, counter).await? {
                at.move_checkpoint(writer, partition, through, &folded).await?;
            }
            Ok(())
        }
        Growth::PerKey => fold.advance(at, connections.readers(), writer, slice, counter).await,
    }
}
