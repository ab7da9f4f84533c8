//! Heads and anchors: what the log's end has to be.

use std::collections::BTreeMap;

use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use calos_adapters::anchors::{Anchor, read_file, read_table};
use calos_adapters::postgres::Timestamptz;
use calos_adapters::seal::GENESIS_HASH;
use calos_domain::Timestamp;

use super::walk::Walked;
use super::{Anchors, Check, Finding};
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
    pub(super) heads: Vec<StoredHead>,
}

/// Reads the heads in one snapshot, with what contradicts them in it: events beyond a head or in no partition at all.
pub(super) async fn read(connection: &mut PgConnection) -> Result<(Stored, Check), ToolError> {
    let mut check = Check::new("heads");
    let mut snapshot = connection.begin().await?;
    run_sql(&mut snapshot, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let (log_id, partitions): (Uuid, i32) =
        sqlx::query_as("SELECT log_id, partitions FROM log").fetch_one(&mut *snapshot).await?;
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
         ORDER BY partition, position LIMIT 1",
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
        check.found(Finding::at(partition, position, format!("the log has only {partitions} partitions")));
    }
    let head = |(partition, position, hash, recorded_at): (i32, i64, Vec<u8>, Timestamptz)| StoredHead {
        partition,
        position,
        hash,
        recorded_at: recorded_at.0,
    };
    Ok((Stored { log_id, heads: rows.into_iter().map(head).collect() }, check))
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

/// An anchored position: its hash in hexadecimal, and when it was anchored.
pub(super) type AnchoredAt = BTreeMap<i64, (String, Timestamp)>;

/// What the anchors require of the log.
pub(super) struct Required {
    check: Check,
    by_partition: BTreeMap<i32, AnchoredAt>,
    anchors: usize,
    given: bool,
}

impl Required {
    /// What a partition has to contain.
    pub(super) fn of(&self, partition: i32) -> AnchoredAt {
        self.by_partition.get(&partition).cloned().unwrap_or_default()
    }

    /// The check, once every partition has been held against it.
    pub(super) fn conclude(mut self, walked: &mut Check, met: u64) -> Check {
        self.check.take_in(std::mem::replace(walked, Check::new("anchors")));
        self.check.looked_at = match (self.given, self.anchors) {
            (false, _) => "no anchors were given, so that a cut tail could not be told".to_owned(),
            (true, 0) => "there are no anchors yet, so that a cut tail could not be told".to_owned(),
            (true, anchors) => format!("{anchors} signed anchors; the log contains all {met} heads they name"),
        };
        self.check
    }
}

/// Reads and checks the anchors, from outside the database and from within it.
pub(super) async fn required(pool: &PgPool, anchors: Option<&Anchors>, stored: &Stored) -> Result<Required, ToolError> {
    let given = anchors.is_some();
    let mut required = Required { check: Check::new("anchors"), by_partition: BTreeMap::new(), anchors: 0, given };
    let Some(source) = anchors else { return Ok(required) };
    let places = [("the anchor file", read_file(&source.directory)), ("the anchors table", read_table(pool).await)];
    for (place, anchors) in places {
        match anchors {
            Ok(anchors) => {
                for anchor in anchors {
                    required.take(place, &anchor, source, stored);
                }
            }
            Err(calos_adapters::anchors::AnchorError::Database(error)) => return Err(error.into()),
            Err(error) => required.check.found(Finding::of(format!("{place}: {error}"))),
        }
    }
    Ok(required)
}

impl Required {
    fn take(&mut self, place: &str, anchor: &Anchor, source: &Anchors, stored: &Stored) {
        self.anchors += 1;
        if let Err(error) = anchor.verify(&source.key) {
            self.check.found(Finding::of(format!("{place}: {error}")));
            return;
        }
        if anchor.log_id != stored.log_id {
            let (theirs, ours) = (anchor.log_id, stored.log_id);
            self.check.found(Finding::of(format!("{place}: an anchor of the log {theirs}, but this log is {ours}")));
            return;
        }
        for head in anchor.heads.iter().filter(|head| head.position > 0) {
            let at = (head.hash.clone(), anchor.anchored_at);
            let known = self.by_partition.entry(head.partition).or_default().entry(head.position).or_insert(at);
            if known.0 != head.hash {
                let what = format!("{place}: two anchors disagree about the hash");
                self.check.found(Finding::at(head.partition, head.position, what));
            }
            if !stored.heads.iter().any(|stored| stored.partition == head.partition) {
                let what = format!("{place}: anchored, but the log has no such partition");
                self.check.found(Finding::at(head.partition, head.position, what));
            }
        }
    }
}
