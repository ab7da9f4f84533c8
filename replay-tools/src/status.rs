//! `status`: how far every read model is, and where the log ends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::PgPool;

use calos_adapters::postgres::Timestamptz;
use calos_projections::status::{PartitionStatus, ProjectionStatus, projections};

use crate::error::ToolError;
use crate::output::Output;
use crate::time_text::show;

/// Between the two looks that say how fast a read model is going.
pub const SPEED_MEASURED_MILLISECONDS: u64 = 500;

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
    /// Events it takes a second, over [`SPEED_MEASURED_MILLISECONDS`]; none when that was not measured, or another version
    /// went live meanwhile.
    pub events_per_second: Option<f64>,
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
    /// Events of them. A partition counts once all of it is folded.
    pub events_done: i64,
    /// Events there are.
    pub events: i64,
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
        sqlx::query_as("SELECT partition, last_position, last_recorded_at FROM heads ORDER BY partition")
            .fetch_all(pool)
            .await?;
    let building: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT p.name, count(*) FILTER (WHERE c.position > 0), sum(c.position)::bigint FROM projections p \
         JOIN checkpoints c ON c.projection = p.name AND c.version = p.building_version GROUP BY p.name",
    )
    .fetch_all(pool)
    .await?;
    let building: BTreeMap<String, (i64, i64)> =
        building.into_iter().map(|(name, partitions, events)| (name, (partitions, events))).collect();
    let events = heads.iter().map(|head| head.1).sum();
    let head =
        |(partition, position, at): (i32, i64, Timestamptz)| Head { partition, position, recorded_at: show(at.0) };
    let known = projections(pool).await?.into_iter().map(|projection| {
        let done = building.get(&projection.name).copied().unwrap_or_default();
        of(projection, done, events)
    });
    Ok(Status { heads: heads.into_iter().map(head).collect(), projections: known.collect() })
}

fn of(projection: ProjectionStatus, (partitions_done, events_done): (i64, i64), events: i64) -> Projection {
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
        building: projection.building_version.map(|version| Building { version, partitions_done, events_done, events }),
        dead_letters: projection.dead_letters,
        lag_events: projection.lag_events(),
        lag_seconds: projection.lag_seconds(),
        events_per_second: None,
        name: projection.name,
        partitions: projection.partitions.into_iter().map(partition).collect(),
    }
}

/// Reads the status twice, a moment apart, so that it says how fast every read model is going.
///
/// # Errors
/// The database's.
pub async fn measured(pool: &PgPool) -> Result<Status, ToolError> {
    let before = status(pool).await?;
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_millis(SPEED_MEASURED_MILLISECONDS)).await;
    let mut after = status(pool).await?;
    let seconds = begun.elapsed().as_secs_f64();
    for projection in &mut after.projections {
        let was = before.projections.iter().find(|was| was.name == projection.name);
        projection.events_per_second = was.and_then(|was| speed(was, projection, seconds));
    }
    Ok(after)
}

/// Events a second between two looks at the same version.
fn speed(before: &Projection, after: &Projection, seconds: f64) -> Option<f64> {
    let reached = |projection: &Projection| projection.partitions.iter().map(|at| at.position).sum::<i64>();
    let events = reached(after).saturating_sub(reached(before)).max(0);
    (before.version == after.version && seconds > 0.0).then(|| events as f64 / seconds)
}

/// Shows the status to a person or a machine.
///
/// # Errors
/// Standard output cannot be written.
pub fn show_status(status: &Status, output: Output) -> Result<(), ToolError> {
    let events: i64 = status.heads.iter().map(|head| head.position).sum();
    output.say(format!("log: {events} events in {} partitions", status.heads.len()))?;
    for projection in &status.projections {
        let Projection { name, version, state, building, dead_letters, lag_events, lag_seconds, partitions, .. } =
            projection;
        let speed = projection.events_per_second.map_or_else(String::new, |speed| format!(", {speed:.0} events/s"));
        let aside = if *dead_letters > 0 { format!(", {dead_letters} dead letters") } else { String::new() };
        output
            .say(format!("{name} v{version} {state}: {lag_events} events, {lag_seconds:.1} s behind{speed}{aside}"))?;
        if let Some(Building { version, partitions_done, events_done, events }) = building {
            let (count, percent) = (partitions.len(), events_done * 100 / (*events).max(1));
            output.say(format!(
                "  v{version} under construction: {partitions_done} of {count} partitions folded, {percent} % of the events"
            ))?;
        }
        for partition in partitions.iter().filter(|partition| partition.lag_events > 0 || partition.halted.is_some()) {
            let why = partition.halted.as_ref().map_or_else(String::new, |why| format!(", halted: {why}"));
            let (number, position, head) = (partition.partition, partition.position, partition.head);
            let (events, seconds) = (partition.lag_events, partition.lag_seconds);
            output.say(format!(
                "  partition {number}: {position} of {head}, {events} events and {seconds:.1} s behind{why}"
            ))?;
        }
    }
    output.document(status)
}
