//! One batch as one statement: the heads move and the events are inserted together, or neither.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use tokio::sync::oneshot;
use uuid::Uuid;

use calos_commands::log::{IdempotencyClaim, LogError, NewEvent, Positions};
use calos_domain::{Record, Timestamp};

use super::column::{Bytes, Jsons, Texts};
use super::observed::Followed;
use super::timestamp::Timestamptz;
use super::warm::{DueSnapshot, StreamKey};
use crate::seal::{HASH_BYTES, chain};

/// The events one command adds to one stream.
#[derive(Debug)]
pub struct StreamEvents {
    /// Which stream.
    pub key: StreamKey,
    /// In which partition.
    pub partition: i32,
    /// The sequence of the first event.
    pub first_sequence: i64,
    /// The events, in order.
    pub events: Vec<NewEvent>,
}

/// What a partition looked like to a decision.
#[derive(Clone, Copy, Debug)]
pub struct Basis {
    /// The partition.
    pub partition: i32,
    /// Its generation when it was decided on.
    pub generation: u64,
    /// The append's place in the partition's order.
    pub ticket: u64,
}

/// One decided command on its way to the database. Without events and claim it is a barrier: it is answered once
/// everything before it is durable and the heads are known to be where the decision believed them.
pub struct Append {
    /// The partitions it was decided on, written or only read, ascending.
    pub basis: Vec<Basis>,
    /// What it adds.
    pub streams: Vec<StreamEvents>,
    /// The metadata object of its events, without the opening brace and the event id.
    pub metadata_rest: String,
    /// The claim of the caller's key.
    pub claim: Option<IdempotencyClaim>,
    /// The partition that keeps the claim.
    pub claim_partition: i32,
    /// Snapshots to write once it is durable.
    pub snapshots: Vec<DueSnapshot>,
    /// The command, when somebody follows it.
    pub followed: Option<Box<Followed>>,
    /// Where the answer goes.
    pub reply: Option<oneshot::Sender<Outcome>>,
}

/// The primary key of a claim.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ClaimKey {
    /// The partition that keeps it.
    pub partition: i32,
    /// Who claims.
    pub caller: String,
    /// The caller's key.
    pub key: String,
}

/// What became of an append.
#[derive(Debug)]
pub enum Outcome {
    /// It is durable, at these positions.
    Durable(Positions),
    /// Others were faster: decide again.
    Stale,
    /// It is known not to have happened, or [`LogError::Unresolved`].
    Failed(LogError),
}

impl Append {
    /// Answers whoever waits. A caller that has gone away is no concern of the log's.
    pub fn answer(mut self, outcome: Outcome) {
        self.answer_now(outcome);
    }

    /// Answers whoever waits while the append itself is still to be resolved.
    pub fn answer_now(&mut self, outcome: Outcome) {
        if let Some(reply) = self.reply.take() {
            drop(reply.send(outcome));
        }
    }

    /// The row its claim would take.
    pub fn claim_key(&self) -> Option<ClaimKey> {
        let claim = self.claim.as_ref()?;
        Some(ClaimKey { partition: self.claim_partition, caller: claim.caller.clone(), key: claim.key.clone() })
    }
}

/// A partition's head as this process knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// The last position.
    pub position: i64,
    /// The last event's time.
    pub recorded_at: Timestamp,
    /// The last event's hash.
    pub hash: [u8; HASH_BYTES],
}

/// A head before and after a batch.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// What it must still be.
    pub from: Head,
    /// What it becomes; the same where a partition is only fenced.
    pub to: Head,
}

/// A numbered and sealed batch, column by column as the statement takes it.
#[derive(Default)]
pub struct Batch {
    /// The heads it stands on.
    base: Vec<Head>,
    bytes: usize,
    /// Every partition it fences or moves, ascending.
    pub moves: BTreeMap<i32, Move>,
    /// Where each append landed, in the order of the appends.
    pub positions: Vec<Positions>,
    rows: Rows,
    claims: Claims,
    /// The metadata object that is being put together.
    metadata: String,
}

