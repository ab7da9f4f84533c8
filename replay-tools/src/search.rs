//! Looking for events page by page, for people who wait: every page reads a bounded stretch of the log.
//!
//! A stream is found by its index. Everything else is read over: positions are in order of time within a partition, so a
//! span of time is a span of positions, found by halving; within it each page looks at so many events at the most and says
//! where it stopped.

use sqlx::{PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use calos_adapters::postgres::Timestamptz;
use calos_domain::Timestamp;

use crate::error::ToolError;
use crate::events::{EventFilter, EventLine, EventRow, line};
use crate::place::Place;
use crate::versions::{Vector, heads_of};

/// Events one page looks at, at the most; those it does not show included.
pub const PAGE_SCAN_MAX_EVENTS: i64 = 100_000;

/// Events read by one statement while looking.
const STEP_EVENTS: i64 = 20_000;

/// A page of what was found, oldest first within each partition.
#[derive(Debug)]
pub struct Found {
    /// The events.
    pub events: Vec<EventLine>,
    /// Where the next page begins: behind this place. None when there is nothing more to look at.
    pub next: Option<Place>,
}

/// One page: at most `limit` events (`filter.limit` is not looked at) that match, behind a place.
///
/// # Errors
/// The database's.
pub async fn page(pool: &PgPool, filter: &EventFilter, after: Option<Place>, limit: usize) -> Result<Found, ToolError> {
    let heads = heads_of(pool).await?;
    let mut events = Vec::new();
    let mut left = PAGE_SCAN_MAX_EVENTS;
    for (&partition, &head) in wanted(&heads, filter, after).iter() {
        let reached = after.filter(|place| place.partition == partition).map_or(0, |place| place.position);
        let begin = match filter.from {
            Some(from) => first_at(pool, partition, head, from).await? - 1,
            None => 0,
        };
        let end = match filter.to {
            Some(to) => first_at(pool, partition, head, to).await? - 1,
            None => head,
        };
        let mut at = reached.max(begin);
        while at < end {
            if left <= 0 {
                return Ok(Found { events, next: Some(Place { partition, position: at }) });
            }
            // A stream has an index of its own: its few events are found wherever they stand.
            let step = if filter.stream.is_some() { end - at } else { STEP_EVENTS.min(end - at) };
            let room = limit - events.len();
            let read = stretch(pool, filter, partition, at, at + step, room).await?;
            let full = read.len() == room;
            let last = read.last().map(|event| event.position);
            events.extend(read);
            if full {
                let position = last.unwrap_or(at);
                return Ok(Found { events, next: Some(Place { partition, position }) });
            }
            at += step;
            left -= if filter.stream.is_some() { 0 } else { step };
        }
    }
    Ok(Found { events, next: None })
}

/// The partitions that are left to look at, with their heads.
fn wanted(heads: &Vector, filter: &EventFilter, after: Option<Place>) -> Vector {
    let first = after.map_or(0, |place| place.partition);
    let left = heads.iter().filter(|(partition, _)| **partition >= first);
    let left = left.filter(|(partition, _)| filter.partition.is_none_or(|only| only == **partition));
    left.map(|(&partition, &head)| (partition, head)).collect()
}

/// The first position recorded at a moment or later; one beyond the head when there is none.
pub(crate) async fn first_at(pool: &PgPool, partition: i32, head: i64, at: Timestamp) -> Result<i64, ToolError> {
    let (mut low, mut high) = (1, head + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let recorded: Timestamptz =
            sqlx::query_scalar("SELECT recorded_at FROM events WHERE partition = $1 AND position = $2")
                .bind(partition)
                .bind(middle)
                .fetch_one(pool)
                .await?;
        if recorded.0 < at {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// What matches after one position and up to another.
async fn stretch(
    pool: &PgPool,
    filter: &EventFilter,
    partition: i32,
    after: i64,
    through: i64,
    limit: usize,
) -> Result<Vec<EventLine>, ToolError> {
    let mut query: QueryBuilder<'_, Postgres> = QueryBuilder::new(
        "SELECT partition, position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload::text, \
         metadata::text, recorded_at, encode(hash, 'hex') FROM events WHERE partition = ",
    );
    query.push_bind(partition).push(" AND position > ").push_bind(after);
    query.push(" AND position <= ").push_bind(through);
    if let Some((kind, id)) = &filter.stream {
        query.push(" AND aggregate_type = ").push_bind(kind).push(" AND aggregate_id = ").push_bind(id);
    }
    if let Some(event_type) = &filter.event_type {
        query.push(" AND event_type = ").push_bind(event_type);
    }
    if let Some(correlation) = &filter.correlation {
        query.push(" AND metadata ->> 'correlation_id' = ").push_bind(correlation.to_string());
    }
    query.push(" ORDER BY position LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
    let rows = query.build_query_as::<EventRow>().fetch_all(pool).await?;
    rows.into_iter().map(line).collect()
}

/// Events around a moment that belong to one conversation, over all partitions.
///
/// # Errors
/// The database's.
pub async fn conversation(
    pool: &PgPool,
    correlation: Uuid,
    from: Timestamp,
    to: Timestamp,
    limit: usize,
) -> Result<Found, ToolError> {
    let filter =
        EventFilter { correlation: Some(correlation), from: Some(from), to: Some(to), ..EventFilter::default() };
    page(pool, &filter, None, limit).await
}
