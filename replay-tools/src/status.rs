//! `status`: how far every read model is, and where the log ends.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::PgPool;

use calos_adapters::postgres::Timestamptz;
use calos_projections::status::{PartitionStatus, ProjectionStatus, projections};

use crate::error::ToolError;
use crate::output::Output;
use crate::time_text::show;

/// Everything `status` shows.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The end of each partition of the log.
    pub heads: Vec<Head>,
    /// Each projection.
    pub projections: Vec<Projection>,
}

/// The end of one partition of the log.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// The partition.
    pub partition: i32,
    /// Its last position; 0 while it is empty.
    pub position: i64,
    /// When the event there was recorded.
    pub recorded_at: String,
}

/// One projection.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Projection {
    /// Its name.
    pub name: String,
    /// The live version.
    pub version: i32,
    /// `live`, `building` (live, with another version under construction) or `halted`.
    pub state: &'static str,
    /// The version under construction, and the partitions of it that are folded.
    pub building: Option<Building>,
    /// Events it has set aside.
    pub dead_letters: i64,
    /// Events it has not read yet, altogether.
    pub lag_events: i64,
    /// How long the oldest of them has been waiting, in seconds.
    pub lag_seconds: f64,
    /// Where it stands in each partition.
    pub partitions: Vec<Partition>,
}

/// An unfinished rebuild.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Building {
    /// The version.
    pub version: i32,
    /// Partitions that are folded.
    pub partitions_done: i64,
}

/// Where one projection stands in one partition.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    /// The partition.
    pub partition: i32,
    /// The last position it has read.
    pub position: i64,
    /// The last position there is.
    pub head: i64,
    /// The difference.
    pub lag_events: i64,
    /// How long the first of them has been waiting, in seconds.
    pub lag_seconds: f64,
    /// Why it stopped, if it did.
    pub halted: Option<String>,
}

/// Reads the status of everything.
///
/// # Errors
/// The database's.
pub async fn status(pool: &PgPool) -> Result<Status, ToolError> {
    let heads: Vec<(i32, i64, Timestamptz)> =
        sqlx::query_as("SELECT partition, last_position, last_recorded_at FROM partitions ORDER BY partition")
            .fetch_all(pool)
            .await?;
    let building: Vec<(String, i64)> = sqlx::query_as(
        "SELECT p.name, count(*) FILTER (WHERE c.position > 0) FROM projections p \
         JOIN checkpoints c ON c.projection = p.name AND c.version = p.building_version GROUP BY p.name",
    )
    .fetch_all(pool)
    .await?;
    let building: BTreeMap<String, i64> = building.into_iter().collect();
    let head =
        |(partition, position, at): (i32, i64, Timestamptz)| Head { partition, position, recorded_at: show(at.0) };
    let known = projections(pool).await?.into_iter().map(|projection| {
        let done = building.get(&projection.name).copied().unwrap_or_default();
        of(projection, done)
    });
    Ok(Status { heads: heads.into_iter().map(head).collect(), projections: known.collect() })
}

fn of(projection: ProjectionStatus, partitions_done: i64) -> Projection {
    let partition = |partition: PartitionStatus| Partition {
        partition: partition.partition,
        position: partition.position,
        head: partition.head,
        lag_events: partition.lag_events,
        lag_seconds: partition.lag_seconds,
        halted: partition.halted,
    };
    Projection {
        version: projection.version,
        state: projection.state.as_str(),
        building: projection.building_version.map(|version| Building { version, partitions_done }),
        dead_letters: projection.dead_letters,
        lag_events: projection.lag_events(),
        lag_seconds: projection.lag_seconds(),
        name: projection.name,
        partitions: projection.partitions.into_iter().map(partition).collect(),
    }
}

/// Shows the status to a person or a machine.
///
/// # Errors
/// Standard output cannot be written.
pub fn show_status(status: &Status, output: Output) -> Result<(), ToolError> {
    let events: i64 = status.heads.iter().map(|head| head.position).sum();
    output.say(format!("log: {events} events in {} partitions", status.heads.len()))?;
    for projection in &status.projections {
        let Projection { name, version, state, building, dead_letters, lag_events, lag_seconds, partitions } =
            projection;
        let aside = if *dead_letters > 0 { format!(", {dead_letters} dead letters") } else { String::new() };
        output.say(format!("{name} v{version} {state}: {lag_events} events, {lag_seconds:.1} s behind{aside}"))?;
        if let Some(Building { version, partitions_done }) = building {
            let count = partitions.len();
            output.say(format!("  v{version} under construction: {partitions_done} of {count} partitions folded"))?;
        }
        for partition in partitions.iter().filter(|partition| partition.lag_events > 0 || partition.halted.is_some()) {
            let why = partition.halted.as_ref().map_or_else(String::new, |why| format!(", halted: {why}"));
            let (number, position, head) = (partition.partition, partition.position, partition.head);
            output.say(format!("  partition {number}: {position} of {head}{why}"))?;
        }
    }
    output.document(status)
}
