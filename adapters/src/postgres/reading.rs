//! Single events, as they stand in the log, for whoever wants to see what is behind a figure.

use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use calos_domain::Timestamp;

use super::Timestamptz;

/// One event of the log with its envelope.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredEvent {
    /// The partition.
    pub partition: i32,
    /// The position in it.
    pub position: i64,
    /// What kind of aggregate it happened to.
    pub aggregate_type: String,
    /// Which one.
    pub aggregate_id: String,
    /// Its place in its stream, counted from 1.
    pub sequence: i64,
    /// The event's name.
    pub event_type: String,
    /// Its version.
    pub event_version: String,
    /// What happened.
    pub payload: Value,
    /// Who did it and why.
    pub metadata: Value,
    /// When the log took it.
    pub recorded_at: Timestamp,
    /// The hash of the chain up to and with it.
    pub hash: Vec<u8>,
}

const COLUMNS: &str = "partition, position, aggregate_type, aggregate_id, sequence, event_type, event_version, \
                       payload::text, metadata::text, recorded_at, hash";

/// The event at a place; none where there is none.
///
/// # Errors
/// The database's; a payload that is not JSON is one.
pub async fn event_at(pool: &PgPool, partition: i32, position: i64) -> Result<Option<StoredEvent>, sqlx::Error> {
    let statement = format!("SELECT {COLUMNS} FROM events WHERE partition = $1 AND position = $2");
    let row = sqlx::query(&statement).bind(partition).bind(position).fetch_optional(pool).await?;
    row.as_ref().map(stored).transpose()
}

/// The last events of a stream before a sequence (the very last ones without it), newest first, at most `limit`.
///
/// # Errors
/// As [`event_at`].
pub async fn last_of_stream(
    pool: &PgPool,
    aggregate_type: &str,
    aggregate_id: &str,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<StoredEvent>, sqlx::Error> {
    let statement = format!(
        "SELECT {COLUMNS} FROM events WHERE aggregate_type = $1 AND aggregate_id = $2 AND sequence < $3 \
         ORDER BY sequence DESC LIMIT $4"
    );
    let rows = sqlx::query(&statement)
        .bind(aggregate_type)
        .bind(aggregate_id)
        .bind(before.unwrap_or(i64::MAX))
        .bind(limit)
        .fetch_all(pool)
        .await?;
    rows.iter().map(stored).collect()
}

fn stored(row: &PgRow) -> Result<StoredEvent, sqlx::Error> {
    let json = |index: usize| -> Result<Value, sqlx::Error> {
        serde_json::from_str(row.try_get(index)?).map_err(|error| sqlx::Error::Decode(error.into()))
    };
    Ok(StoredEvent {
        partition: row.try_get(0)?,
        position: row.try_get(1)?,
        aggregate_type: row.try_get(2)?,
        aggregate_id: row.try_get(3)?,
        sequence: row.try_get(4)?,
        event_type: row.try_get(5)?,
        event_version: row.try_get(6)?,
        payload: json(7)?,
        metadata: json(8)?,
        recorded_at: row.try_get::<Timestamptz, _>(9)?.0,
        hash: row.try_get(10)?,
    })
}