#[derive(Default)]
struct Rows {
    partition: Vec<i32>,
    position: Vec<i64>,
    aggregate_type: Texts,
    aggregate_id: Texts,
    sequence: Vec<i64>,
    event_type: Texts,
    event_version: Texts,
    payload: Jsons,
    metadata: Jsons,
    recorded_at: Vec<Timestamptz>,
    hash: Bytes,
}

#[derive(Default)]
struct Claims {
    partition: Vec<i32>,
    caller: Vec<String>,
    key: Vec<String>,
    request_hash: Vec<Vec<u8>>,
    positions: Vec<String>,
    sealed_answer: Vec<Vec<u8>>,
}

impl Batch {
    /// An empty batch on top of these heads, one for each partition.
    pub fn on(heads: Vec<Head>) -> Self {
        Self { base: heads, ..Self::default() }
    }

    /// An empty batch on top of this one, with room for as much.
    pub fn next(&self) -> Self {
        Self { base: self.heads_after(), rows: Rows::like(&self.rows), ..Self::default() }
    }

    /// Numbers and seals one more append.
    pub fn push(&mut self, append: &Append, now: Timestamp) {
        for basis in &append.basis {
            self.fence(basis.partition);
        }
        let mut positions = Positions::default();
        for stream in &append.streams {
            let position = self.add(stream, &append.metadata_rest, now);
            positions.0.insert(stream.partition, position);
        }
        if let Some(claim) = &append.claim {
            self.fence(append.claim_partition);
            self.claims.add(append.claim_partition, claim, &positions);
            self.bytes += claim.sealed_answer.len();
        }
        self.positions.push(positions);
    }

    /// The heads once it is written.
    pub fn heads_after(&self) -> Vec<Head> {
        let mut heads = self.base.clone();
        for (partition, moved) in &self.moves {
            heads[usize::try_from(*partition).unwrap_or_default()] = moved.to;
        }
        heads
    }

    /// Roughly what it carries, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing would be written.
    pub fn is_empty(&self) -> bool {
        self.rows.partition.is_empty() && self.claims.partition.is_empty()
    }

    /// A partition it adds events to, and how its head moves; none when it only claims keys and fences.
    pub fn moved(&self) -> Option<(i32, Move)> {
        self.moves.iter().find(|(_, head)| head.from != head.to).map(|(partition, head)| (*partition, *head))
    }

    /// How many events it holds.
    pub fn events(&self) -> usize {
        self.rows.partition.len()
    }

    fn fence(&mut self, partition: i32) -> &mut Move {
        let head = self.base[usize::try_from(partition).unwrap_or_default()];
        self.moves.entry(partition).or_insert(Move { from: head, to: head })
    }

    fn add(&mut self, stream: &StreamEvents, metadata_rest: &str, now: Timestamp) -> i64 {
        let mut to = self.fence(stream.partition).to;
        // Held back by the head's clock, so that time never goes backwards within a partition.
        to.recorded_at = now.max(to.recorded_at);
        for (sequence, event) in (stream.first_sequence..).zip(&stream.events) {
            envelope(&mut self.metadata, event.event_id, metadata_rest);
            self.bytes += event.payload.len() + self.metadata.len();
            to.position += 1;
            to.hash = chain(
                &to.hash,
                &Record {
                    partition: stream.partition,
                    position: to.position,
                    aggregate_type: &stream.key.kind,
                    aggregate_id: &stream.key.id,
                    sequence,
                    event_type: event.event_type,
                    event_version: event.event_version,
                    payload: &event.payload,
                    metadata: &self.metadata,
                    recorded_at: to.recorded_at,
                },
            );
            self.rows.add(stream, sequence, event, &self.metadata, &to);
        }
        if let Some(moved) = self.moves.get_mut(&stream.partition) {
            moved.to = to;
        }
        to.position
    }

