//! Reading the log at the speed the database can send it: binary `COPY`, rows cut from the byte stream where they lie.
//!
//! Nothing is allocated per row and nothing is awaited per row: a chunk arrives, every complete row in it is handed out
//! as a [`Record`] that borrows from the chunk, and what is left over waits for the next chunk. What is read is never
//! taken on trust: the header, the number of fields, every length, the order of positions without a gap, and the trailer
//! are asserted, because a stream that ends early must be an error and never a short success.

mod cut;

use std::ops::Range;

use futures_util::StreamExt;
use sqlx::pool::PoolConnection;
use sqlx::postgres::Postgres;
use sqlx::{Executor, PgPool};

use calos_domain::Record;

pub use cut::RowCutter;

/// The eleven bytes every binary `COPY` begins with.
pub(crate) const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Signature, flags (4 bytes) and the length of the header's extension (4 bytes).
pub(crate) const HEADER_MIN_BYTES: usize = 19;

/// About what a block of the table comes to in a stream; PostgreSQL's own size of one.
const BLOCK_BYTES: usize = 8_192;

/// Microseconds between the Unix epoch and PostgreSQL's (2000-01-01 UTC).
pub(crate) const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Which columns are read beside the ones every reader needs. Each one left out is bytes not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Columns {
    /// Read [`Record::metadata`]; without it the field is empty.
    pub metadata: bool,
    /// Read [`LogRow::hash`]; without it the field is empty.
    pub hash: bool,
}

impl Columns {
    /// The event alone: what projections read.
    pub const EVENT: Self = Self { metadata: false, hash: false };
    /// Everything, as the seal covers it.
    pub const SEALED: Self = Self { metadata: true, hash: true };

    const fn count(self) -> i16 {
        9 + self.metadata as i16 + self.hash as i16
    }
}

/// A stretch of one partition: positions `after + 1 ..= through`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogSlice {
    /// The partition.
    pub partition: i32,
    /// The position before the first one read; 0 reads from the beginning.
    pub after: i64,
    /// The last position read. It has to exist: a log that ends before it is an error.
    pub through: i64,
}

/// One row of the log, borrowed from the bytes it arrived in.
#[derive(Clone, Copy, Debug)]
pub struct LogRow<'a> {
    /// The event.
    pub record: Record<'a>,
    /// The stored hash; empty when it was not selected.
    pub hash: &'a [u8],
}

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CopyOutError {
    /// The database failed, or the connection to it.
    #[error("reading the log failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The stream does not begin like a binary `COPY`.
    #[error("the stream is no binary COPY")]
    NoHeader,
    /// A row has another number of fields than was asked for.
    #[error("a row of partition {partition} after position {after} has {found} fields instead of {expected}")]
    Fields {
        /// The partition.
        partition: i32,
        /// The last good position.
        after: i64,
        /// Fields asked for.
        expected: i16,
        /// Fields received.
        found: i16,
    },
    /// A field is null, has an impossible length, or is no UTF-8.
    #[error("partition {partition} after position {after}: the column {column} cannot be read")]
    Field {
        /// The partition.
        partition: i32,
        /// The last good position.
        after: i64,
        /// The column.
        column: &'static str,
    },
    /// A row of another partition than was asked for.
    #[error("asked for partition {expected}, received partition {found}")]
    Partition {
        /// Asked for.
        expected: i32,
        /// Received.
        found: i32,
    },
    /// A position is missing, or the order is wrong.
    #[error("partition {partition} has no position {expected}; the next one is {found}")]
    Gap {
        /// The partition.
        partition: i32,
        /// The position that had to come.
        expected: i64,
        /// The position that came.
        found: i64,
    },
    /// The log ends before the position it was to be read to.
    #[error("partition {partition} ends at position {last}; position {through} was expected")]
    EndsEarly {
        /// The partition.
        partition: i32,
        /// The last position there is.
        last: i64,
        /// The position asked for.
        through: i64,
    },
    /// The stream stopped without its trailer: the connection was lost, whatever the driver says.
    #[error("the stream of partition {partition} stopped after position {last} without its trailer")]
    NoTrailer {
        /// The partition.
        partition: i32,
        /// The last good position.
        last: i64,
    },
    /// Bytes came after the trailer.
    #[error("the stream of partition {partition} goes on after its trailer")]
    AfterTrailer {
        /// The partition.
        partition: i32,
    },
}

