//! `events`: the log as JSON lines, filtered, and followed as it grows.

use std::time::Duration;

use futures_util::TryStreamExt;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::{PgPool, Postgres, QueryBuilder};

use calos_adapters::postgres::Timestamptz;
use calos_domain::Timestamp;

use crate::error::ToolError;
use crate::place::Place;
use crate::time_text::show;
use crate::versions::{Vector, heads_of};

/// How often a followed log is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// Which events.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EventFilter {
    /// Of this stream: aggregate type and id.
    pub stream: Option<(String, String)>,
    /// With this name.
    pub event_type: Option<String>,
    /// Of this conversation.
    pub correlation: Option<uuid::Uuid>,
    /// Recorded at or after.
    pub from: Option<Timestamp>,
    /// Recorded before.
    pub to: Option<Timestamp>,
    /// Of this partition.
    pub partition: Option<i32>,
    /// No more than this many.
    pub limit: Option<u64>,
}

/// One event as a line of JSON; payload and metadata exactly as stored.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventLine {
    /// The partition.
    pub partition: i32,
    /// The position.
    pub position: i64,
    /// `<aggregate type>/<id>`
    pub stream: String,
    /// Position within the stream.
    pub sequence: i64,
    /// The stored name.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The stored version.
    pub version: String,
    /// When the log accepted it.
    pub recorded_at: String,
    /// The payload.
    pub payload: Box<RawValue>,
    /// The envelope.
    pub metadata: Box<RawValue>,
    /// The seal, hexadecimal.
    pub hash: String,
}

pub(crate) type EventRow = (i32, i64, String, String, i64, String, String, String, String, Timestamptz, String);

/// Hands out the events that match, by partition and position, or by sequence within one stream. With `follow` it goes
/// on with what is appended from now on, and ends only with an error or when the limit is reached.
///
/// # Errors
/// The database's, or the first error of `each`.
pub async fn events(
    pool: &PgPool,
    filter: &EventFilter,
    follow: bool,
    mut each: impl FnMut(&EventLine) -> Result<(), ToolError>,
) -> Result<u64, ToolError> {
    let mut through = heads_of(pool).await?;
    let mut shown = slice(pool, filter, &Vector::new(), &through, 0, &mut each).await?;
    while follow && filter.limit.is_none_or(|limit| shown < limit) {
        tokio::time::sleep(FOLLOW_EVERY).await;
        let heads = heads_of(pool).await?;
        if heads != through {
            shown += slice(pool, filter, &through, &heads, shown, &mut each).await?;
            through = heads;
        }
    }
    Ok(shown)
}

/// The event at one place; none when the log has none there.
///
/// # Errors
/// The database's.
pub async fn event_at(pool: &PgPool, place: Place) -> Result<Option<EventLine>, ToolError> {
    let row: Option<EventRow> = sqlx::query_as(
        "SELECT partition, position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload::text, \
         metadata::text, recorded_at, encode(hash, 'hex') FROM events WHERE partition = $1 AND position = $2",
    )
    .bind(place.partition)
    .bind(place.position)
    .fetch_optional(pool)
    .await?;
    row.map(line).transpose()
}

/// The events that match, after one vector and up to another.
async fn slice(
    pool: &PgPool,
    filter: &EventFilter,
    after: &Vector,
    through: &Vector,
    shown: u64,
    each: &mut impl FnMut(&EventLine) -> Result<(), ToolError>,
) -> Result<u64, ToolError> {
    let mut query = statement(filter, after, through, shown);
    let mut rows = query.build_query_as::<EventRow>().fetch(pool);
    let mut count = 0;
    while let Some(row) = rows.try_next().await? {
        each(&line(row)?)?;
        count += 1;
    }
    Ok(count)
}

fn statement<'a>(filter: &'a EventFilter, after: &Vector, through: &Vector, shown: u64) -> QueryBuilder<'a, Postgres> {
    let mut query = QueryBuilder::new(
        "SELECT e.partition, e.position, e.aggregate_type, e.aggregate_id, e.sequence, e.event_type, e.event_version, \
         e.payload::text, e.metadata::text, e.recorded_at, encode(e.hash, 'hex') FROM events e JOIN unnest(",
    );
    query.push_bind(through.keys().copied().collect::<Vec<i32>>()).push("::int[], ");
    let from = |partition: &i32| after.get(partition).copied().unwrap_or_default();
    query.push_bind(through.keys().map(from).collect::<Vec<i64>>()).push("::bigint[], ");
    query.push_bind(through.values().copied().collect::<Vec<i64>>());
    query.push("::bigint[]) AS s (partition, after, through) ON s.partition = e.partition ");
    query.push("AND e.position > s.after AND e.position <= s.through WHERE true");
    if let Some((kind, id)) = &filter.stream {
        query.push(" AND e.aggregate_type = ").push_bind(kind).push(" AND e.aggregate_id = ").push_bind(id);
    }
    if let Some(event_type) = &filter.event_type {
        query.push(" AND e.event_type = ").push_bind(event_type);
    }
    if let Some(correlation) = &filter.correlation {
        query.push(" AND e.metadata ->> 'correlation_id' = ").push_bind(correlation.to_string());
    }
    if let Some(from) = filter.from {
        query.push(" AND e.recorded_at >= ").push_bind(Timestamptz(from));
    }
    if let Some(to) = filter.to {
        query.push(" AND e.recorded_at < ").push_bind(Timestamptz(to));
    }
    if let Some(partition) = filter.partition {
        query.push(" AND e.partition = ").push_bind(partition);
    }
    query.push(" ORDER BY e.partition, e.position");
    if let Some(limit) = filter.limit {
        query.push(" LIMIT ").push_bind(i64::try_from(limit.saturating_sub(shown)).unwrap_or(i64::MAX));
    }
    query
}

pub(crate) fn line(row: EventRow) -> Result<EventLine, ToolError> {
    let (partition, position, kind, id, sequence, event_type, version, payload, metadata, recorded_at, hash) = row;
    let raw = |text: String| {
        RawValue::from_string(text)
            .map_err(|error| ToolError::Corrupt(format!("partition {partition} position {position}: {error}")))
    };
    Ok(EventLine {
        partition,
        position,
        stream: format!("{kind}/{id}"),
        sequence,
        event_type,
        version,
        recorded_at: show(recorded_at.0),
        payload: raw(payload)?,
        metadata: raw(metadata)?,
        hash,
    })
}
