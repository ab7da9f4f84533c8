//! Baseline: the database copying the very rows the log has just appended into an equal table, by itself.
//!
//! No client, no decision, no network, no hash: `INSERT … SELECT` in commit order, with the same columns, keys, checks
//! and triggers. It is what this PostgreSQL can store at the most in this form, so the log is measured against it. The
//! best of several batch sizes counts, each batch a durable transaction.

use std::time::Instant;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};

use crate::arena::{Arena, Fresh};
use crate::error::BenchError;
use crate::stats::Run;

/// Rows of one transaction; the last one puts everything into a single transaction.
pub const BATCH_SIZES_ROWS: &[i64] = &[1_000, 10_000, i64::MAX];

const COLUMNS: &str = "partition, position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, \
                       metadata, recorded_at, hash";

/// Rows in the order they were committed, numbered, where reading them costs least.
const SOURCE: &str = "
    CREATE UNLOGGED TABLE insert_select_source AS
        SELECT row_number() OVER (ORDER BY recorded_at, partition, position) AS number, * FROM events;
    CREATE UNIQUE INDEX ON insert_select_source (number);";

/// A table like the log, triggers included, which `LIKE … INCLUDING ALL` leaves out.
const TARGET: &str = "
    DROP TABLE IF EXISTS insert_select_target;
    CREATE TABLE insert_select_target (LIKE events INCLUDING ALL);
    CREATE TRIGGER events_refuse_row BEFORE UPDATE OR DELETE ON insert_select_target
        FOR EACH ROW EXECUTE FUNCTION refuse_change();
    CREATE TRIGGER events_refuse_statement BEFORE UPDATE OR DELETE OR TRUNCATE ON insert_select_target
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
    ALTER TABLE insert_select_target ENABLE ALWAYS TRIGGER events_refuse_row;
    ALTER TABLE insert_select_target ENABLE ALWAYS TRIGGER events_refuse_statement;";

/// The best of the batch sizes, and which one it was.
pub struct Best {
    /// Its run; the operations are rows.
    pub run: Run,
    /// Rows per transaction.
    pub batch_rows: i64,
}

/// Copies every row of the log in `fresh`, once for each batch size, and answers the fastest.
pub async fn run(arena: &Arena, fresh: &Fresh, batch_sizes: &[i64]) -> Result<Best, BenchError> {
    let mut connection = fresh.connect().await?;
    connection.execute(SOURCE).await?;
    connection.execute("VACUUM ANALYZE insert_select_source").await?;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM insert_select_source").fetch_one(&mut connection).await?;
    let mut best: Option<Best> = None;
    for &batch_rows in batch_sizes {
        connection.execute(TARGET).await?;
        arena.settle().await?;
        let run = copy_all(arena, &mut connection, rows, batch_rows).await?;
        if best.as_ref().is_none_or(|best| run.rate() > best.run.rate()) {
            best = Some(Best { run, batch_rows });
        }
    }
    connection.execute("DROP TABLE insert_select_source, insert_select_target").await?;
    connection.close().await?;
    best.ok_or_else(|| BenchError::Check("no batch size was given for INSERT … SELECT".to_owned()))
}

async fn copy_all(arena: &Arena, connection: &mut PgConnection, rows: i64, batch_rows: i64) -> Result<Run, BenchError> {
    let statement = format!(
        "INSERT INTO insert_select_target ({COLUMNS})
         SELECT {COLUMNS} FROM insert_select_source WHERE number > $1 AND number <= $2 ORDER BY number"
    );
    let cpu_before = arena.meter.read();
    let started = Instant::now();
    let mut after = 0_i64;
    let mut stored = 0_u64;
    while after < rows {
        let through = after.saturating_add(batch_rows).min(rows);
        stored += sqlx::query(&statement).bind(after).bind(through).execute(&mut *connection).await?.rows_affected();
        after = through;
    }
    let (elapsed, cpu) = (started.elapsed(), arena.meter.since(cpu_before));
    if i64::try_from(stored) != Ok(rows) {
        return Err(BenchError::Check(format!("INSERT … SELECT stored {stored} of {rows} rows")));
    }
    Run::bulk(stored, elapsed, cpu)
}
