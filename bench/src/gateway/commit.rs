//! What one durable commit costs on this cluster: one row, one statement, one connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{Connection, Executor, PgConnection};

use crate::arena::{Arena, Fresh};
use crate::error::BenchError;
use crate::stats::Latencies;

/// A row about as large as a small command's events.
const ROW_BYTES: usize = 1_024;
/// Commits before any counts.
const WARM_UP_COMMITS: u32 = 100;

/// A table of its own to commit to.
pub struct CommitProbe {
    arena: Arc<Arena>,
    fresh: Fresh,
    connection: PgConnection,
}

impl CommitProbe {
    /// Makes the table, in a database of its own.
    ///
    /// # Errors
    /// The database's.
    pub async fn open(arena: &Arc<Arena>) -> Result<Self, BenchError> {
        let fresh = arena.empty("commit").await?;
        let mut connection = fresh.connect().await?;
        connection
            .execute("CREATE TABLE probe (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload text NOT NULL)")
            .await?;
        Ok(Self { arena: Arc::clone(arena), fresh, connection })
    }

    /// The median of single commits, in microseconds.
    ///
    /// # Errors
    /// The database's.
    pub async fn p50_micros(&mut self, quick: bool) -> Result<Option<f64>, BenchError> {
        let measured = Duration::from_millis(if quick { 500 } else { 1_500 });
        for _ in 0..WARM_UP_COMMITS {
            self.commit().await?;
        }
        let mut latencies = Latencies::new()?;
        let end = Instant::now() + measured;
        while Instant::now() < end {
            let began = Instant::now();
            self.commit().await?;
            latencies.record(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
        Ok(latencies.quantile_micros(0.5))
    }

    async fn commit(&mut self) -> Result<(), BenchError> {
        let payload = "x".repeat(ROW_BYTES);
        sqlx::query("INSERT INTO probe (payload) VALUES ($1)").bind(payload).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Drops it.
    ///
    /// # Errors
    /// The database's.
    pub async fn close(self) -> Result<(), BenchError> {
        self.connection.close().await?;
        self.arena.drop_database(self.fresh).await
    }
}