    /// Writes the batch in one statement, which is one transaction. A `deferred` one is answered once it is committed, and
    /// may not be on the disk then: see [`super::confirm`].
    ///
    /// # Errors
    /// The database's. A head that is not where it was expected shows as a null in `events.partition`: the statement
    /// fails, and with it every head that did move.
    pub async fn write(&self, connection: &mut PgConnection, deferred: bool) -> Result<(), sqlx::Error> {
        let statement = if self.claims.partition.is_empty() { APPEND } else { APPEND_WITH_CLAIMS };
        let moves = Moves::of(&self.moves);
        let mut query = sqlx::query(statement)
            .bind(moves.partition)
            .bind(moves.from_position)
            .bind(moves.from_hash)
            .bind(moves.from_recorded_at)
            .bind(moves.to_position)
            .bind(moves.to_hash)
            .bind(moves.to_recorded_at)
            .bind(&self.rows.partition)
            .bind(&self.rows.position)
            .bind(&self.rows.aggregate_type)
            .bind(&self.rows.aggregate_id)
            .bind(&self.rows.sequence)
            .bind(&self.rows.event_type)
            .bind(&self.rows.event_version)
            .bind(&self.rows.payload)
            .bind(&self.rows.metadata)
            .bind(&self.rows.recorded_at)
            .bind(&self.rows.hash)
            .bind(deferred);
        if !self.claims.partition.is_empty() {
            query = query
                .bind(&self.claims.partition)
                .bind(&self.claims.caller)
                .bind(&self.claims.key)
                .bind(&self.claims.request_hash)
                .bind(&self.claims.positions)
                .bind(&self.claims.sealed_answer);
        }
        query.execute(connection).await.map(drop)
    }
}

fn envelope(metadata: &mut String, event_id: Uuid, rest: &str) {
    let mut buffer = Uuid::encode_buffer();
    metadata.clear();
    metadata.push_str("{\"event_id\":\"");
    metadata.push_str(event_id.hyphenated().encode_lower(&mut buffer));
    metadata.push_str("\",");
    metadata.push_str(rest);
}

impl Rows {
    /// None, with room for as many.
    fn like(other: &Self) -> Self {
        let count = other.partition.len();
        Self {
            partition: Vec::with_capacity(count),
            position: Vec::with_capacity(count),
            aggregate_type: Texts::like(&other.aggregate_type),
            aggregate_id: Texts::like(&other.aggregate_id),
            sequence: Vec::with_capacity(count),
            event_type: Texts::like(&other.event_type),
            event_version: Texts::like(&other.event_version),
            payload: Jsons::like(&other.payload),
            metadata: Jsons::like(&other.metadata),
            recorded_at: Vec::with_capacity(count),
            hash: Bytes::like(&other.hash),
        }
    }

    fn add(&mut self, stream: &StreamEvents, sequence: i64, event: &NewEvent, metadata: &str, head: &Head) {
        self.partition.push(stream.partition);
        self.position.push(head.position);
        self.aggregate_type.push(stream.key.kind.as_bytes());
        self.aggregate_id.push(stream.key.id.as_bytes());
        self.sequence.push(sequence);
        self.event_type.push(event.event_type.as_bytes());
        self.event_version.push(event.event_version.as_bytes());
        self.payload.push(event.payload.as_bytes());
        self.metadata.push(metadata.as_bytes());
        self.recorded_at.push(Timestamptz(head.recorded_at));
        self.hash.push(&head.hash);
    }
}

impl Claims {
    fn add(&mut self, partition: i32, claim: &IdempotencyClaim, positions: &Positions) {
        self.partition.push(partition);
        self.caller.push(claim.caller.clone());
        self.key.push(claim.key.clone());
        self.request_hash.push(claim.request_hash.to_vec());
        self.positions.push(positions.to_string());
        self.sealed_answer.push(claim.sealed_answer.clone());
    }
}

