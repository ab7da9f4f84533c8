//! Baselines: how fast this PostgreSQL can send the rows a replay reads, and take the rows it writes, by binary `COPY`.

use std::time::Instant;

use calos_projections::{Schema, TableSpec};
use futures_util::StreamExt;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
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
#[derive(Clone)]
pub struct CapturedRows {
    table: &'static TableSpec,
    chunks: Vec<bytes::Bytes>,
}

/// Takes all rows of a live table into memory.
pub async fn capture(connection: &mut PgConnection, table: &'static TableSpec) -> Result<CapturedRows, BenchError> {
    let mut chunks = Vec::new();
    let statement = format!("COPY {} ({}) TO STDOUT (FORMAT binary)", place(table, Schema::Live), table.column_list());
    let mut stream = connection.copy_out_raw(&statement).await?;
    while let Some(chunk) = stream.next().await {
        chunks.push(chunk?);
    }
    drop(stream);
    Ok(CapturedRows { table, chunks })
}

/// When the keys come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keys {
    /// They are there, and every row is put into them.
    First,
    /// They are built over the rows.
    Last,
}

/// Rows are sent in pieces of about this size, as the replay sends them.
const SEND_BYTES: usize = 1024 * 1024;

fn place(table: &TableSpec, schema: Schema) -> String {
    format!("{schema}.{}", table.name)
}

/// Loads captured rows into empty tables of the same shape, all tables side by side; operations are rows.
///
/// Each table is one `COPY`; its keys are counted in, whenever they come.
pub async fn load(arena: &Arena, fresh: &Fresh, tables: &[CapturedRows], keys: Keys) -> Result<Run, BenchError> {
    let mut loads = Vec::new();
    for captured in tables {
        let mut connection = fresh.connect().await?;
        drop_target(&mut connection, captured.table).await?;
        sqlx::raw_sql(&captured.table.create_table(Schema::Next)).execute(&mut connection).await?;
        if keys == Keys::First {
            connection.execute(keys_statements(captured.table).as_str()).await?;
        }
        loads.push((connection, captured.clone()));
    }
    arena.settle().await?;
    let cpu_before = arena.meter.read();
    let started = Instant::now();
    let mut tasks: JoinSet<Result<u64, BenchError>> = JoinSet::new();
    for (mut connection, captured) in loads {
        tasks.spawn(async move {
            let rows = send(&mut connection, &captured).await?;
            if keys == Keys::Last {
                connection.execute(keys_statements(captured.table).as_str()).await?;
            }
            connection.close().await?;
            Ok(rows)
        });
    }
    let mut rows = 0;
    while let Some(ended) = tasks.join_next().await {
        rows += ended.map_err(|error| BenchError::Check(format!("a loader ended badly: {error}")))??;
    }
    let (elapsed, cpu) = (started.elapsed(), arena.meter.since(cpu_before));
    let mut owner = fresh.connect().await?;
    for captured in tables {
        drop_target(&mut owner, captured.table).await?;
    }
    owner.close().await?;
    Run::bulk(rows, elapsed, cpu)
}

async fn drop_target(connection: &mut PgConnection, table: &TableSpec) -> Result<(), BenchError> {
    sqlx::raw_sql(&format!("DROP TABLE IF EXISTS {}", place(table, Schema::Next))).execute(connection).await?;
    Ok(())
}

/// The statements that build a table's keys, with the memory a rebuild gives itself for it.
fn keys_statements(table: &TableSpec) -> String {
    format!("SET maintenance_work_mem = '256MB'; {}", table.create_keys(Schema::Next).join("; "))
}

async fn send(connection: &mut PgConnection, captured: &CapturedRows) -> Result<u64, BenchError> {
    let table = captured.table;
    let statement = format!("COPY {} ({}) FROM STDIN (FORMAT binary)", place(table, Schema::Next), table.column_list());
    let mut sink = connection.copy_in_raw(&statement).await?;
    let mut piece = Vec::with_capacity(2 * SEND_BYTES);
    for chunk in &captured.chunks {
        piece.extend_from_slice(chunk);
        if piece.len() >= SEND_BYTES {
            sink.send(piece.as_slice()).await?;
            piece.clear();
        }
    }
    sink.send(piece.as_slice()).await?;
    Ok(sink.finish().await?)
}
