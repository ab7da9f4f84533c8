//! Connections of the tools' own, so that long work neither waits for a server's pool nor leaves anything behind in it.

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Executor, PgConnection, PgPool};

use crate::background::lower_backend;
use crate::error::ToolError;

/// The name under which the tools' connections stand in `pg_stat_activity`.
pub const APPLICATION_NAME: &str = "calos-replay";

/// A fold of the whole log takes as long as it takes; whatever the server's or the role's own limits are.
const UNHURRIED: &str = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";

/// A statement of a tool that is gone ends within a second, and its locks with it.
const NOTICE_THE_END: &str = "SET client_connection_check_interval = '1s'";

/// What long work writes goes to the disk at once: gathered by the system and written together, it keeps the log's commits waiting
/// for a tenth of a second and more.
const WRITE_THROUGH: &str = "SET backend_flush_after = '1MB'";

/// Processes that came to the help of one in the background would have everybody else's priority.
pub(crate) const WITHOUT_HELP: &str =
    "SET max_parallel_workers_per_gather = 0; SET max_parallel_maintenance_workers = 0";

/// Where long work reads and writes: readers from a pool, writers each on a connection that ends with them.
pub(crate) struct Connections {
    options: PgConnectOptions,
    readers: PgPool,
    background: bool,
}

impl Connections {
    /// Connections to the database of `pool`, as the user it logs in with.
    pub(crate) fn beside(pool: &PgPool, readers: u32) -> Self {
        Self::at_full_pace(pool.connect_options().as_ref(), readers)
    }

    /// For work that others wait for.
    pub(crate) fn at_full_pace(options: &PgConnectOptions, readers: u32) -> Self {
        Self::to(options, readers, false)
    }

    /// The same for work that waits for everybody else's, where that can be had: not for what others wait for. A connection
    /// belongs to the threads it is opened on, so who works on threads of their own makes these there.
    pub(crate) fn in_the_background(options: &PgConnectOptions, readers: u32) -> Self {
        Self::to(options, readers, true)
    }

    fn to(options: &PgConnectOptions, readers: u32, background: bool) -> Self {
        // Statements over the whole log are slow by nature.
        let options = options.clone().application_name(APPLICATION_NAME).disable_statement_logging();
        let pool = PgPoolOptions::new().max_connections(readers).after_connect(move |connection, _| {
            Box::pin(async move {
                run_sql(connection, UNHURRIED).await?;
                if background { in_the_background(connection).await } else { Ok(()) }
            })
        });
        let readers = pool.connect_lazy_with(options.clone());
        Self { options, readers, background }
    }

    /// Where these go to.
    pub(crate) const fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    pub(crate) fn readers(&self) -> &PgPool {
        &self.readers
    }

    /// A connection that is closed, and its transaction undone, as soon as it is dropped.
    pub(crate) async fn connect(&self) -> Result<PgConnection, ToolError> {
        let mut connection = self.connect_to_write().await?;
        if self.background {
            in_the_background(&mut connection).await?;
        }
        Ok(connection)
    }

    /// The same for many small writes, never at a lower priority: whoever is put aside while it holds a lock of the write-ahead log
    /// keeps every commit waiting.
    pub(crate) async fn connect_to_write(&self) -> Result<PgConnection, ToolError> {
        let mut connection = self.options.connect().await?;
        prepare(&mut connection).await?;
        Ok(connection)
    }

    pub(crate) async fn close(self) {
        self.readers.close().await;
    }
}

/// Lowers what a connection does, all of it.
async fn in_the_background(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    run_sql(connection, WITHOUT_HELP).await?;
    lower_backend(connection).await
}

/// Makes a connection fit for long work.
pub(crate) async fn prepare(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    run_sql(connection, UNHURRIED).await?;
    // Not every system PostgreSQL runs on can notice; there a statement goes on until it has an answer to give.
    if let Err(error) = run_sql(connection, NOTICE_THE_END).await {
        tracing::debug!(%error, "this database does not notice when a tool has gone");
    }
    if let Err(error) = run_sql(connection, WRITE_THROUGH).await {
        tracing::debug!(%error, "this database leaves it to its system when to write");
    }
    Ok(())
}

/// Runs statements that answer nothing and take no values.
pub(crate) async fn run_sql(connection: &mut PgConnection, statements: &str) -> Result<(), sqlx::Error> {
    connection.execute(statements).await.map(drop)
}
