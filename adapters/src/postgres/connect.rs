//! Connections: bounded in number and time, named, and working as the role that cannot change the log.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgConnection};

use super::pulse;

/// How long a caller waits for a connection, in seconds.
pub const ACQUIRE_TIMEOUT_SECONDS: u64 = 10;
/// How long one statement of the server may take, in seconds. Tools that read the whole log use the owner's pool.
pub const STATEMENT_TIMEOUT_SECONDS: u64 = 30;
/// How long a transaction may sit idle before the database ends it, in seconds.
pub const IDLE_IN_TRANSACTION_TIMEOUT_SECONDS: u64 = 60;
/// A connection unused for this long is closed, in seconds.
pub const IDLE_TIMEOUT_SECONDS: u64 = 300;
/// The most connections the owner's pool of a server needs beside the working one.
pub const OWNER_CONNECTIONS_MAX: u32 = 4;

const SLOW_STATEMENT_SECONDS: u64 = 1;

/// The role the server works as: it may append to the log and read it, nothing else.
pub const APPLICATION_ROLE: &str = "calos_app";

/// Takes the application's role where the database has it; one round trip per new connection. Settings are made by
/// statement, not at start-up, because connection poolers refuse start-up options. Behind a cut wire PostgreSQL would hold a
/// transaction's locks for hours; with these keep-alives, for ten seconds.
const PREPARE_WORKING: &str = "
    SELECT set_config('statement_timeout', $1, false),
           set_config('idle_in_transaction_session_timeout', $2, false),
           set_config('tcp_keepalives_idle', '4', false),
           set_config('tcp_keepalives_interval', '2', false),
           set_config('tcp_keepalives_count', '3', false),
           (SELECT set_config('role', rolname, false) FROM pg_roles
             WHERE rolname = 'calos_app' AND pg_has_role(session_user, oid, 'MEMBER'))";

/// The owner's work is long, and a snapshot shared by several connections leaves one of them idle in its transaction.
const PREPARE_OWNER: &str = "
    SELECT set_config('statement_timeout', '0', false), set_config('idle_in_transaction_session_timeout', '0', false)";

/// The working pool: every connection takes the role `calos_app` when the database has it, so that the log is append-only by
/// right as well as by trigger. Opens one connection at once and fails when that fails.
pub async fn connect(url: &str, max_connections: u32) -> Result<PgPool, sqlx::Error> {
    let pool = pool_options(max_connections).after_connect(|connection, _| {
        Box::pin(async move {
            sqlx::query(PREPARE_WORKING)
                .bind(format!("{STATEMENT_TIMEOUT_SECONDS}s"))
                .bind(format!("{IDLE_IN_TRANSACTION_TIMEOUT_SECONDS}s"))
                .persistent(false)
                .execute(connection)
                .await
                .map(|_| ())
        })
    });
    pool.connect_with(options(url, "calos")?).await
}

/// A pool as the role of the address itself, without a statement timeout: for rebuilds, copies and maintenance.
pub async fn connect_owner(url: &str, max_connections: u32) -> Result<PgPool, sqlx::Error> {
    let pool = pool_options(max_connections)
        .after_connect(|connection, _| Box::pin(async move { connection.execute(PREPARE_OWNER).await.map(|_| ()) }));
    pool.connect_with(options(url, "calos-owner")?).await
}

/// One connection as the role of the address itself, without a statement timeout; waiting for it is bounded.
pub async fn connect_one(url: &str) -> Result<PgConnection, sqlx::Error> {
    let options = options(url, "calos-owner")?;
    let connecting = PgConnection::connect_with(&options);
    let mut connection = match tokio::time::timeout(Duration::from_secs(ACQUIRE_TIMEOUT_SECONDS), connecting).await {
        Ok(connection) => connection?,
        Err(_) => return Err(sqlx::Error::PoolTimedOut),
    };
    connection.execute(PREPARE_OWNER).await?;
    Ok(connection)
}

fn pool_options(max_connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(max_connections.max(1))
        .acquire_timeout(Duration::from_secs(ACQUIRE_TIMEOUT_SECONDS))
        .idle_timeout(Duration::from_secs(IDLE_TIMEOUT_SECONDS))
        // Over a connection that swallows everything the pool would wait for ever for it to become ready again, and keep
        // its place taken: while a database is away, what is given back is closed.
        .after_release(|_, _| Box::pin(async { Ok(!pulse::is_any_database_away()) }))
}

fn options(url: &str, application_name: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    let named = match options.get_application_name() {
        Some(_) => options,
        None => options.application_name(application_name),
    };
    Ok(named
        .log_statements(log::LevelFilter::Off)
        .log_slow_statements(log::LevelFilter::Warn, Duration::from_secs(SLOW_STATEMENT_SECONDS)))
}
