//! Looking at the heads: where they are, what others wrote, and what became of a batch whose answer was lost.

use std::collections::HashSet;

use sqlx::PgConnection;

use super::append::{Batch, ClaimKey, Head};
use super::timestamp::Timestamptz;
use super::warm::{Changed, StreamKey};
use crate::seal::HASH_BYTES;

/// More changed streams than this are not named one by one.
const CHANGED_MAX_STREAMS: i64 = 10_000;

/// What became of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// It is in the log, whole.
    Committed,
    /// None of it is.
    Absent,
}

/// Every partition's head, in the order of the partitions.
///
/// # Errors
/// The database's, or a decoding error when the rows are not a log's.
pub async fn read(connection: &mut PgConnection) -> Result<Vec<Head>, sqlx::Error> {
    let rows: Vec<(i32, i64, Timestamptz, Vec<u8>)> =
        sqlx::query_as("SELECT partition, last_position, last_recorded_at, head_hash FROM heads ORDER BY partition")
            .fetch_all(connection)
            .await?;
    let mut heads = Vec::with_capacity(rows.len());
    for (index, (partition, position, recorded_at, hash)) in rows.into_iter().enumerate() {
        if usize::try_from(partition) != Ok(index) {
            return Err(sqlx::Error::Decode(format!("partition {index} has no head row").into()));
        }
        heads.push(Head { position, recorded_at: recorded_at.0, hash: hash_of(&hash)? });
    }
    Ok(heads)
}

/// The streams that others wrote since a head was known.
///
/// A log that no longer contains that head was put back behind our back, by a failover to a copy that lagged or by a
/// restore: then nothing in memory can be trusted.
///
/// # Errors
/// The database's.
pub async fn changed_since(
    connection: &mut PgConnection,
    partition: i32,
    known: &Head,
) -> Result<Changed, sqlx::Error> {
    let stored: Option<(Vec<u8>,)> = sqlx::query_as("SELECT hash FROM events WHERE partition = $1 AND position = $2")
        .bind(partition)
        .bind(known.position)
        .fetch_optional(&mut *connection)
        .await?;
    if known.position > 0 && stored.is_none_or(|(hash,)| hash != known.hash) {
        tracing::error!(partition, position = known.position, "the log no longer holds an event that was acknowledged");
        return Ok(Changed::Any);
    }
    changed_streams(connection, partition, known.position).await
}

async fn changed_streams(connection: &mut PgConnection, partition: i32, after: i64) -> Result<Changed, sqlx::Error> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT DISTINCT aggregate_type, aggregate_id FROM events WHERE partition = $1 AND position > $2 LIMIT $3",
    )
    .bind(partition)
    .bind(after)
    .bind(CHANGED_MAX_STREAMS + 1)
    .fetch_all(connection)
    .await?;
    if i64::try_from(rows.len()).unwrap_or(i64::MAX) > CHANGED_MAX_STREAMS {
        return Ok(Changed::Any);
    }
    let streams: HashSet<StreamKey> = rows.into_iter().map(|(kind, id)| StreamKey { kind, id }).collect();
    Ok(Changed::Streams(streams))
}

/// What became of a batch: one look at one partition tells, since it went in whole or not at all.
///
/// Every head row the statement would lock is locked first: the lost connection's transaction may still be at work on
/// them. It may also not have begun; so where the batch is absent a head's clock is moved by a microsecond, and whatever
/// still expects the head as it was cannot succeed any more.
///
/// # Errors
/// The database's.
pub async fn resolve(connection: &mut PgConnection, batch: &Batch) -> Result<Resolution, sqlx::Error> {
    let Some((partition, head)) = batch.moved() else {
        // Claims alone: repeating them is answered by their own key.
        return Ok(Resolution::Absent);
    };
    let mut transaction = sqlx::Connection::begin(connection).await?;
    let fenced: Vec<i32> = batch.moves.keys().copied().collect();
    sqlx::query("SELECT FROM partitions WHERE partition = ANY($1) ORDER BY partition FOR UPDATE")
        .bind(fenced)
        .execute(&mut *transaction)
        .await?;
    let stored: Option<(Vec<u8>,)> = sqlx::query_as("SELECT hash FROM events WHERE partition = $1 AND position = $2")
        .bind(partition)
        .bind(head.to.position)
        .fetch_optional(&mut *transaction)
        .await?;
    if stored.is_some_and(|(hash,)| hash == head.to.hash) {
        // Committed is not yet on the disk. What this changes is nothing, but its commit waits until all before it is.
        sqlx::query("UPDATE partitions SET last_recorded_at = last_recorded_at WHERE partition = $1")
            .bind(partition)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        return Ok(Resolution::Committed);
    }
    sqlx::query(
        "UPDATE partitions SET last_recorded_at = last_recorded_at + interval '1 microsecond' WHERE partition = $1",
    )
    .bind(partition)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Resolution::Absent)
}

/// Which of these claims are stored.
///
/// # Errors
/// The database's.
pub async fn taken_claims(
    connection: &mut PgConnection,
    claims: &[ClaimKey],
) -> Result<HashSet<ClaimKey>, sqlx::Error> {
    let partitions: Vec<i32> = claims.iter().map(|claim| claim.partition).collect();
    let callers: Vec<&str> = claims.iter().map(|claim| claim.caller.as_str()).collect();
    let keys: Vec<&str> = claims.iter().map(|claim| claim.key.as_str()).collect();
    let rows: Vec<(i32, String, String)> = sqlx::query_as(
        "SELECT i.partition, i.caller, i.key FROM idempotency AS i
         JOIN unnest($1::int[], $2::text[], $3::text[]) AS c (partition, caller, key) USING (partition, caller, key)",
    )
    .bind(partitions)
    .bind(callers)
    .bind(keys)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(partition, caller, key)| ClaimKey { partition, caller, key }).collect())
}

/// A stored hash as an array.
///
/// # Errors
/// A decoding error when it has another length.
pub fn hash_of(bytes: &[u8]) -> Result<[u8; HASH_BYTES], sqlx::Error> {
    bytes.try_into().map_err(|_| sqlx::Error::Decode(format!("a hash has {} bytes", bytes.len()).into()))
}
