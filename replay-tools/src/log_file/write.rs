//! Writing the log down: heads and small tables as of one snapshot, then the events up to those heads.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use calos_adapters::anchors::{Anchor, AnchoredHead};
use calos_adapters::epochs;
use calos_adapters::postgres::{Timestamptz, flush_seen};
use calos_projections::copy_out::read_slice;
use calos_projections::{Columns, LogSlice, ReadStopped};

use super::parquet::ParquetLog;
use super::tables::{SmallTable, Tables};
use super::{End, FORMAT, Header, Line, LogFormat, Stored, Tails, beginning, blocking, line_bytes};
use crate::connections::{Connections, run_sql};
use crate::error::ToolError;
use crate::export::{put_in_place, unfinished};
use crate::fold::steps;
use crate::operation::now;
use crate::progress::{Counter, Progress, Show};

/// Slices read at the same time.
const WRITE_WORKERS: usize = 2;

/// Events in a slice.
const WRITE_STEP_EVENTS: i64 = 4_096;

/// Rows of small tables are written once their lines fill this much.
const ROWS_FLUSH_BYTES: usize = 1024 * 1024;

/// A log is everything anybody ever did, and there may be keys beside it.
const OWNER_ONLY: u32 = 0o600;

/// How hard zstd works: its own default, which writes as fast as the log is read.
const ZSTD_LEVEL: i32 = 3;

/// What is written, and where.
pub(crate) struct Plan<'a> {
    pub(crate) format: LogFormat,
    pub(crate) tables: Tables,
    /// Which file of a backup.
    pub(crate) number: u32,
    /// Only what comes after these heads, which the log has to hold; from its beginning without.
    pub(crate) after: Option<(Uuid, Vec<AnchoredHead>)>,
    pub(crate) path: &'a Path,
    pub(crate) force: bool,
    pub(crate) show: Show,
}

/// Writes the log to a file, which has a temporary name until it is whole. Answers its header and what it had.
///
/// # Errors
/// [`ToolError::Usage`] when the file is there already, [`ToolError::Corrupt`] when the log is not what was sealed: a file
/// that could not be read back is not written; and whatever else ended it.
pub(crate) async fn write(pool: &PgPool, key: &SigningKey, plan: Plan<'_>) -> Result<(Header, u64), ToolError> {
    if plan.format == LogFormat::Parquet && plan.tables != Tables::None {
        return Err(ToolError::Usage("keys are written to JSON lines only".to_owned()));
    }
    let (path, force) = (plan.path, plan.force);
    let unfinished = unfinished(path, force)?;
    let connections = Connections::beside(pool, u32::try_from(WRITE_WORKERS).unwrap_or(1));
    let written = write_to(&connections, key, plan, unfinished.path().to_owned()).await;
    connections.close().await;
    let written = written?;
    // What is signed must outlive a crash of the database, or the next file would not fit behind this one.
    flush_seen(pool).await?;
    put_in_place(unfinished.path(), path, force)?;
    Ok(written)
}