/// Why a reader stopped: the log could not be read, or the reader refused a row.
#[derive(Debug, thiserror::Error)]
pub enum ReadStopped<E> {
    /// The log could not be read.
    #[error(transparent)]
    Log(#[from] CopyOutError),
    /// The reader's own error.
    #[error("{0}")]
    Reader(E),
}

/// Reads a slice of one partition and hands out its rows in order; returns how many there were.
///
/// The connection comes from `pool` and goes back to it only when the stream was read to its end: a stream given up
/// midway (an error, a cancelled task) leaves bytes behind on it that nobody may mistake for an answer, so that
/// connection is closed.
///
/// # Errors
/// [`ReadStopped::Log`] when the log cannot be read completely and in order, [`ReadStopped::Reader`] with the first
/// error `each` returns.
pub async fn read_slice<E>(
    pool: &PgPool,
    slice: LogSlice,
    columns: Columns,
    mut each: impl FnMut(&LogRow<'_>) -> Result<(), E>,
) -> Result<u64, ReadStopped<E>> {
    if slice.through <= slice.after {
        return Ok(0);
    }
    let mut cutter = RowCutter::new(slice, columns);
    let LogSlice { partition, after, through } = slice;
    let rows = format!(
        "WHERE partition = {partition} AND position > {after} AND position <= {through} ORDER BY partition, position"
    );
    let mut lease = Lease::take(pool).await?;
    lease.read(&statement(columns, &rows), |chunk| cutter.feed(chunk, &mut each)).await?;
    lease.give_back();
    cutter.finish()?;
    Ok(through.abs_diff(after))
}

/// A stretch of the log's table, as its rows lie there: of all partitions, in about the order in which they were written.
///
/// Reading them so takes half of the work that following the index does, which has to find a page for every row. But nothing
/// is promised of their order, and whether any is missing is for whoever takes them to find out.
#[derive(Clone, Debug)]
pub struct LogStretch {
    stream: Vec<u8>,
    columns: Columns,
}

impl LogStretch {
    /// Hands out the rows of some partitions, in the order in which they lie.
    ///
    /// # Errors
    /// As [`read_slice`].
    pub fn rows<E>(
        &self,
        partitions: &[i32],
        mut each: impl FnMut(&LogRow<'_>) -> Result<(), E>,
    ) -> Result<(), ReadStopped<E>> {
        let mut cutter = RowCutter::of_partitions(partitions, self.columns);
        cutter.feed(&self.stream, &mut each)?;
        Ok(cutter.finish()?)
    }
}

/// How many blocks the log's table has.
///
/// # Errors
/// The database's.
pub async fn log_blocks(pool: &PgPool) -> Result<u32, CopyOutError> {
    let blocks: i64 = sqlx::query_scalar("SELECT pg_relation_size('events') / current_setting('block_size')::bigint")
        .fetch_one(pool)
        .await?;
    // A table has no more blocks than fit.
    Ok(u32::try_from(blocks).unwrap_or(u32::MAX))
}

/// Reads the rows in some blocks of the log's table: those that were committed before.
///
/// # Errors
/// The database's.
pub async fn read_stretch(pool: &PgPool, blocks: Range<u32>, columns: Columns) -> Result<LogStretch, CopyOutError> {
    let rows = format!("WHERE ctid >= '({},0)' AND ctid < '({},0)'", blocks.start, blocks.end);
    let mut stream = Vec::with_capacity(BLOCK_BYTES * blocks.len());
    let mut lease = Lease::take(pool).await?;
    lease
        .read(&statement(columns, &rows), |chunk| {
            stream.extend_from_slice(chunk);
            Ok::<_, CopyOutError>(())
        })
        .await?;
    lease.give_back();
    Ok(LogStretch { stream, columns })
}

/// A connection that is closed unless it is given back in a known state.
struct Lease(Option<PoolConnection<Postgres>>);

impl Lease {
    async fn take(pool: &PgPool) -> Result<Self, CopyOutError> {
        Ok(Self(Some(pool.acquire().await?)))
    }

    /// Runs a `COPY` and hands out its stream as it comes.
    async fn read<E: From<CopyOutError>>(
        &mut self,
        statement: &str,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(connection) = self.0.as_mut() else {
            return Err(CopyOutError::Database(sqlx::Error::PoolClosed).into());
        };
        // Rows of all partitions lie mixed in the table, so that for a slice of one a planner may prefer to scan all of it and
        // sort; for a whole partition that is several times the work of following its index.
        let begin = "BEGIN TRANSACTION READ ONLY; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; \
                     SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL jit = off";
        connection.execute(begin).await.map_err(CopyOutError::from)?;
        {
            let mut chunks = connection.copy_out_raw(statement).await.map_err(CopyOutError::from)?;
            while let Some(chunk) = chunks.next().await {
                each(&chunk.map_err(CopyOutError::from)?)?;
            }
        }
        connection.execute("COMMIT").await.map_err(CopyOutError::from)?;
        Ok(())
    }

    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

fn statement(columns: Columns, rows: &str) -> String {
    let metadata = if columns.metadata { ", metadata" } else { "" };
    let hash = if columns.hash { ", hash" } else { "" };
    format!(
        "COPY (SELECT partition, position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, \
         recorded_at{metadata}{hash} FROM events {rows}) TO STDOUT (FORMAT binary)"
    )
}
