//! Heads: what the log's end has to be.

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use calos_adapters::postgres::Timestamptz;
use calos_adapters::seal::GENESIS_HASH;
use calos_domain::Timestamp;

use super::walk::Walked;
use super::{Check, Finding};
use crate::connections::run_sql;
use crate::error::ToolError;

/// A partition's head row.
#[derive(Clone, Debug)]
pub(super) struct StoredHead {
    pub(super) partition: i32,
    pub(super) position: i64,
    pub(super) hash: Vec<u8>,
    pub(super) recorded_at: Timestamp,
}

/// The log's own rows about itself.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) log_id: Uuid,
    /// How long ago the log was made and began, in seconds, by the database's clock.
    pub(super) age_seconds: i64,
    pub(super) heads: Vec<StoredHead>,
}

/// Reads the heads in one snapshot, with what contradicts them in it: events beyond a head or in no partition at all.
pub(super) async fn read(connection: &mut PgConnection) -> Result<(Stored, Check), ToolError> {
    let mut check = Check::new("heads");
    let mut snapshot = connection.begin().await?;
    run_sql(&mut snapshot, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    // By the younger of the two: a log may be prepared long before it is used, and be filled with an older history.
    let (log_id, partitions, age_seconds): (Uuid, i32, i64) = sqlx::query_as(
        "SELECT log_id, partitions, extract(epoch FROM now() - greatest(created_at, (SELECT min(e.recorded_at) \
         FROM partitions h JOIN events e ON e.partition = h.partition AND e.position = 1)))::bigint FROM log",
    )
    .fetch_one(&mut *snapshot)
    .await?;
    let rows: Vec<(i32, i64, Vec<u8>, Timestamptz)> = sqlx::query_as(
        "SELECT partition, last_position, head_hash, last_recorded_at FROM partitions ORDER BY partition",
    )
    .fetch_all(&mut *snapshot)
    .await?;
    let beyond: Vec<(i32, i64)> = sqlx::query_as(
        "SELECT h.partition, beyond.position FROM partitions h, LATERAL (SELECT position FROM events e \
         WHERE e.partition = h.partition AND e.position > h.last_position ORDER BY position LIMIT 1) beyond \
         ORDER BY h.partition",
    )
    .fetch_all(&mut *snapshot)
    .await?;
    let stray: Option<(i32, i64)> = sqlx::query_as(
        "SELECT partition, position FROM events WHERE partition < 0 OR partition >= $1 \
         OR position <= 0 ORDER BY partition, position LIMIT 1",
    )
    .bind(partitions)
    .fetch_optional(&mut *snapshot)
    .await?;
    snapshot.rollback().await?;
    if !rows.iter().map(|row| row.0).eq(0..partitions) {
        check.found(Finding::of(format!("the log has {partitions} partitions, but not exactly one head for each")));
    }
    for (partition, position) in beyond {
        check.found(Finding::at(partition, position, "this event lies beyond its partition's head"));
    }
    if let Some((partition, position)) = stray {
        let what = format!("the log has only partitions 0 to {}, each from position 1 on", partitions - 1);
        check.found(Finding::at(partition, position, what));
    }
    let head = |(partition, position, hash, recorded_at): (i32, i64, Vec<u8>, Timestamptz)| StoredHead {
        partition,
        position,
        hash,
        recorded_at: recorded_at.0,
    };
    Ok((Stored { log_id, age_seconds, heads: rows.into_iter().map(head).collect() }, check))
}

/// Holds a head against the last event that was read.
pub(super) fn matches(head: &StoredHead, walked: &Walked, check: &mut Check) {
    let StoredHead { partition, position, .. } = *head;
    if walked.last_position != position {
        let what = format!("the head says {position}, but the last event is {}", walked.last_position);
        check.found(Finding::at(partition, position, what));
    } else if walked.last_hash.as_deref().unwrap_or(&GENESIS_HASH) != head.hash {
        check.found(Finding::at(partition, position, "the head's hash is not that of the last event"));
    } else if walked.last_recorded_at.is_some_and(|at| at > head.recorded_at) {
        check.found(Finding::at(partition, position, "the head's clock is behind the last event's"));
    }
}
