//! The database of a process: the one at `DATABASE_URL`, or the embedded one, migrated and ready.

use sqlx::{Connection as _, Executor as _, PgPool};

use crate::config::Config;
use crate::embedded::{Cluster, ClusterError, ClusterOptions};
use crate::postgres::{self, MigrateError};

/// The name of the database, and of its owner, in an embedded cluster.
pub const EMBEDDED_DATABASE: &str = "calos";

/// Why there is no database.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The embedded PostgreSQL could not be found, made or started.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The database does not answer, or refuses.
    #[error("the database cannot be reached: {0}")]
    Connect(#[from] sqlx::Error),
    /// The schema could not be brought to this program's.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
}

/// A migrated database. With an embedded one it holds the lease that keeps PostgreSQL running; call [`Database::close`] for
/// an orderly end. Dropping it gives the lease back too, but blocks while PostgreSQL stops.
#[derive(Debug)]
pub struct Database {
    /// The address with the owner's rights.
    pub owner_url: String,
    /// The working pool, as `calos_app` where the database has that role.
    pub pool: PgPool,
    /// How many partitions the log has.
    pub partitions: i32,
    cluster: Option<Cluster>,
}

impl Database {
    /// Joins or starts the embedded cluster when there is no `DATABASE_URL`, applies the missing migrations, makes the
    /// partitions of a new log, and opens the working pool.
    pub async fn open(config: &Config) -> Result<Self, DatabaseError> {
        let (owner_url, cluster) = match &config.database.url {
            Some(url) => (url.expose().to_owned(), None),
            None => {
                let cluster = Cluster::join(ClusterOptions::new(&config.data_dir)).await?;
                create_database(&cluster.url("postgres"), EMBEDDED_DATABASE).await?;
                (cluster.url(EMBEDDED_DATABASE), Some(cluster))
            }
        };
        let partitions = postgres::migrate(&owner_url, config.database.partitions).await?;
        let pool = postgres::connect(&owner_url, config.database.max_connections).await?;
        Ok(Self { owner_url, pool, partitions, cluster })
    }

    /// Another pool with the owner's rights and no statement timeout: for rebuilds and maintenance.
    pub async fn owner_pool(&self, max_connections: u32) -> Result<PgPool, DatabaseError> {
        Ok(postgres::connect_owner(&self.owner_url, max_connections).await?)
    }

    /// The embedded cluster, unless the database is somebody else's.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// Whether the working pool has the role that cannot change the log; without it the triggers alone protect the log.
    pub async fn is_append_only_by_right(&self) -> Result<bool, DatabaseError> {
        let role: String = sqlx::query_scalar("SELECT current_user::text").fetch_one(&self.pool).await?;
        Ok(role == postgres::APPLICATION_ROLE)
    }

    /// Closes the pool and gives the lease back; the last process to do so stops the embedded PostgreSQL.
    pub async fn close(self) -> Result<(), DatabaseError> {
        self.pool.close().await;
        match self.cluster {
            Some(cluster) => Ok(cluster.leave().await?),
            None => Ok(()),
        }
    }
}

/// Creates `name` unless it is there; several processes may try at once.
async fn create_database(maintenance_url: &str, name: &str) -> Result<(), sqlx::Error> {
    let mut connection = postgres::connect_one(maintenance_url).await?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(&mut connection)
        .await?;
    if !exists {
        let created = connection.execute(format!("CREATE DATABASE \"{name}\"").as_str()).await;
        if let Err(error) = created
            && !is_duplicate(&error)
        {
            return Err(error);
        }
    }
    connection.close().await
}

/// 42P04: it exists; 23505: another process creates it at this moment.
fn is_duplicate(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("42P04" | "23505"))
}
