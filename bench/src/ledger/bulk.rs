//! A history into a log in bulk: sealed as the writer seals it, and loaded by `COPY`.

use calos_adapters::postgres::Timestamptz;
use calos_adapters::postgres::partitioning::partition_of;
use calos_adapters::seal::{GENESIS_HASH, HASH_BYTES, chain};
use calos_commands::metadata::{Actor, StoredMetadata};
use calos_domain::{Record, Timestamp};
use calos_projections::{CopyError, CopySink, Value};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sqlx::{Connection, Executor};
use std::collections::HashMap;
use tokio::sync::mpsc;
use uuid::Builder;

use super::history::{Happened, Shape, live};
use crate::arena::Fresh;
use crate::error::BenchError;

/// Rows are loaded in pieces of this size.
const LOADED_BYTES: usize = 4 * 1024 * 1024;
/// Pieces that may wait to be loaded.
const WAITING_MAX_PIECES: usize = 4;

const COLUMNS: &[&str] = &[
    "partition",
    "position",
    "aggregate_type",
    "aggregate_id",
    "sequence",
    "event_type",
    "event_version",
    "payload",
    "metadata",
    "recorded_at",
    "hash",
];

/// What a log was filled with.
pub struct Filled {
    /// Events.
    pub events: u64,
    /// Of them in the burst.
    pub in_burst: u64,
}

/// Fills an empty log.
///
/// # Errors
/// The history was refused, or the database refused its rows.
pub async fn fill(fresh: &Fresh, shape: Shape) -> Result<Filled, BenchError> {
    let mut owner = fresh.connect().await?;
    // The measurement is not of this, and a log that is half filled is thrown away.
    owner.execute("SET synchronous_commit = off").await?;
    let partitions: i32 = sqlx::query_scalar("SELECT partitions FROM log").fetch_one(&mut owner).await?;
    let partitions = u16::try_from(partitions).unwrap_or(1);
    let (pieces, mut waiting) = mpsc::channel::<CopySink>(WAITING_MAX_PIECES);
    let making = tokio::task::spawn_blocking(move || make(&shape, partitions, &pieces));
    let mut loaded = Ok(());
    while let Some(mut piece) = waiting.recv().await {
        loaded = piece.finish(&mut owner, "public").await.map_err(of_copy);
        if loaded.is_err() {
            break;
        }
    }
    drop(waiting);
    let made = making.await.map_err(|error| BenchError::Check(format!("the history ended badly: {error}")))?;
    loaded?;
    let (heads, filled) = made?;
    for (partition, head) in (0..).zip(&heads) {
        sqlx::query(
            "UPDATE partitions SET last_position = $2, last_recorded_at = $3, head_hash = $4 WHERE partition = $1",
        )
        .bind::<i32>(partition)
        .bind(head.position)
        .bind(Timestamptz(head.recorded_at))
        .bind(&head.hash[..])
        .execute(&mut owner)
        .await?;
    }
    // As autovacuum leaves a log that has been at rest for a while: the visibility map and statistics are there.
    owner.execute("VACUUM ANALYZE events").await?;
    owner.close().await?;
    Ok(filled)
}

#[expect(clippy::needless_pass_by_value, reason = "it is used as `map_err(of_copy)`")]
pub(super) fn of_copy(error: CopyError) -> BenchError {
    BenchError::Check(format!("the history could not be loaded: {error}"))
}

/// Where a partition ends.
#[derive(Clone)]
struct Head {
    position: i64,
    hash: [u8; HASH_BYTES],
    recorded_at: Timestamp,
}

fn new_piece() -> CopySink {
    CopySink::new([("events", COLUMNS)])
}

fn make(shape: &Shape, partitions: u16, pieces: &mpsc::Sender<CopySink>) -> Result<(Vec<Head>, Filled), BenchError> {
    let genesis = Head { position: 0, hash: GENESIS_HASH, recorded_at: shape.begin };
    let mut heads = vec![genesis; usize::from(partitions)];
    let mut homes: HashMap<String, i32> = HashMap::new();
    let mut random = SmallRng::seed_from_u64(11);
    let mut piece = new_piece();
    let mut filled = Filled { events: 0, in_burst: 0 };
    let burst = (shape.burst(), shape.burst().plus_seconds(super::history::BURST_SECONDS));
    let gone = || BenchError::Check("the history is not loaded any more".to_owned());
    live(shape, |happened| {
        let key = happened.stream.split_once('/').map_or(happened.stream, |(key, _)| key);
        let partition = match homes.get(key) {
            Some(home) => *home,
            None => *homes.entry(key.to_owned()).or_insert_with(|| partition_of(key, partitions)),
        };
        let head = usize::try_from(partition).ok().and_then(|partition| heads.get_mut(partition));
        let head = head.ok_or_else(|| BenchError::Check(format!("there is no partition {partition}")))?;
        add(&mut piece, head, partition, happened, &metadata(&mut random)?)?;
        filled.events += 1;
        filled.in_burst += u64::from((burst.0..burst.1).contains(&happened.recorded_at));
        if piece.waiting_bytes() >= LOADED_BYTES {
            pieces.blocking_send(std::mem::replace(&mut piece, new_piece())).map_err(|_| gone())?;
        }
        Ok(())
    })?;
    pieces.blocking_send(piece).map_err(|_| gone())?;
    Ok((heads, filled))
}

/// The envelope of an event, as the gateway makes it.
fn metadata(random: &mut SmallRng) -> Result<String, BenchError> {
    let mut id = || Builder::from_random_bytes(random.random()).into_uuid();
    let (event_id, command_id, correlation_id, request) = (id(), id(), id(), id());
    Ok(serde_json::to_string(&StoredMetadata {
        event_id,
        command_id,
        correlation_id,
        causation_id: None,
        actor: Actor::System("calos-bench").to_string(),
        on_behalf_of: None,
        reason: None,
        request_id: Some(request.to_string()),
    })?)
}

fn add(
    piece: &mut CopySink,
    head: &mut Head,
    partition: i32,
    happened: &Happened<'_>,
    metadata: &str,
) -> Result<(), BenchError> {
    head.position += 1;
    head.recorded_at = happened.recorded_at;
    let record = Record {
        partition,
        position: head.position,
        aggregate_type: happened.kind,
        aggregate_id: happened.stream,
        sequence: happened.sequence,
        event_type: happened.name,
        event_version: happened.version,
        payload: happened.payload,
        metadata,
        recorded_at: happened.recorded_at,
    };
    head.hash = chain(&head.hash, &record);
    let row = [
        Value::I32(partition),
        Value::I64(head.position),
        Value::Text(record.aggregate_type),
        Value::Text(record.aggregate_id),
        Value::I64(record.sequence),
        Value::Text(record.event_type),
        Value::Text(record.event_version),
        Value::Json(record.payload),
        Value::Json(metadata),
        Value::Time(record.recorded_at),
        Value::Bytes(&head.hash),
    ];
    piece.row("events", &row).map_err(of_copy)
}
