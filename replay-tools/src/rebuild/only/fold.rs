//! Folding a few streams of one partition, found by the streams' index instead of by reading the partition.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row};

use calos_adapters::postgres::Timestamptz;
use calos_domain::Record;
use calos_domain::stream::partition_key;
use calos_projections::copy_in::COPY_FLUSH_BYTES;
use calos_projections::{CopySink, Growth, Schema};

use crate::error::ToolError;
use crate::fold::{PartitionFold, ReadModel};
use crate::skips::Skips;

/// Rows of that many events are written at a time when a table has a row per event.
const STEP_EVENTS: u64 = 10_000;

/// The streams of one key.
pub(super) struct Streams<'a> {
    /// Their aggregates.
    pub(super) kinds: &'a [&'static str],
    /// The key.
    pub(super) key: &'a str,
    /// Their partition.
    pub(super) partition: i32,
    /// The last position that is read.
    pub(super) through: i64,
}

/// What a stream's index finds: `'0'` comes right behind `'/'`, so this is the key, and whatever begins with it and a `/`,
/// and the few that differ in a character between.
const READ: &str = "
SELECT e.partition, e.position, e.aggregate_type, e.aggregate_id, e.sequence, e.event_type, e.event_version,
    e.payload::text, e.recorded_at
FROM unnest($1::text[]) AS kind CROSS JOIN LATERAL (
    SELECT * FROM events WHERE aggregate_type = kind AND aggregate_id >= $2 AND aggregate_id < $2 || '0'
        AND partition = $3 AND position <= $4
) AS e ORDER BY e.position";

/// Folds the streams from their beginning into empty scratch tables, in the caller's transaction; answers how many events
/// that were.
pub(super) async fn load(
    readers: &PgPool,
    writer: &mut PgConnection,
    model: ReadModel,
    streams: &Streams<'_>,
) -> Result<u64, ToolError> {
    let Streams { kinds, key, partition, through } = *streams;
    let mut fold = PartitionFold::new(model, partition);
    fold.leave_out(&Skips::read(readers).await?);
    let mut sink = CopySink::new(model.tables().iter().map(|table| (table.name, table.column_names)));
    let schema = Schema::Scratch.as_str();
    let mut sequences: HashMap<(String, String), i64> = HashMap::new();
    let mut events = 0;
    let mut rows = sqlx::query(READ).bind(kinds).bind(key).bind(partition).bind(through).fetch(readers);
    while let Some(row) = rows.try_next().await? {
        let record = record(&row)?;
        if partition_key(record.aggregate_id) != key {
            continue;
        }
        in_order(&mut sequences, &record)?;
        fold.take(&record)?;
        events += 1;
        if model.growth() == Growth::PerEvent && events % STEP_EVENTS == 0 {
            fold.copy(&mut sink)?;
            sink.flush(writer, schema, COPY_FLUSH_BYTES).await?;
        }
    }
    drop(rows);
    fold.copy(&mut sink)?;
    sink.finish(writer, schema).await?;
    let folded = fold.so_far(events);
    match folded.dead.first() {
        None => Ok(folded.rows),
        Some(dead) => Err(ToolError::Refused(format!(
            "{} cannot take {partition}:{}: {}; rebuild it as a whole, which sets such events aside. Nothing was changed \
             in it",
            model.name(),
            dead.position,
            dead.error
        ))),
    }
}

/// Every stream is read from its first event and without a gap; nothing is taken on trust.
fn in_order(sequences: &mut HashMap<(String, String), i64>, record: &Record<'_>) -> Result<(), ToolError> {
    let stream = (record.aggregate_type.to_owned(), record.aggregate_id.to_owned());
    let last = sequences.entry(stream).or_default();
    *last += 1;
    if record.sequence == *last {
        return Ok(());
    }
    let (kind, id) = (record.aggregate_type, record.aggregate_id);
    Err(ToolError::Corrupt(format!("{kind}/{id} has no event {last}; run `calos-replay verify`")))
}

fn record(row: &PgRow) -> Result<Record<'_>, sqlx::Error> {
    Ok(Record {
        partition: row.try_get(0)?,
        position: row.try_get(1)?,
        aggregate_type: row.try_get(2)?,
        aggregate_id: row.try_get(3)?,
        sequence: row.try_get(4)?,
        event_type: row.try_get(5)?,
        event_version: row.try_get(6)?,
        payload: row.try_get(7)?,
        metadata: "",
        recorded_at: row.try_get::<Timestamptz, _>(8)?.0,
    })
}
