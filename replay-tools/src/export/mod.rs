//! `export journal`: the book as a file, every entry of it, as of one point of the log.
//!
//! The entries are made from the log itself, by the domain's own rules ([`calos_domain::book`]), and not read from the
//! read model that shows them: an export that an auditor is handed must not depend on how far a projection has come, on
//! a dead letter or on a row somebody changed, and the log is read faster than the read model could be (a binary `COPY`
//! of a partition in its order, against rows scattered over a table by tenant).
//!
//! The heads of all partitions are taken first and written into the export: it holds everything up to them and nothing
//! beyond. The log is cut into slices; a few are read and written down at the same time, and handed out in order, so that
//! the same heads always give the same bytes and memory does not grow with the log. A slice that cannot be read to its end
//! ends the export with an error, and what was handed out until then lacks its end: each format says how that is told.

mod file;
mod parquet;
mod rows;
mod slice;
mod text;

use std::sync::Arc;

use bytes::Bytes;
use clap::ValueEnum;
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uuid::Uuid;

use calos_adapters::postgres::partitioning::partition_of;
use calos_domain::{TenantId, Timestamp};
use calos_projections::LogSlice;

use crate::connections::Connections;
use crate::error::ToolError;
use crate::fold::steps;
use crate::progress::{Progress, Show};
use crate::versions::{Vector, heads_of};

pub use file::to_file;
pub(crate) use file::{put_in_place, unfinished};
use parquet::ParquetFile;
use slice::{Part, Written, read};

/// Slices read at the same time.
const EXPORT_WORKERS: usize = 2;

/// Events in a slice: enough that a statement more does not count, few enough that their text is a few megabytes.
const EXPORT_STEP_EVENTS: i64 = 8_192;

/// Pieces are handed out in at most this size.
const PIECE_MAX_BYTES: usize = 256 * 1024;

/// Pieces that may wait to be taken.
const PIECES_WAITING_MAX: usize = 8;

/// How the journal is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One row per posting; lines that begin with `#` say where the export stands, and the last one that it is whole.
    Csv,
    /// One row per posting, with whole amounts in the smallest unit of the asset; a file without its footer cannot be read.
    Parquet,
    /// hledger's journal, for `hledger check -s`; the last line says that it is whole.
    Hledger,
    /// One object per entry, between a first one that says where the export stands and a last one that it is whole.
    Jsonl,
}

impl Format {
    const fn text(self) -> Option<TextFormat> {
        match self {
            Self::Csv => Some(TextFormat::Csv),
            Self::Parquet => None,
            Self::Hledger => Some(TextFormat::Hledger),
            Self::Jsonl => Some(TextFormat::Jsonl),
        }
    }

    /// How the name of such a file ends.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Parquet => "parquet",
            Self::Hledger => "journal",
            Self::Jsonl => "jsonl",
        }
    }

    /// How it is called over HTTP.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            Self::Parquet => "application/vnd.apache.parquet",
            Self::Hledger => "text/plain; charset=utf-8",
            Self::Jsonl => "application/jsonl; charset=utf-8",
        }
    }
}

/// The formats that are text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TextFormat {
    Csv,
    Hledger,
    Jsonl,
}

/// What happens to the accounts of holds, of which there is one per call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Holds {
    /// Each has its own, as in the book.
    #[default]
    Each,
    /// A tenant's holds share one, `Liabilities:Wallet:{tenant}:Held`: hledger takes hours over a million accounts.
    Together,
}

/// What is exported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JournalExport {
    /// How.
    pub format: Format,
    /// One tenant's entries alone; payouts and everybody else's are left out.
    pub tenant: Option<TenantId>,
    /// Only what took effect at this moment or later.
    pub from: Option<Timestamp>,
    /// Only what took effect before this moment.
    pub to: Option<Timestamp>,
    /// The accounts of holds.
    pub holds: Holds,
}

impl JournalExport {
    /// The whole journal.
    #[must_use]
    pub const fn whole(format: Format) -> Self {
        Self { format, tenant: None, from: None, to: None, holds: Holds::Each }
    }

    fn takes(&self, effective_at: Timestamp) -> bool {
        self.from.is_none_or(|from| effective_at >= from) && self.to.is_none_or(|to| effective_at < to)
    }
}

