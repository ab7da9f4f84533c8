//! Commits that somebody else waits for: while a batch is on its way to the disk, the next one is worked on.
//!
//! A batch of many commands commits without waiting for the disk, for this one transaction alone, and behind it a second
//! connection commits a transaction of nothing that does wait. PostgreSQL's write-ahead log reaches the disk in the order it
//! was written, so once that one is there, so is every batch before it; only then is anybody answered. The second
//! connection looks the batch up first: a server that crashed in between and has lost it confirms nothing.
//!
//! For those few hundred microseconds others see what is not yet on the disk. Whoever acts on it for good calls
//! [`flush_seen`] first: the writer before it takes over what another process wrote, anchors, receipts and files of the log before they are given out.

use std::time::Instant;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};

use super::append::{Append, Batch, Head};
use super::pulse::Pulse;
use super::writer::{STATEMENT_TIMEOUT, connect_from, while_it_answers};

/// Commands in a batch whose commit another connection waits for, at the least: below that nobody else's work would fill the
/// time, and waiting at once is quicker.
pub(super) const DEFERRED_MIN_COMMANDS: usize = 32;

/// Batches that are committed and not confirmed, at the most.
pub(super) const UNCONFIRMED_MAX_BATCHES: usize = 4;

/// Whether this server can do it: it writes, it has the function that writes to the write-ahead log and to nothing else, this
/// role may call it, and the log is not spread over several servers, each with a write-ahead log of its own.
/// The function has one more argument since PostgreSQL 17, which may be left out.
const POSSIBLE: &str = "
    SELECT coalesce(has_function_privilege(coalesce(
            to_regprocedure('pg_logical_emit_message(boolean,text,text)'),
            to_regprocedure('pg_logical_emit_message(boolean,text,text,boolean)')), 'EXECUTE'), false)
        AND NOT pg_is_in_recovery() AND NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')";

/// A message for nobody: it gives the transaction a commit to wait for.
const FLUSH: &str = "SELECT pg_logical_emit_message(true, 'calos', '')";

/// The same, if the batch is there.
const CONFIRM: &str = "
    SELECT pg_logical_emit_message(true, 'calos', '') FROM events WHERE partition = $1 AND position = $2 AND hash = $3";

/// A batch that was sent and is not known to be on the disk.
pub(super) struct Sent {
    /// Its commands.
    pub appends: Vec<Append>,
    /// The same, sealed.
    pub batch: Batch,
    /// When it was sent.
    pub began: Instant,
    /// Whether the server said that it is committed.
    pub committed: bool,
}

/// What is being asked.
pub(super) struct Confirming {
    /// The leading batches it is asked of.
    pub batches: usize,
    asking: BoxFuture<'static, Answer>,
}

/// What came of it: the connection where it can be used again, and why nothing is confirmed where it is not.
pub(super) struct Answer {
    pub connection: Option<PoolConnection<Postgres>>,
    pub failed: Option<String>,
}

impl Confirming {
    /// Asks whether the last event, and so everything committed before it, is on the disk. Nothing is sent before it is
    /// polled. Without an event there is nothing to ask: a batch that only claims keys has waited for its commit itself.
    pub fn of(
        batches: usize,
        last: Option<(i32, Head)>,
        connection: Option<PoolConnection<Postgres>>,
        pool: PgPool,
        pulse: Pulse,
    ) -> Self {
        let asking = async move {
            let Some((partition, head)) = last else { return Answer { connection, failed: None } };
            let mut connection = match connection {
                Some(connection) => connection,
                None => match connect_from(&pool, &pulse).await {
                    Ok(connection) => connection,
                    Err(error) => return Answer { connection: None, failed: Some(error.to_string()) },
                },
            };
            let asked = async {
                let confirm = sqlx::query(CONFIRM).bind(partition).bind(head.position).bind(&head.hash[..]);
                confirm.execute(&mut *connection).await.map(|done| done.rows_affected() == 1)
            };
            let failed = match while_it_answers(&pulse, STATEMENT_TIMEOUT, asked).await {
                Some(Ok(true)) => return Answer { connection: Some(connection), failed: None },
                Some(Ok(false)) => "the server no longer has a batch that it had committed".to_owned(),
                Some(Err(error)) => error.to_string(),
                None => "a commit was not confirmed in time".to_owned(),
            };
            // In an unknown state, or on a server that is not the one it was: not back into the pool.
            drop(connection.detach());
            Answer { connection: None, failed: Some(failed) }
        }
        .boxed();
        Self { batches, asking }
    }
}

/// Waits for what is asked, for ever when nothing is. May be dropped and called again.
pub(super) async fn answer(confirming: &mut Option<Confirming>) -> Answer {
    match confirming {
        Some(confirming) => confirming.asking.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Whether commits can be left to a second connection to wait for.
///
/// # Errors
/// The database's.
pub(super) async fn is_possible(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(POSSIBLE).fetch_one(connection).await
}

/// Sees to it that everything committed so far is on the disk.
///
/// # Errors
/// The database's.
pub(super) async fn flush_on(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(FLUSH).execute(connection).await.map(drop)
}

/// Sees to it that whatever the caller has read of the log is on the disk and survives a crash of the server.
///
/// # Errors
/// The database's.
pub async fn flush_seen(pool: &PgPool) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    // Where it is not possible no commit is deferred either.
    if is_possible(&mut connection).await? { flush_on(&mut connection).await } else { Ok(()) }
}
