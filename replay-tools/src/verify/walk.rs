//! One pass over one partition, every check at once.

use std::collections::HashMap;

use sqlx::PgPool;

use calos_adapters::postgres::partitioning::partition_of;
use calos_adapters::seal::{GENESIS_HASH, HASH_BYTES, chain};
use calos_domain::{Record, Timestamp};
use calos_projections::copy_out::read_slice;
use calos_projections::{Columns, CopyOutError, LogRow, LogSlice, ReadStopped};

use super::anchors::AnchoredAt;
use super::heads::StoredHead;
use super::{Check, Finding, decode, keys};
use crate::error::ToolError;
use crate::progress::Counter;

/// What a partition's pass found, and what later checks need of it.
pub(super) struct Walked {
    pub(super) contiguity: Check,
    pub(super) chain: Check,
    pub(super) anchors: Check,
    pub(super) streams: Check,
    pub(super) payloads: Check,
    /// Anchored heads that the log contains.
    pub(super) anchored: u64,
    /// Whose data is sealed, and who was erased.
    pub(super) subjects: keys::Subjects,
    pub(super) last_position: i64,
    pub(super) last_hash: Option<Vec<u8>>,
    pub(super) last_recorded_at: Option<Timestamp>,
}

impl Default for Walked {
    fn default() -> Self {
        Self {
            contiguity: Check::new("contiguity"),
            chain: Check::new("chain"),
            anchors: Check::new("anchors"),
            streams: Check::new("streams"),
            payloads: Check::new("payloads"),
            anchored: 0,
            subjects: keys::Subjects::default(),
            last_position: 0,
            last_hash: None,
            last_recorded_at: None,
        }
    }
}

impl Walked {
    /// Adds what the next partition's pass found.
    pub(super) fn take_in(&mut self, next: Self) {
        self.contiguity.take_in(next.contiguity);
        self.chain.take_in(next.chain);
        self.anchors.take_in(next.anchors);
        self.streams.take_in(next.streams);
        self.payloads.take_in(next.payloads);
        self.anchored += next.anchored;
        self.subjects.take_in(next.subjects);
    }
}

/// The pass itself: what was found, and what the next event has to fit.
struct Walk {
    found: Walked,
    partitions: u16,
    chain_only: bool,
    anchored: AnchoredAt,
    /// The hash the next event is chained to; none right after a hole.
    previous: Option<[u8; HASH_BYTES]>,
    /// The last sequence of each stream, under its type and id.
    sequences: HashMap<String, i64>,
    stream: String,
    counter: Counter,
}

/// Reads a partition up to its head and checks everything about every event.
pub(super) async fn walk(
    readers: &PgPool,
    head: &StoredHead,
    partitions: u16,
    anchored: AnchoredAt,
    chain_only: bool,
    counter: Counter,
) -> Result<Walked, ToolError> {
    let mut walk = Walk {
        found: Walked::default(),
        partitions,
        chain_only,
        anchored,
        previous: Some(GENESIS_HASH),
        sequences: HashMap::new(),
        stream: String::new(),
        counter,
    };
    let partition = head.partition;
    let mut after = 0;
    loop {
        let slice = LogSlice { partition, after, through: head.position };
        let read = read_slice(readers, slice, Columns::SEALED, |row| {
            walk.event(row);
            Ok::<(), std::convert::Infallible>(())
        });
        match read.await {
            Ok(_) => break,
            Err(ReadStopped::Log(CopyOutError::Gap { expected, found, .. })) => {
                let missing = found - expected;
                let what = if missing == 1 { "missing".to_owned() } else { format!("missing, with {missing} in all") };
                walk.found.contiguity.found(Finding::at(partition, expected, what));
                walk.previous = None;
                after = found - 1;
            }
            Err(ReadStopped::Log(CopyOutError::EndsEarly { last, through, .. })) => {
                let what = format!("missing: the log ends at {last}, its head says {through}");
                walk.found.contiguity.found(Finding::at(partition, last + 1, what));
                break;
            }
            Err(ReadStopped::Log(CopyOutError::Field { after: last, column, .. })) => {
                let what = format!("the column {column} cannot be read; nothing after it was");
                walk.found.contiguity.found(Finding::at(partition, last + 1, what));
                break;
            }
            Err(ReadStopped::Log(error)) => return Err(error.into()),
            Err(ReadStopped::Reader(never)) => match never {},
        }
    }
    Ok(walk.end(head))
}

