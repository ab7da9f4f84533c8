//! Where measuring happens: databases of its own in the cluster, created for one scenario and dropped after it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use calos_adapters::config::Config;
use calos_adapters::database::Database;
use calos_adapters::postgres;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor};
use tokio::sync::Mutex;

use crate::cpu::CpuMeter;
use crate::error::BenchError;

/// Every database of a benchmark is called this and something more.
const DATABASE_PREFIX: &str = "calos_bench_";
/// The advisory lock of whoever measures: two at once would measure each other.
const MEASURING_LOCK: i64 = 0x6361_6c6f_735f_6263;

/// What is written to the log ahead of a measurement, altogether as much as comes between two checkpoints at most.
const RUN_IN_BYTES: u32 = 1_000_000;
const RUN_IN_MESSAGES: u32 = 4_000;

/// The cluster to measure on.
pub struct Arena {
    cluster: Database,
    owner: PgConnectOptions,
    /// Holds the advisory lock; creates and drops databases.
    admin: Mutex<PgConnection>,
    may_checkpoint: bool,
    next_number: AtomicU32,
    /// Reads CPU time.
    pub meter: CpuMeter,
}

/// A database of one scenario.
#[derive(Clone)]
pub struct Fresh {
    name: String,
    /// To connect to it as its owner.
    pub owner: PgConnectOptions,
}

impl Fresh {
    /// Its URL for the owner.
    pub fn url(&self) -> String {
        self.owner.to_url_lossy().to_string()
    }

    /// One connection as its owner.
    pub async fn connect(&self) -> Result<PgConnection, BenchError> {
        Ok(PgConnection::connect_with(&self.owner).await?)
    }

    /// A pool as its owner, without the round trip that asks whether a connection still lives.
    pub async fn pool(&self, connections: u32) -> Result<PgPool, BenchError> {
        let options =
            PgPoolOptions::new().max_connections(connections).min_connections(connections).test_before_acquire(false);
        Ok(options.connect_with(self.owner.clone()).await?)
    }
}

impl Arena {
    /// Joins or starts the cluster, and clears what a killed run left behind.
    ///
    /// # Errors
    /// No cluster, somebody else is measuring on it, or it does not keep what it acknowledges.
    pub async fn open() -> Result<Arc<Self>, BenchError> {
        let config = Config::from_env().map_err(|error| BenchError::Environment(error.to_string()))?;
        Self::open_with(&config).await
    }

    /// The same with settings of one's own.
    ///
    /// # Errors
    /// As [`Arena::open`].
    pub async fn open_with(config: &Config) -> Result<Arc<Self>, BenchError> {
        let unfit = |error: &dyn std::fmt::Display| BenchError::Environment(error.to_string());
        let cluster = Database::open(config).await.map_err(|error| unfit(&error))?;
        let owner: PgConnectOptions = cluster.owner_url.parse()?;
        let owner = owner.disable_statement_logging();
        let mut admin = PgConnection::connect_with(&owner).await?;
        let free: bool =
            sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(MEASURING_LOCK).fetch_one(&mut admin).await?;
        if !free {
            return Err(BenchError::Environment("another calos-bench is measuring on this cluster".to_owned()));
        }
        let meter = CpuMeter::find(&mut admin).await?;
        let may_checkpoint: bool = sqlx::query_scalar(
            "SELECT rolsuper OR (current_setting('server_version_num')::int >= 150000 AND EXISTS (
                 SELECT FROM pg_roles c WHERE c.rolname = 'pg_checkpoint' AND pg_has_role(current_user, c.oid, 'USAGE')))
             FROM pg_roles WHERE rolname = current_user",
        )
        .fetch_one(&mut admin)
        .await?;
        let arena =
            Self { cluster, owner, admin: Mutex::new(admin), may_checkpoint, next_number: AtomicU32::new(1), meter };
        arena.drop_all().await?;
        Ok(Arc::new(arena))
    }

    /// The address of the cluster's own log, with the owner's rights.
    pub fn owner_url(&self) -> &str {
        &self.cluster.owner_url
    }

    /// One connection to the cluster's own log, with the owner's rights.
    pub async fn connect_to_log(&self) -> Result<PgConnection, BenchError> {
        Ok(PgConnection::connect_with(&self.owner).await?)
    }

    /// Where the embedded cluster lives; none for somebody else's database.
    pub fn cluster_folder(&self) -> Option<PathBuf> {
        self.cluster.cluster().map(|cluster| cluster.folder().to_owned())
    }

    /// Runs something with the administrative connection.
    pub async fn admin(&self) -> tokio::sync::MutexGuard<'_, PgConnection> {
        self.admin.lock().await
    }

    /// An empty database.
    pub async fn empty(&self, label: &str) -> Result<Fresh, BenchError> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let name = format!("{DATABASE_PREFIX}{label}_{}_{number}", std::process::id());
        self.admin().await.execute(format!(r#"CREATE DATABASE "{name}" TEMPLATE template0"#).as_str()).await?;
        let owner = self.owner.clone().database(&name);
        Ok(Fresh { name, owner })
    }

    /// A database with an empty log in it.
    pub async fn with_log(&self, label: &str) -> Result<Fresh, BenchError> {
        let fresh = self.empty(label).await?;
        postgres::migrate(&fresh.url(), None)
            .await
            .map_err(|error| BenchError::Environment(format!("the log cannot be created: {error}")))?;
        Ok(fresh)
    }

    /// Writes out what earlier scenarios left in memory, so that nobody pays another's debt.
    pub async fn settle(&self) -> Result<(), BenchError> {
        if self.may_checkpoint {
            self.admin().await.execute("CHECKPOINT").await?;
        }
        Ok(())
    }

    /// Lets the server have written as much as makes it checkpoint by itself, so that it fills segments of its write-ahead log
    /// that were there before, as one that has run for an hour does: making new ones halts whoever commits.
    pub async fn run_in(&self) -> Result<(), BenchError> {
        if !self.may_checkpoint {
            return Ok(());
        }
        let fill = format!(
            "SELECT count(pg_logical_emit_message(false, 'calos-bench', repeat('x', {RUN_IN_BYTES}))) \
             FROM generate_series(1, {RUN_IN_MESSAGES})"
        );
        self.admin().await.execute(fill.as_str()).await?;
        self.settle().await
    }

    /// Drops a scenario's database.
    pub async fn drop_database(&self, fresh: Fresh) -> Result<(), BenchError> {
        let Fresh { name, .. } = fresh;
        self.drop_named(&name).await
    }

    /// Drops every database a benchmark has made here.
    pub async fn drop_all(&self) -> Result<(), BenchError> {
        let names: Vec<String> =
            sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE starts_with(datname, $1)")
                .bind(DATABASE_PREFIX)
                .fetch_all(&mut *self.admin().await)
                .await?;
        for name in names {
            self.drop_named(&name).await?;
        }
        Ok(())
    }

    async fn drop_named(&self, name: &str) -> Result<(), BenchError> {
        let statement = format!(r#"DROP DATABASE IF EXISTS "{}" WITH (FORCE)"#, name.replace('"', "\"\""));
        self.admin().await.execute(statement.as_str()).await?;
        Ok(())
    }

    /// Leaves the cluster; whoever is the last one stops it.
    pub async fn close(self: Arc<Self>) -> Result<(), BenchError> {
        self.drop_all().await?;
        if let Some(arena) = Arc::into_inner(self) {
            arena.admin.into_inner().close().await?;
            arena.cluster.close().await.map_err(|error| BenchError::Environment(error.to_string()))?;
        }
        Ok(())
    }
}
