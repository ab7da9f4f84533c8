//! Baselines: how fast this PostgreSQL can send the rows a replay reads, and take the rows it writes, by binary `COPY`.

use std::time::Instant;

use futures_util::StreamExt;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::task::JoinSet;

use crate::arena::{Arena, Fresh};
use crate::error::BenchError;
use crate::stats::Run;

/// What a replay reads of every event.
const COLUMNS: &str = "partition, position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, \
                       recorded_at";

/// How the rows are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plan {
    /// As PostgreSQL plans it: a scan of the table and a sort, or the index, as it likes.
    Free,
    /// Along the index, as a replay asks.
    Index,
}

/// Drains the whole log to nowhere over `connections` connections, partitions dealt out in turn; operations are events.
pub async fn drain(arena: &Arena, fresh: &Fresh, connections: usize, plan: Plan) -> Result<Run, BenchError> {
    let mut owner = fresh.connect().await?;
    let heads: Vec<(i32, i64)> =
        sqlx::query_as("SELECT partition, last_position FROM partitions WHERE last_position > 0 ORDER BY partition")
            .fetch_all(&mut owner)
            .await?;
    let events: i64 = heads.iter().map(|(_, last)| last).sum();
    owner.close().await?;

    let lanes = connections.max(1);
    let mut readers = Vec::new();
    for lane in 0..lanes {
        let mine: Vec<i32> = heads.iter().map(|(partition, _)| *partition).skip(lane).step_by(lanes).collect();
        let mut connection = fresh.connect().await?;
        if plan == Plan::Index {
            sqlx::raw_sql(
                "SET enable_seqscan = off; SET enable_bitmapscan = off; SET max_parallel_workers_per_gather = 0; \
                 SET jit = off",
            )
            .execute(&mut connection)
            .await?;
        }
        readers.push((connection, statements(&mine, plan)));
    }

    let cpu_before = arena.meter.read();
    let started = Instant::now();
    let mut tasks: JoinSet<Result<u64, BenchError>> = JoinSet::new();
    for (mut connection, statements) in readers {
        tasks.spawn(async move {
            let mut bytes = 0;
            for statement in statements {
                bytes += discard(&mut connection, &statement).await?;
            }
            connection.close().await?;
            Ok(bytes)
        });
    }
    let mut bytes = 0;
    while let Some(ended) = tasks.join_next().await {
        bytes += ended.map_err(|error| BenchError::Check(format!("a reader ended badly: {error}")))??;
    }
    let (elapsed, cpu) = (started.elapsed(), arena.meter.since(cpu_before));
    let events = u64::try_from(events).unwrap_or_default();
    if bytes < events {
        return Err(BenchError::Check(format!("COPY sent {bytes} bytes for {events} events")));
    }
    Run::bulk(events, elapsed, cpu)
}

fn statements(partitions: &[i32], plan: Plan) -> Vec<String> {
    let copy = |condition: String| {
        format!(
            "COPY (SELECT {COLUMNS} FROM events WHERE {condition} ORDER BY partition, position) \
             TO STDOUT (FORMAT binary)"
        )
    };
    match plan {
        Plan::Index => partitions.iter().map(|partition| copy(format!("partition = {partition}"))).collect(),
        Plan::Free => {
            let list: Vec<String> = partitions.iter().map(i32::to_string).collect();
            if list.is_empty() { Vec::new() } else { vec![copy(format!("partition IN ({})", list.join(", ")))] }
        }
    }
}

async fn discard(connection: &mut PgConnection, statement: &str) -> Result<u64, BenchError> {
    let mut chunks = connection.copy_out_raw(statement).await?;
    let mut bytes = 0;
    while let Some(chunk) = chunks.next().await {
        bytes += u64::try_from(chunk?.len()).unwrap_or_default();
    }
    Ok(bytes)
}

/// Rows of one table as `COPY` sends them, held in memory.
pub struct CapturedRows {
    table: String,
    chunks: Vec<bytes::Bytes>,
}

/// Takes all rows of a read model's table into memory.
pub async fn capture(connection: &mut PgConnection, schema: &str, table: &str) -> Result<CapturedRows, BenchError> {
    let mut chunks = Vec::new();
    {
        let statement = format!("COPY {schema}.{table} TO STDOUT (FORMAT binary)");
        let mut stream = connection.copy_out_raw(&statement).await?;
        while let Some(chunk) = stream.next().await {
            chunks.push(chunk?);
        }
    }
    Ok(CapturedRows { table: table.to_owned(), chunks })
}

/// Rows are sent in pieces of about this size, as the replay sends them.
const SEND_BYTES: usize = 1024 * 1024;

/// Loads captured rows into empty tables of `schema` that have the same columns and indexes; operations are rows.
///
/// Each table is one `COPY` and one durable transaction. With more than one connection the tables load side by side.
pub async fn load(arena: &Arena, fresh: &Fresh, schema: &str, tables: Vec<CapturedRows>) -> Result<Run, BenchError> {
    let mut loads = Vec::new();
    for captured in tables {
        loads.push((
            fresh.connect().await?,
            format!("COPY {schema}.{} FROM STDIN (FORMAT binary)", captured.table),
            captured,
        ));
    }
    let cpu_before = arena.meter.read();
    let started = Instant::now();
    let mut tasks: JoinSet<Result<u64, BenchError>> = JoinSet::new();
    for (mut connection, statement, captured) in loads {
        tasks.spawn(async move {
            let mut sink = connection.copy_in_raw(&statement).await?;
            let mut piece = Vec::with_capacity(2 * SEND_BYTES);
            for chunk in captured.chunks {
                piece.extend_from_slice(&chunk);
                if piece.len() >= SEND_BYTES {
                    sink.send(piece.as_slice()).await?;
                    piece.clear();
                }
            }
            sink.send(piece.as_slice()).await?;
            let rows = sink.finish().await?;
            connection.close().await?;
            Ok(rows)
        });
    }
    let mut rows = 0;
    while let Some(ended) = tasks.join_next().await {
        rows += ended.map_err(|error| BenchError::Check(format!("a loader ended badly: {error}")))??;
    }
    Run::bulk(rows, started.elapsed(), arena.meter.since(cpu_before))
}