impl Walk {
    fn event(&mut self, row: &LogRow<'_>) {
        self.counter.event();
        let record = &row.record;
        self.seal(record, row.hash);
        self.anchor(record, row.hash);
        if !self.chain_only {
            self.sequence(record);
            if let Err(what) = decode::check(record) {
                self.found.payloads.found(Finding::at(record.partition, record.position, what));
            }
            keys::collect(record, &mut self.found.subjects);
        }
        self.found.last_position = record.position;
        self.found.last_recorded_at = Some(record.recorded_at);
        let last = self.found.last_hash.get_or_insert_with(Vec::new);
        last.clear();
        last.extend_from_slice(row.hash);
    }

    /// Each event is checked against the hash that is stored before it, so that one changed event is one finding and
    /// not everything after it.
    fn seal(&mut self, record: &Record<'_>, hash: &[u8]) {
        let (partition, position) = (record.partition, record.position);
        match &self.previous {
            Some(previous) if chain(previous, record) != hash => {
                let what = "the event is not the one that was sealed: its hash does not follow from its content";
                self.found.chain.found(Finding::at(partition, position, what));
            }
            Some(_) => {}
            None => {
                let what = "the event before it is missing, so its hash cannot be recomputed";
                self.found.chain.found(Finding::at(partition, position, what));
            }
        }
        if self.found.last_recorded_at.is_some_and(|before| before > record.recorded_at) {
            self.found.chain.found(Finding::at(partition, position, "recorded before the event it follows"));
        }
        self.previous = hash.try_into().ok();
    }

    fn anchor(&mut self, record: &Record<'_>, hash: &[u8]) {
        let Some(first) = self.anchored.first_entry() else { return };
        if *first.key() != record.position {
            return;
        }
        let (expected, _) = first.remove();
        if expected.eq_ignore_ascii_case(&hex(hash)) {
            self.found.anchored += 1;
        } else {
            let what = format!("anchored with the hash {expected}, but the log has {}", hex(hash));
            self.found.anchors.found(Finding::at(record.partition, record.position, what));
        }
    }

    fn sequence(&mut self, record: &Record<'_>) {
        let (partition, position) = (record.partition, record.position);
        let home = partition_of(record.aggregate_id, self.partitions);
        if home != partition {
            let what = format!("the stream {} belongs to partition {home}", record.aggregate_id);
            self.found.streams.found(Finding::at(partition, position, what));
        }
        self.stream.clear();
        self.stream.push_str(record.aggregate_type);
        self.stream.push('\0');
        self.stream.push_str(record.aggregate_id);
        let expected = match self.sequences.get_mut(&self.stream) {
            Some(last) => {
                let expected = *last + 1;
                *last = record.sequence;
                expected
            }
            None => {
                self.sequences.insert(self.stream.clone(), record.sequence);
                1
            }
        };
        if record.sequence != expected {
            let (kind, id, found) = (record.aggregate_type, record.aggregate_id, record.sequence);
            let what = format!("{kind}/{id} goes on with sequence {found} instead of {expected}");
            self.found.streams.found(Finding::at(partition, position, what));
        }
    }

    /// An anchored position that was not met is beyond the end or in a hole.
    fn end(mut self, head: &StoredHead) -> Walked {
        for (position, (hash, at)) in &self.anchored {
            let last = self.found.last_position;
            let micros = at.micros();
            let when = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000)
                .map_or_else(|_| micros.to_string(), |at| at.to_string());
            let what = if *position > last {
                format!("anchored at {when} with the hash {hash}, but the log ends at {last}: its tail was cut")
            } else {
                format!("anchored at {when} with the hash {hash}, but the log has no such event")
            };
            self.found.anchors.found(Finding::at(head.partition, *position, what));
        }
        self.found
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