async fn write_to(
    connections: &Connections,
    key: &SigningKey,
    plan: Plan<'_>,
    path: PathBuf,
) -> Result<(Header, u64), ToolError> {
    let mut connection = connections.connect().await?;
    let mut snapshot = connection.begin().await?;
    run_sql(&mut snapshot, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let header = header(&mut snapshot, key, &plan).await?;
    let progress = Progress::new(plan.show, "log", header.events());
    let mut out = Out::begin(plan.format, path, &header).await?;
    for table in plan.tables.list() {
        out = write_rows(&mut snapshot, table, out).await?;
    }
    // Keys and heads are of one moment; the events up to those heads stay as they are without a snapshot.
    snapshot.rollback().await?;
    connection.close().await?;
    let (out, events) = write_events(connections, out, &header, &progress).await?;
    out.end(key.clone(), header.log_id(), events).await?;
    progress.finish();
    Ok((header, events))
}

async fn write_rows(snapshot: &mut PgConnection, table: SmallTable, mut out: Out) -> Result<Out, ToolError> {
    let text = table.select();
    let mut rows = sqlx::query_scalar::<_, String>(&text).fetch(snapshot);
    let (mut waiting, mut lines) = (Vec::new(), 0);
    while let Some(row) = rows.try_next().await? {
        let row = serde_json::from_str(&row).map_err(std::io::Error::from)?;
        waiting.extend_from_slice(&line_bytes(&Line::Row { table: table.name.into(), row })?);
        lines += 1;
        if waiting.len() >= ROWS_FLUSH_BYTES {
            out = out.rows(std::mem::take(&mut waiting), std::mem::take(&mut lines)).await?;
        }
    }
    out.rows(waiting, lines).await
}

async fn header(snapshot: &mut PgConnection, key: &SigningKey, plan: &Plan<'_>) -> Result<Header, ToolError> {
    let (log_id, partitions): (Uuid, i32) =
        sqlx::query_as("SELECT log_id, partitions FROM log").fetch_one(&mut *snapshot).await?;
    let rows: Vec<(i32, i64, Timestamptz, Vec<u8>)> =
        sqlx::query_as("SELECT partition, last_position, last_recorded_at, head_hash FROM heads ORDER BY partition")
            .fetch_all(&mut *snapshot)
            .await?;
    let head = |row: &(i32, i64, Timestamptz, Vec<u8>)| AnchoredHead {
        partition: row.0,
        position: row.1,
        hash: hex::encode(&row.3),
    };
    let heads = rows.iter().map(head).collect();
    let partitions = u16::try_from(partitions).unwrap_or_default();
    let after = match &plan.after {
        None => beginning(partitions),
        Some((log, after)) if *log == log_id => {
            still_there(snapshot, after).await?;
            after.clone()
        }
        Some((log, _)) => return Err(ToolError::Usage(format!("that is of the log {log}, and this is {log_id}"))),
    };
    let epochs = epochs::read_rows(snapshot).await.map_err(|error| ToolError::Corrupt(error.to_string()))?;
    let header = Header {
        format: FORMAT.to_owned(),
        partitions,
        number: plan.number,
        after,
        heads: Anchor::sign(key, log_id, now(), heads),
        clocks: rows.iter().map(|row| row.2.0).collect(),
        epochs,
        tables: plan.tables.list().map(|table| table.name.to_owned()).collect(),
    };
    // A file that its own reader would refuse helps nobody: an epoch of another key, a partition without a head.
    header.check(Some(&key.verifying_key())).map_err(|what| ToolError::Corrupt(format!("the log: {what}")))?;
    Ok(header)
}

/// Whether the log still holds what an earlier file went up to.
async fn still_there(snapshot: &mut PgConnection, heads: &[AnchoredHead]) -> Result<(), ToolError> {
    for head in heads.iter().filter(|head| head.position > 0) {
        let stored: Option<String> =
            sqlx::query_scalar("SELECT encode(hash, 'hex') FROM events WHERE partition = $1 AND position = $2")
                .bind(head.partition)
                .bind(head.position)
                .fetch_optional(&mut *snapshot)
                .await?;
        if stored.as_ref() != Some(&head.hash) {
            let (partition, position) = (head.partition, head.position);
            return Err(ToolError::Refused(format!(
                "the log does not hold {partition}:{position} as it was backed up: it was put back to an earlier point \
                 since; take a new backup of all of it"
            )));
        }
    }
    Ok(())
}

/// Every event between the header's two rows of heads, in order; each is checked before it is written.
async fn write_events(
    connections: &Connections,
    mut out: Out,
    header: &Header,
    progress: &Progress,
) -> Result<(Out, u64), ToolError> {
    let broken = |what: String| ToolError::Corrupt(format!("the log is not what was sealed: {what}"));
    let mut tails = Tails::at(&header.after).ok_or_else(|| broken("a head's hash is none".to_owned()))?;
    let pairs = header.after.iter().zip(&header.heads.heads);
    let slices: Vec<LogSlice> = pairs
        .flat_map(|(after, head)| steps(head.partition, after.position, head.position, WRITE_STEP_EVENTS))
        .collect();
    let mut parts =
        stream::iter(slices)
            .map(|slice| {
                let (readers, counter) = (connections.readers().clone(), progress.counter());
                let reading = tokio::spawn(async move { read(&readers, slice, counter).await });
                async move {
                    reading.await.map_err(|error| ToolError::Corrupt(format!("a reader ended abnormally: {error}")))?
                }
            })
            .buffered(WRITE_WORKERS);
    let mut events = 0_u64;
    while let Some(part) = parts.next().await {
        let part = part?;
        events += u64::try_from(part.len()).unwrap_or(u64::MAX);
        (out, tails) = out.events(part, tails).await?;
    }
    tails.end_at(&header.heads.heads).map_err(broken)?;
    Ok((out, events))
}

async fn read(readers: &PgPool, slice: LogSlice, mut counter: Counter) -> Result<Vec<Stored>, ToolError> {
    let mut events = Vec::with_capacity(usize::try_from(slice.through - slice.after).unwrap_or_default());
    let read = read_slice(readers, slice, Columns::SEALED, |row| {
        counter.event();
        events.push(Stored::of(&row.record, row.hash)?);
        Ok(())
    });
    match read.await {
        Ok(_) => Ok(events),
        Err(ReadStopped::Log(error)) => Err(error.into()),
        Err(ReadStopped::Reader(error)) => Err(error),
    }
}

/// A file on its way, in one of its formats.
enum Format {
    Jsonl(zstd::Encoder<'static, File>),
    Parquet(Box<ParquetLog>),
}

struct Out {
    format: Format,
    digest: Sha256,
    rows: u64,
}

impl Out {
    async fn begin(format: LogFormat, path: PathBuf, header: &Header) -> Result<Self, ToolError> {
        let line = line_bytes(&Line::Log(Box::new(header.clone())))?;
        blocking(move || {
            let file = File::options().write(true).create_new(true).mode(OWNER_ONLY).open(path)?;
            let digest = Sha256::new_with_prefix(&line);
            let format = match format {
                LogFormat::Jsonl => {
                    let mut encoder = zstd::Encoder::new(file, ZSTD_LEVEL)?;
                    encoder.include_checksum(true)?;
                    encoder.write_all(&line)?;
                    Format::Jsonl(encoder)
                }
                LogFormat::Parquet => Format::Parquet(Box::new(ParquetLog::begin(file, &line)?)),
            };
            Ok(Self { format, digest, rows: 0 })
        })
        .await
    }

    /// Lines of small tables, which only JSON lines have.
    async fn rows(mut self, lines: Vec<u8>, rows: u64) -> Result<Self, ToolError> {
        blocking(move || {
            self.digest.update(&lines);
            if let Format::Jsonl(encoder) = &mut self.format {
                encoder.write_all(&lines)?;
            }
            self.rows += rows;
            Ok(self)
        })
        .await
    }

    async fn events(mut self, events: Vec<Stored>, mut tails: Tails) -> Result<(Self, Tails), ToolError> {
        blocking(move || {
            for event in &events {
                let broken = |what| ToolError::Corrupt(format!("the log is not what was sealed: {what}"));
                tails.take(event).map_err(broken)?;
                if let Format::Jsonl(encoder) = &mut self.format {
                    encoder.write_all(&line_bytes(&event.line())?)?;
                }
            }
            if let Format::Parquet(file) = &mut self.format {
                file.write(events)?;
            }
            Ok((self, tails))
        })
        .await
    }

    async fn end(self, key: SigningKey, log_id: Uuid, events: u64) -> Result<(), ToolError> {
        blocking(move || {
            let end = End::sign(&key, log_id, events, self.rows, self.digest);
            let line = line_bytes(&Line::End(end))?;
            let file = match self.format {
                Format::Jsonl(mut encoder) => {
                    encoder.write_all(&line)?;
                    encoder.finish()?
                }
                Format::Parquet(file) => file.end(&line)?,
            };
            Ok(file.sync_all()?)
        })
        .await
    }
}
