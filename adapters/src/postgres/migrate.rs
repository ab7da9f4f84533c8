//! Brings a database to the schema this program knows, and makes the log's partitions once.

use std::time::Duration;

use sqlx::migrate::{MigrateError as SqlxMigrateError, Migrator};
use sqlx::{Connection as _, PgConnection};

use super::connect::connect_one;
use crate::config::{DEFAULT_PARTITIONS, PARTITIONS_MAX};
use crate::seal::GENESIS_HASH;

/// The migrations of this program, in order.
pub static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// How long one process waits while another migrates, in seconds.
pub const MIGRATION_LOCK_TIMEOUT_SECONDS: u64 = 120;

/// The advisory lock of whoever migrates: the letters CALOS.
const MIGRATION_LOCK: i64 = 0x43_41_4C_4F_53;

/// Why a database could not be brought to the schema of this program.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database did not answer, or refused.
    #[error("migrating: {0}")]
    Database(#[from] sqlx::Error),
    /// A migration failed, or the database was migrated by a newer program.
    #[error("migrating: {0}")]
    Migration(#[from] SqlxMigrateError),
    /// Another process has been migrating for too long.
    #[error("another process has been migrating for {MIGRATION_LOCK_TIMEOUT_SECONDS} s; start again once it is done")]
    Locked,
    /// The number asked for is not one a log can have.
    #[error("a log has 1 to {PARTITIONS_MAX} partitions, not {asked}: correct CALOS_PARTITIONS")]
    OutOfBounds {
        /// The number asked for.
        asked: u16,
    },
    /// The log was made with another number of partitions, and that number never changes.
    #[error(
        "this log has {existing} partitions and CALOS_PARTITIONS asks for {asked}: the number is chosen when a log is made \
         and never changes; unset CALOS_PARTITIONS or set it to {existing}"
    )]
    OtherPartitions {
        /// What the log has.
        existing: i32,
        /// What was asked for.
        asked: u16,
    },
}

/// Applies the migrations that are missing and, on a new log, makes its partitions: `partitions` of them, or 16 when `None`.
/// One process at a time does so; the others wait. An existing log keeps its number and is refused when another is asked for.
/// Returns the log's number of partitions.
pub async fn migrate(url: &str, partitions: Option<u16>) -> Result<i32, MigrateError> {
    if let Some(asked) = partitions
        && !(1..=PARTITIONS_MAX).contains(&asked)
    {
        return Err(MigrateError::OutOfBounds { asked });
    }
    let mut connection = connect_one(url).await?;
    let waiting = sqlx::query("SELECT pg_advisory_lock($1)").bind(MIGRATION_LOCK).execute(&mut connection);
    match tokio::time::timeout(Duration::from_secs(MIGRATION_LOCK_TIMEOUT_SECONDS), waiting).await {
        Ok(locked) => locked?,
        Err(_) => return Err(MigrateError::Locked),
    };
    let outcome = match MIGRATOR.run_direct(&mut connection).await {
        Ok(()) => seed(&mut connection, partitions).await,
        Err(error) => Err(error.into()),
    };
    // Closing the connection gives the lock back; a connection that cannot be closed properly has lost it already.
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "the migrating connection did not close cleanly");
    }
    outcome
}

/// A fingerprint of all migrations: two programs with the same one make the same schema.
pub fn fingerprint() -> String {
    use sha2::{Digest as _, Sha256};
    let mut hash = Sha256::new();
    for migration in MIGRATOR.iter() {
        hash.update(migration.version.to_be_bytes());
        hash.update(&*migration.checksum);
    }
    hex::encode(&hash.finalize()[..8])
}

async fn seed(connection: &mut PgConnection, asked: Option<u16>) -> Result<i32, MigrateError> {
    let existing: Option<i32> =
        sqlx::query_scalar("SELECT partitions FROM log").fetch_optional(&mut *connection).await?;
    if let Some(existing) = existing {
        return match asked {
            Some(asked) if i32::from(asked) != existing => Err(MigrateError::OtherPartitions { existing, asked }),
            Some(_) | None => Ok(existing),
        };
    }
    let partitions = i32::from(asked.unwrap_or(DEFAULT_PARTITIONS));
    let mut transaction = connection.begin().await?;
    sqlx::query("INSERT INTO log (partitions) VALUES ($1)").bind(partitions).execute(&mut *transaction).await?;
    sqlx::query(
        "INSERT INTO partitions (partition, last_position, last_recorded_at, head_hash)
         SELECT partition, 0, 'epoch', $2 FROM generate_series(0, $1 - 1) AS partition",
    )
    .bind(partitions)
    .bind(GENESIS_HASH.as_slice())
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(partitions)
}