/// What an export contains.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exported {
    /// Which log.
    pub log_id: Uuid,
    /// The last position of every partition of the log when it was begun.
    pub heads: Vector,
    /// Events read.
    pub events: u64,
    /// Entries written: one per event and asset.
    pub entries: u64,
    /// Their postings.
    pub postings: u64,
}

/// An export on its way: its pieces, and how it ended.
pub struct JournalStream {
    pieces: mpsc::Receiver<Bytes>,
    /// None once its answer was taken.
    task: Option<JoinHandle<Result<Exported, ToolError>>>,
}

/// Begins an export of what the log holds now, over connections of its own to the database of `pool`; the role needs
/// nothing but to read the log. Dropping the answer stops it.
#[must_use]
pub fn journal(pool: PgPool, export: JournalExport, show: Show) -> JournalStream {
    let (out, pieces) = mpsc::channel(PIECES_WAITING_MAX);
    let task = tokio::spawn(async move { run(&pool, export, show, &out).await });
    JournalStream { pieces, task: Some(task) }
}

impl JournalStream {
    /// The next piece; none when there are no more, which says nothing about why: see [`Self::finish`].
    pub async fn next(&mut self) -> Option<Bytes> {
        self.pieces.recv().await
    }

    /// How it ended, once [`Self::next`] has given the last piece.
    ///
    /// # Errors
    /// Whatever ended it before its end; what was handed out is not the whole then.
    pub async fn finish(mut self) -> Result<Exported, ToolError> {
        self.pieces.close();
        let Some(task) = self.task.as_mut() else { return Err(ToolError::Cancelled) };
        let ended = task.await;
        self.task = None;
        ended.map_err(|error| ToolError::Corrupt(format!("the export ended abnormally: {error}")))?
    }

    /// The same as a stream, as an HTTP response has it for its body: an export that fails ends with the error, so that the
    /// response is broken off and never looks whole.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, ToolError>> + Send + 'static {
        stream::unfold(Some(self), |journal| async move {
            let mut journal = journal?;
            match journal.next().await {
                Some(piece) => Some((Ok(piece), Some(journal))),
                None => match journal.finish().await {
                    Ok(_) => None,
                    Err(error) => Some((Err(error), None)),
                },
            }
        })
    }
}

impl Drop for JournalStream {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn run(
    pool: &PgPool,
    export: JournalExport,
    show: Show,
    out: &mpsc::Sender<Bytes>,
) -> Result<Exported, ToolError> {
    let connections = Connections::beside(pool, u32::try_from(EXPORT_WORKERS).unwrap_or(1));
    let ended = write(connections.readers(), export, show, out).await;
    connections.close().await;
    ended
}

async fn write(
    readers: &PgPool,
    export: JournalExport,
    show: Show,
    out: &mpsc::Sender<Bytes>,
) -> Result<Exported, ToolError> {
    let log_id: Uuid = sqlx::query_scalar("SELECT log_id FROM log").fetch_one(readers).await?;
    let mut exported = Exported { log_id, heads: heads_of(readers).await?, ..Exported::default() };
    let slices = slices(&exported.heads, export.tenant);
    let events = slices.iter().map(|slice| slice.through.abs_diff(slice.after)).sum();
    let progress = Progress::new(show, "export", events);
    let mut writer = Writer::begin(export, &exported)?;
    send(out, writer.take()).await?;

    let export = Arc::new(export);
    let mut parts =
        stream::iter(slices)
            .map(|slice| {
                let (readers, export, counter) = (readers.clone(), Arc::clone(&export), progress.counter());
                let reading = tokio::spawn(async move { read(&readers, slice, &export, counter).await });
                async move {
                    reading.await.map_err(|error| ToolError::Corrupt(format!("a reader ended abnormally: {error}")))?
                }
            })
            .buffered(EXPORT_WORKERS);
    while let Some(part) = parts.next().await {
        let Part { written, events, entries, postings } = part?;
        exported.events += events;
        exported.entries += entries;
        exported.postings += postings;
        writer = writer.write(written).await?;
        send(out, writer.take()).await?;
    }
    send(out, writer.end(&exported).await?).await?;
    progress.finish();
    Ok(exported)
}

/// The log in slices, partition by partition; of a tenant only the partition that is its own.
fn slices(heads: &Vector, tenant: Option<TenantId>) -> Vec<LogSlice> {
    let partitions = u16::try_from(heads.len()).unwrap_or(u16::MAX);
    let only = tenant.map(|tenant| partition_of(&tenant.to_string(), partitions));
    let taken = heads.iter().filter(|(partition, _)| only.is_none_or(|only| only == **partition));
    taken.flat_map(|(&partition, &through)| steps(partition, 0, through, EXPORT_STEP_EVENTS)).collect()
}

/// Hands out in pieces; an error when nobody takes them any more.
async fn send(out: &mpsc::Sender<Bytes>, bytes: Vec<u8>) -> Result<(), ToolError> {
    let mut bytes = Bytes::from(bytes);
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(PIECE_MAX_BYTES));
        let gone = || std::io::Error::new(std::io::ErrorKind::BrokenPipe, "nobody reads the export any more");
        out.send(piece).await.map_err(|_| gone())?;
    }
    Ok(())
}