struct Moves {
    partition: Vec<i32>,
    from_position: Vec<i64>,
    from_hash: Vec<Vec<u8>>,
    from_recorded_at: Vec<Timestamptz>,
    to_position: Vec<i64>,
    to_hash: Vec<Vec<u8>>,
    to_recorded_at: Vec<Timestamptz>,
}

impl Moves {
    fn of(moves: &BTreeMap<i32, Move>) -> Self {
        Self {
            partition: moves.keys().copied().collect(),
            from_position: moves.values().map(|head| head.from.position).collect(),
            from_hash: moves.values().map(|head| head.from.hash.to_vec()).collect(),
            from_recorded_at: moves.values().map(|head| Timestamptz(head.from.recorded_at)).collect(),
            to_position: moves.values().map(|head| head.to.position).collect(),
            to_hash: moves.values().map(|head| head.to.hash.to_vec()).collect(),
            to_recorded_at: moves.values().map(|head| Timestamptz(head.to.recorded_at)).collect(),
        }
    }
}

// The moves are sent in ascending order of their partitions, and heads are locked as they are moved, in that order, because
// the writer's session joins by nested loops only: two processes that touch the same partitions queue up instead of
// deadlocking. A head is looked for by the position it has to stand at, so that it is found at once however many versions of
// it an old snapshot keeps; whoever had to wait for another process looks at the version that one left, and no longer finds
// it there. `CASE` leaves a null where a head was not as expected, and the column refuses it: one round trip, no procedure,
// and no way to insert behind a head that did not move. Whether the commit waits for the disk is decided batch by batch, by
// a setting that ends with the transaction. The events are unnested in the list of what is selected, in step: in FROM each
// column would be written into a table of its own and read back from it.
macro_rules! append_statement {
    ($claims:literal) => {
        concat!(
            "WITH moved AS (
    UPDATE partitions AS head
    SET last_position = n.to_position, head_hash = n.to_hash, last_recorded_at = n.to_recorded_at
    FROM unnest($1::int[], $2::bigint[], $3::bytea[], $4::timestamptz[], $5::bigint[], $6::bytea[], $7::timestamptz[])
        AS n (partition, from_position, from_hash, from_recorded_at, to_position, to_hash, to_recorded_at)
    WHERE head.partition = n.partition AND head.last_position = n.from_position AND head.head_hash = n.from_hash
        AND head.last_recorded_at = n.from_recorded_at
    RETURNING head.partition
), fence AS (
    SELECT count(*) = cardinality($1)
        AND CASE WHEN $19 THEN set_config('synchronous_commit', 'off', true) IS NOT NULL ELSE true END AS holds
    FROM moved
)",
            $claims,
            "
INSERT INTO events (partition, position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
    recorded_at, hash)
SELECT CASE WHEN fence.holds THEN e.partition END, e.position, e.aggregate_type, e.aggregate_id, e.sequence, e.event_type,
    e.event_version, e.payload, e.metadata, e.recorded_at, e.hash
FROM fence, (
    SELECT unnest($8::int[]) AS partition, unnest($9::bigint[]) AS position, unnest($10::text[]) AS aggregate_type,
        unnest($11::text[]) AS aggregate_id, unnest($12::bigint[]) AS sequence, unnest($13::text[]) AS event_type,
        unnest($14::text[]) AS event_version, unnest($15::json[]) AS payload, unnest($16::json[]) AS metadata,
        unnest($17::timestamptz[]) AS recorded_at, unnest($18::bytea[]) AS hash
) AS e"
        )
    };
}

const APPEND: &str = append_statement!("");
const APPEND_WITH_CLAIMS: &str = append_statement!(
    ", claimed AS (
    INSERT INTO idempotency (partition, caller, key, request_hash, positions, sealed_answer)
    SELECT CASE WHEN fence.holds THEN c.partition END, c.caller, c.key, c.request_hash, c.positions, c.sealed_answer
    FROM fence, unnest($20::int[], $21::text[], $22::text[], $23::bytea[], $24::text[], $25::bytea[])
        AS c (partition, caller, key, request_hash, positions, sealed_answer)
)"
);
