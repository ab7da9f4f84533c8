//! Snapshots: written behind the log, read by cold loads, and never needed for an answer to be right.

use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::pulse::Pulse;
use super::warm::DueSnapshot;

/// Snapshots waiting to be written, at the most; more are dropped, and the next ones come by themselves.
const QUEUE_MAX_SNAPSHOTS: usize = 256;

/// Where the writer leaves snapshots whose events are durable.
#[derive(Clone)]
pub struct SnapshotQueue(mpsc::Sender<DueSnapshot>);

impl SnapshotQueue {
    /// Starts the task that writes them; it ends when every queue is dropped.
    pub fn start(pool: PgPool, pulse: Pulse) -> (Self, JoinHandle<()>) {
        let (sender, mut receiver) = mpsc::channel::<DueSnapshot>(QUEUE_MAX_SNAPSHOTS);
        let task = tokio::spawn(async move {
            while let Some(snapshot) = receiver.recv().await {
                let stored = pulse.unless_lost(store(&pool, &snapshot)).await;
                if let Err(error) = stored.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                    tracing::debug!(%error, kind = snapshot.key.kind, "a snapshot was not written");
                }
            }
        });
        (Self(sender), task)
    }

    /// Takes snapshots without ever waiting.
    pub fn offer(&self, snapshots: Vec<DueSnapshot>) {
        for snapshot in snapshots {
            // Full or closing: the stream is only loaded a little slower.
            drop(self.0.try_send(snapshot));
        }
    }
}

async fn store(pool: &PgPool, snapshot: &DueSnapshot) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO snapshots (aggregate_type, aggregate_id, partition, last_sequence, snapshot_version, payload)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (aggregate_type, aggregate_id, partition) DO UPDATE
         SET last_sequence = excluded.last_sequence, snapshot_version = excluded.snapshot_version, payload = excluded.payload
         WHERE snapshots.last_sequence < excluded.last_sequence OR snapshots.snapshot_version <> excluded.snapshot_version",
    )
    .bind(&snapshot.key.kind)
    .bind(&snapshot.key.id)
    .bind(snapshot.partition)
    .bind(snapshot.sequence)
    .bind(snapshot.version)
    .bind(&snapshot.payload)
    .execute(pool)
    .await
    .map(drop)
}

/// The stored snapshot of a stream, when it has this schema version: the sequence it stands at and the state as JSON.
///
/// # Errors
/// The database's.
pub async fn load(pool: &PgPool, kind: &str, id: &str, version: i32) -> Result<Option<(i64, String)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT last_sequence, payload FROM snapshots
         WHERE aggregate_type = $1 AND aggregate_id = $2 AND snapshot_version = $3",
    )
    .bind(kind)
    .bind(id)
    .bind(version)
    .fetch_optional(pool)
    .await
}
