//! Warm aggregates: decided state in memory, one lock per partition, bounded by weight.
//!
//! The state here runs ahead of the database: it holds what has been decided and enqueued but is not durable yet. That
//! is what lets one hot wallet put many commands into one commit. Whoever finds such a decision failed drops the state;
//! it is loaded again once nothing of its partition is in flight.

use std::collections::HashSet;
use std::hash::RandomState;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use calos_commands::log::{UnitStream, WarmAggregate};

/// Events between two snapshots of a stream, at the least.
pub const SNAPSHOT_INTERVAL_EVENTS: i64 = 500;
/// Seconds between two snapshots of a small stream, at the least.
pub const SNAPSHOT_INTERVAL_MIN_SECONDS: u64 = 1;
/// Seconds between two snapshots of the largest stream, at the least: so long is a cold load's tail, in time.
pub const SNAPSHOT_INTERVAL_MAX_SECONDS: u64 = 60;
/// How much longer a stream waits for each mebibyte it weighs. Writing a mebibyte as JSON takes up to 20 ms, under the
/// partition's lock: so it takes at most a hundredth of the time.
pub const SNAPSHOT_INTERVAL_PER_MEBIBYTE_SECONDS: u64 = 2;

/// What one partition keeps in memory.
pub struct Warm {
    entries: LruCache<StreamKey, Entry, RandomState>,
    weight_bytes: usize,
    max_bytes: usize,
    /// The ticket of the latest append enqueued for this partition.
    issued: u64,
    /// Every append up to this ticket is known to be durable or to have failed: tickets are resolved in order.
    resolved: u64,
    /// Raised whenever what was decided here so far must be decided again.
    pub generation: u64,
}

/// A stream by type and id.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct StreamKey {
    /// The aggregate type.
    pub kind: String,
    /// The stream id.
    pub id: String,
}

/// Which streams somebody else has written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Changed {
    /// These.
    Streams(HashSet<StreamKey>),
    /// Too many to name: any.
    Any,
}

impl Changed {
    /// None.
    pub fn nothing() -> Self {
        Self::Streams(HashSet::new())
    }

    fn contains(&self, key: &StreamKey) -> bool {
        match self {
            Self::Streams(streams) => streams.contains(key),
            Self::Any => true,
        }
    }
}

struct Entry {
    /// Absent only while a unit works on it, under the partition's lock.
    aggregate: Option<Box<dyn WarmAggregate>>,
    sequence: i64,
    /// The latest append that carries events of this stream.
    ticket: u64,
    weight_bytes: usize,
    snapshot: SnapshotMark,
}

#[derive(Clone, Copy)]
struct SnapshotMark {
    sequence: i64,
    taken_at: Instant,
}

/// A stream taken out for one unit.
pub struct Taken {
    /// The state, as the unit works on it.
    pub stream: UnitStream,
    /// The stream's sequence before the unit.
    pub sequence: i64,
}

/// A snapshot due to be written once its events are durable.
#[derive(Debug)]
pub struct DueSnapshot {
    /// Of which stream.
    pub key: StreamKey,
    /// In which partition.
    pub partition: i32,
    /// The state after this event.
    pub sequence: i64,
    /// The schema of the payload.
    pub version: i32,
    /// The state.
    pub payload: String,
}

impl Warm {
    /// Nothing in memory yet, and never more than `max_bytes` afterwards, by the aggregates' own estimate.
    pub fn new(max_bytes: usize) -> Mutex<Self> {
        Mutex::new(Self {
            entries: LruCache::unbounded_with_hasher(RandomState::new()),
            weight_bytes: 0,
            max_bytes,
            issued: 0,
            resolved: 0,
            generation: 0,
        })
    }

    /// Locks a partition. A panic under the lock may have lost a taken aggregate, never bent one: missing is all there
    /// is to it, and missing state is loaded again.
    pub fn lock(partition: &Mutex<Self>) -> MutexGuard<'_, Self> {
        partition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the stream's state is here.
    pub fn contains(&self, kind: &str, id: &str) -> bool {
        self.entries.peek(&StreamKey::of(kind, id)).is_some_and(|entry| entry.aggregate.is_some())
    }

    /// The stream's sequence and a look at its state, when it is here.
    pub fn peek<R>(&self, kind: &str, id: &str, look: impl FnOnce(i64, &dyn WarmAggregate) -> R) -> Option<R> {
        let entry = self.entries.peek(&StreamKey::of(kind, id))?;
        entry.aggregate.as_deref().map(|aggregate| look(entry.sequence, aggregate))
    }

    /// Adds loaded state, unless somebody was faster: what is here may already be ahead of what was loaded.
    pub fn insert(&mut self, key: StreamKey, aggregate: Box<dyn WarmAggregate>, sequence: i64, snapshot_sequence: i64) {
        if self.contains(&key.kind, &key.id) {
            return;
        }
        self.remove(&key);
        let weight_bytes = weigh(&key, aggregate.as_ref());
        let snapshot = SnapshotMark { sequence: snapshot_sequence, taken_at: Instant::now() };
        self.entries.put(key, Entry { aggregate: Some(aggregate), sequence, ticket: 0, weight_bytes, snapshot });
        self.weight_bytes += weight_bytes;
        self.evict();
    }

    /// Takes a stream's state out for a unit; the lock must be held until it is given back or dropped.
    pub fn take(&mut self, kind: &str, id: &str) -> Option<Taken> {
        let entry = self.entries.get_mut(&StreamKey::of(kind, id))?;
        let aggregate = entry.aggregate.take()?;
        Some(Taken { stream: UnitStream { aggregate, decided: Vec::new() }, sequence: entry.sequence })
    }

