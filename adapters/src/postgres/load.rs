//! Cold loads: a stream's state from its snapshot and tail, or from its first event on.

use cqrs_es::Aggregate;
use cqrs_es::persist::{PersistedEventRepository, PersistenceError};
use postgres_es::PostgresEventRepository;
use sqlx::PgPool;

use calos_commands::log::LogError;
use calos_commands::sourced::{Recorded, Sourced};
use calos_domain::Decider;
use calos_domain::upcast::{self, Label};

use super::snapshots;

/// A stream's state and the sequence of its last event; 0 and the empty state where nothing happened yet.
pub struct Loaded<D: Decider> {
    /// The state.
    pub aggregate: Sourced<D>,
    /// The last event's sequence.
    pub sequence: i64,
    /// The sequence of the snapshot it was loaded from; 0 without one.
    pub snapshot_sequence: i64,
}

/// Loads a stream.
///
/// # Errors
/// [`LogError::Unavailable`] or [`LogError::Corrupt`].
pub async fn load<D: Decider>(pool: &PgPool, id: &str) -> Result<Loaded<D>, LogError> {
    let snapshot = snapshots::load(pool, D::KIND, id, D::SNAPSHOT_VERSION).await.map_err(unavailable)?;
    match snapshot {
        Some((sequence, payload)) => match serde_json::from_str::<D>(&payload) {
            Ok(state) => tail(pool, id, state, sequence).await,
            Err(error) => {
                tracing::warn!(%error, kind = D::KIND, id, "a snapshot cannot be read; loading the whole stream");
                whole(pool, id).await
            }
        },
        None => whole(pool, id).await,
    }
}

/// The whole stream, through the repository of `postgres-es`.
async fn whole<D: Decider>(pool: &PgPool, id: &str) -> Result<Loaded<D>, LogError> {
    let repository = PostgresEventRepository::new(pool.clone());
    let events = repository.get_events::<Sourced<D>>(id).await.map_err(|error| match error {
        PersistenceError::DeserializationError(error) => LogError::Corrupt(error.to_string()),
        PersistenceError::OptimisticLockError
        | PersistenceError::ConnectionError(_)
        | PersistenceError::UnknownError(_) => LogError::Unavailable(error.to_string()),
    })?;
    let mut loaded = Loaded { aggregate: Sourced::<D>::default(), sequence: 0, snapshot_sequence: 0 };
    for event in events {
        let sequence = i64::try_from(event.sequence).unwrap_or(i64::MAX);
        follow::<D>(&mut loaded, sequence, &event.event_type, &event.event_version, event.payload)?;
    }
    Ok(loaded)
}

/// The events after a snapshot. Our own query: the repository's writes the sequence into the SQL text, which fills the
/// statement cache with one entry per sequence.
async fn tail<D: Decider>(pool: &PgPool, id: &str, state: D, sequence: i64) -> Result<Loaded<D>, LogError> {
    let rows: Vec<(i64, String, String, serde_json::Value)> = sqlx::query_as(
        "SELECT sequence, event_type, event_version, payload FROM events
         WHERE aggregate_type = $1 AND aggregate_id = $2 AND sequence > $3 ORDER BY sequence",
    )
    .bind(D::KIND)
    .bind(id)
    .bind(sequence)
    .fetch_all(pool)
    .await
    .map_err(unavailable)?;
    let mut loaded = Loaded { aggregate: Sourced(state), sequence, snapshot_sequence: sequence };
    for (sequence, event_type, event_version, payload) in rows {
        follow::<D>(&mut loaded, sequence, &event_type, &event_version, payload)?;
    }
    Ok(loaded)
}

fn follow<D: Decider>(
    loaded: &mut Loaded<D>,
    sequence: i64,
    event_type: &str,
    event_version: &str,
    payload: serde_json::Value,
) -> Result<(), LogError> {
    if sequence != loaded.sequence + 1 {
        let message = format!("a {} stream goes from sequence {} to {sequence}", D::KIND, loaded.sequence);
        return Err(LogError::Corrupt(message));
    }
    let label = Label { aggregate_type: D::KIND, event_type, event_version };
    let event: D::Event = upcast::decode_value(label, payload)
        .map_err(|error| LogError::Corrupt(format!("{} at sequence {sequence}: {error}", D::KIND)))?;
    loaded.aggregate.apply(Recorded(event));
    loaded.sequence = sequence;
    Ok(())
}

/// A database error as the port says it.
#[expect(clippy::needless_pass_by_value, reason = "shaped for map_err")]
pub fn unavailable(error: sqlx::Error) -> LogError {
    LogError::Unavailable(error.to_string())
}