/// What puts the parts together.
enum Writer {
    /// Text stands as it is, between its head and its end.
    Text { format: TextFormat, ready: Vec<u8> },
    /// Rows are gathered to groups.
    Parquet(Box<ParquetFile>),
}

impl Writer {
    fn begin(export: JournalExport, exported: &Exported) -> Result<Self, ToolError> {
        Ok(match export.format.text() {
            None => Self::Parquet(Box::new(ParquetFile::begin(export, exported)?)),
            Some(format) => Self::Text { format, ready: text::head(format, export, exported)? },
        })
    }

    async fn write(self, written: Written) -> Result<Self, ToolError> {
        match (self, written) {
            (Self::Text { format, mut ready }, Written::Text(_, text)) => {
                ready.extend_from_slice(&text);
                Ok(Self::Text { format, ready })
            }
            (Self::Parquet(mut file), Written::Rows(rows)) => {
                // Encoding a group takes tens of milliseconds, which no other task should wait for.
                let encoded = tokio::task::spawn_blocking(move || file.write(*rows).map(|()| file)).await;
                let file =
                    encoded.map_err(|error| ToolError::Corrupt(format!("the encoder ended abnormally: {error}")));
                Ok(Self::Parquet(file??))
            }
            (Self::Text { .. } | Self::Parquet(_), Written::Text(..) | Written::Rows(_)) => {
                Err(ToolError::Corrupt("a part of the export is of another format".to_owned()))
            }
        }
    }

    /// What is ready to be handed out.
    fn take(&mut self) -> Vec<u8> {
        match self {
            Self::Text { ready, .. } => std::mem::take(ready),
            Self::Parquet(file) => file.take(),
        }
    }

    async fn end(self, exported: &Exported) -> Result<Vec<u8>, ToolError> {
        match self {
            Self::Text { format, mut ready } => {
                text::end(format, exported, &mut ready)?;
                Ok(ready)
            }
            Self::Parquet(file) => {
                let exported = exported.clone();
                let ended = tokio::task::spawn_blocking(move || file.end(&exported)).await;
                ended.map_err(|error| ToolError::Corrupt(format!("the encoder ended abnormally: {error}")))?
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_every_partition_in_order_and_a_tenants_own_alone() {
        let heads: Vector = [(0, 3), (1, EXPORT_STEP_EVENTS + 1), (2, 0), (3, 1)].into();
        let cut: Vec<_> =
            slices(&heads, None).iter().map(|slice| (slice.partition, slice.after, slice.through)).collect();
        let step = EXPORT_STEP_EVENTS;
        assert_eq!(cut, [(0, 0, 3), (1, 0, step), (1, step, step + 1), (3, 0, 1)]);
        for id in 0..50 {
            let tenant = TenantId(Uuid::from_u128(id));
            let own = partition_of(&tenant.to_string(), 4);
            assert!(slices(&heads, Some(tenant)).iter().all(|slice| slice.partition == own));
        }
    }

    #[test]
    fn the_first_moment_counts_and_the_last_does_not() {
        let at = Timestamp::from_micros;
        let export = JournalExport { from: Some(at(10)), to: Some(at(20)), ..JournalExport::whole(Format::Csv) };
        assert_eq!([9, 10, 19, 20].map(|micros| export.takes(at(micros))), [false, true, true, false]);
    }
}