    /// Gives a stream's state back, `events` events further; says when a snapshot of it is due.
    pub fn give_back(
        &mut self,
        kind: &str,
        id: &str,
        aggregate: Box<dyn WarmAggregate>,
        events: i64,
    ) -> Option<(i64, i32, String)> {
        let key = StreamKey::of(kind, id);
        let entry = self.entries.get_mut(&key)?;
        if events > 0 {
            entry.sequence += events;
            entry.ticket = self.issued;
        }
        let due = events > 0 && entry.snapshot.is_due(entry.sequence, entry.weight_bytes, Instant::now());
        let snapshot = if due { aggregate.snapshot_json().ok() } else { None };
        let snapshot = snapshot.map(|payload| {
            entry.snapshot = SnapshotMark { sequence: entry.sequence, taken_at: Instant::now() };
            (entry.sequence, aggregate.snapshot_version(), payload)
        });
        let weight_bytes = weigh(&key, aggregate.as_ref());
        self.weight_bytes = self.weight_bytes + weight_bytes - entry.weight_bytes;
        entry.weight_bytes = weight_bytes;
        entry.aggregate = Some(aggregate);
        self.evict();
        snapshot
    }

    /// Forgets a stream.
    pub fn remove(&mut self, key: &StreamKey) {
        if let Some(entry) = self.entries.pop(key) {
            self.weight_bytes -= entry.weight_bytes;
        }
    }

    /// The ticket of an append that is about to be enqueued.
    pub fn issue(&mut self) -> u64 {
        self.issued += 1;
        self.issued
    }

    /// Marks every append up to the ticket as durable or failed.
    pub fn resolve(&mut self, ticket: u64) {
        self.resolved = self.resolved.max(ticket);
    }

    /// Whether an append of this partition is neither durable nor failed yet.
    pub fn is_in_flight(&self) -> bool {
        self.issued > self.resolved
    }

    /// Forgets what others wrote and what is in flight, so that everything decided on either is decided again.
    pub fn invalidate(&mut self, changed: &Changed) {
        self.generation += 1;
        let resolved = self.resolved;
        let stale: Vec<StreamKey> = self
            .entries
            .iter()
            .filter(|(key, entry)| entry.ticket > resolved || changed.contains(key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in stale {
            self.remove(&key);
        }
    }

    fn evict(&mut self) {
        while self.weight_bytes > self.max_bytes && self.entries.len() > 1 {
            // An entry taken out by a unit is the most recently used one, so it is never the one to go.
            let Some((_, entry)) = self.entries.pop_lru() else { return };
            self.weight_bytes -= entry.weight_bytes;
        }
    }
}

impl StreamKey {
    /// From its two parts.
    pub fn of(kind: &str, id: &str) -> Self {
        Self { kind: kind.to_owned(), id: id.to_owned() }
    }
}

impl SnapshotMark {
    fn is_due(self, sequence: i64, weight_bytes: usize, now: Instant) -> bool {
        sequence - self.sequence >= SNAPSHOT_INTERVAL_EVENTS
            && now.saturating_duration_since(self.taken_at) >= snapshot_interval(weight_bytes)
    }
}

/// How long a stream of this weight waits between two snapshots.
fn snapshot_interval(weight_bytes: usize) -> Duration {
    const MEBIBYTE: u64 = 1 << 20;
    let weight = u64::try_from(weight_bytes).unwrap_or(u64::MAX);
    let millis = weight.saturating_mul(SNAPSHOT_INTERVAL_PER_MEBIBYTE_SECONDS * 1_000) / MEBIBYTE;
    let (least, most) = (SNAPSHOT_INTERVAL_MIN_SECONDS * 1_000, SNAPSHOT_INTERVAL_MAX_SECONDS * 1_000);
    Duration::from_millis(millis.clamp(least, most))
}

fn weigh(key: &StreamKey, aggregate: &dyn WarmAggregate) -> usize {
    std::mem::size_of::<Entry>() + key.kind.len() + key.id.len() + aggregate.weight_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heavier_stream_is_written_less_often_within_bounds() {
        let seconds = |weight_bytes| snapshot_interval(weight_bytes).as_secs_f64();
        assert_eq!([seconds(0), seconds(1 << 18), seconds(1 << 19)], [1.0, 1.0, 1.0]);
        assert_eq!([seconds(1 << 20), seconds(5 << 19), seconds(10 << 20)], [2.0, 5.0, 20.0]);
        assert_eq!([seconds(30 << 20), seconds(1 << 40), seconds(usize::MAX)], [60.0, 60.0, 60.0]);
    }

    #[test]
    fn a_snapshot_is_due_after_both_its_events_and_its_time() {
        let taken_at = Instant::now();
        let mark = SnapshotMark { sequence: 100, taken_at };
        let due = |events, seconds, weight_bytes| {
            mark.is_due(100 + events, weight_bytes, taken_at + Duration::from_secs(seconds))
        };
        assert!(due(SNAPSHOT_INTERVAL_EVENTS, 1, 1_000));
        assert!(!due(SNAPSHOT_INTERVAL_EVENTS - 1, 3_600, 1_000));
        assert!(!due(SNAPSHOT_INTERVAL_EVENTS, 0, 1_000));
        assert!(!due(1_000_000, 7, 4 << 20) && due(SNAPSHOT_INTERVAL_EVENTS, 8, 4 << 20));
        assert!(due(SNAPSHOT_INTERVAL_EVENTS, 60, 1 << 30));
    }
}
