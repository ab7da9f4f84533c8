//! `verify`: does the log still say what was written, and does everything shown follow from it?

mod anchors;
mod decode;
mod heads;
mod keys;
mod periods;
mod snapshots;
mod walk;

use std::path::PathBuf;

use ed25519_dalek::VerifyingKey;
use serde::Serialize;
use sqlx::PgPool;
use tokio::task::JoinSet;

use crate::connections::Connections;
use crate::diff::diff;
use crate::error::ToolError;
use crate::fold::ReadModel;
use crate::progress::{Progress, Show};
use crate::versions::{Vector, lag_events};

use anchors::{Required, required};
use heads::StoredHead;
use walk::{Walked, walk};

/// Partitions read at the same time.
const VERIFY_WORKERS: usize = 2;

/// Differing rows a projection's check looks at to name the first.
const NAMED_ROWS: i64 = 1;

/// Where the signed heads are that were kept outside the database.
#[derive(Clone, Debug)]
pub struct Anchors {
    /// The folder (`CALOS_ANCHOR_DIR`).
    pub directory: PathBuf,
    /// The ledger's key.
    pub key: VerifyingKey,
}

/// What is verified.
#[derive(Clone)]
pub struct VerifyOptions<'a> {
    /// The seal alone: chain, heads and anchors.
    pub chain_only: bool,
    /// The anchors to hold the log against; without them a cut tail cannot be told.
    pub anchors: Option<Anchors>,
    /// The read models to compare with a fold.
    pub models: &'a [ReadModel],
    /// Where progress is shown.
    pub show: Show,
}

/// One thing that is not as it has to be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The partition, where there is one to name.
    pub partition: Option<i32>,
    /// The position, where there is one to name.
    pub position: Option<i64>,
    /// What is wrong.
    pub what: String,
}

impl Finding {
    fn at(partition: i32, position: i64, what: impl Into<String>) -> Self {
        Self { partition: Some(partition), position: Some(position), what: what.into() }
    }

    fn of(what: impl Into<String>) -> Self {
        Self { partition: None, position: None, what: what.into() }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(partition) = self.partition {
            write!(f, "partition {partition}")?;
            if let Some(position) = self.position {
                write!(f, " position {position}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.what)
    }
}

/// One check: what it looked at, and the first thing it found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Its name.
    pub name: String,
    /// What it looked at, in words.
    pub looked_at: String,
    /// How much it found.
    pub findings: u64,
    /// The first of it.
    pub first: Option<Finding>,
}

impl Check {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), looked_at: String::new(), findings: 0, first: None }
    }

    pub(crate) fn found(&mut self, finding: Finding) {
        self.findings += 1;
        self.first.get_or_insert(finding);
    }

    fn take_in(&mut self, other: Self) {
        self.findings += other.findings;
        self.first = self.first.take().or(other.first);
    }
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(first) = &self.first else { return write!(f, "ok    {}: {}", self.name, self.looked_at) };
        write!(f, "FAIL  {}: {first}", self.name)?;
        if self.findings > 1 { write!(f, " (and {} more)", self.findings - 1) } else { Ok(()) }
    }
}

/// What a verification found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    /// Whether everything is as it has to be.
    pub passed: bool,
    /// Events read.
    pub events: u64,
    /// How long reading them took, in milliseconds.
    pub read_ms: u64,
    /// How many of them a second that is.
    pub events_per_second: u64,
    /// One entry per check, in the order they are shown.
    pub checks: Vec<Check>,
}

impl VerifyReport {
    /// The first finding, with the name of its check.
    #[must_use]
    pub fn first(&self) -> Option<(&str, &Finding)> {
        self.checks.iter().find_map(|check| check.first.as_ref().map(|finding| (check.name.as_str(), finding)))
    }
}

/// Verifies the log as it is at this moment, while appends may go on. `pool` has to log in as the owner.
///
/// # Errors
/// The database failed, or a projection is not installed; what is wrong with the stored data is a finding, not an
/// error.
pub async fn verify(pool: &PgPool, options: &VerifyOptions<'_>) -> Result<VerifyReport, ToolError> {
    verify_watched(pool, options, |_| ()).await
}

/// [`verify`], for a caller that wants to watch: once it is known how much there is to read, `watch` is handed what
/// counts it.
///
/// # Errors
/// As [`verify`].
pub async fn verify_watched(
    pool: &PgPool,
    options: &VerifyOptions<'_>,
    watch: impl FnOnce(&Progress) + Send,
) -> Result<VerifyReport, ToolError> {
    let connections = Connections::beside(pool, u32::try_from(VERIFY_WORKERS).unwrap_or(1));
    let mut connection = connections.connect().await?;
    let (stored, mut heads_check) = heads::read(&mut connection).await?;
    let required = required(pool, options.anchors.as_ref(), &stored).await?;
    let positions: Vector = stored.heads.iter().map(|head| (head.partition, head.position)).collect();
    let progress = Progress::new(options.show, "verify", lag_events(&Vector::new(), &positions));
    watch(&progress);
    let walked = walk_all(&connections, &stored.heads, &required, options.chain_only, &progress).await?;
    progress.finish();

    let events = progress.events();
    let read_ms = u64::try_from(progress.elapsed().as_millis()).unwrap_or(u64::MAX);
    let events_per_second = events.saturating_mul(1_000) / read_ms.max(1);
    let mut sum = Walked::default();
    for (head, partition) in stored.heads.iter().zip(walked) {
        heads::matches(head, &partition, &mut heads_check);
        sum.take_in(partition);
    }
    let Walked { mut contiguity, mut chain, mut anchors, mut streams, mut payloads, subjects, anchored, .. } = sum;
    let partitions = stored.heads.len();
    contiguity.looked_at = format!("{partitions} partitions, {events} events, no position missing");
    chain.looked_at = format!("{events} hashes recomputed from the first event on");
    heads_check.looked_at = format!("{partitions} heads are their partition's last event");
    let mut checks = vec![contiguity, chain, heads_check, required.conclude(&mut anchors, anchored)];
    if !options.chain_only {
        streams.looked_at = "every stream is gapless, in order and in its own partition".to_owned();
        payloads.looked_at = format!("{events} payloads decode as what their name says");
        checks.extend([streams, payloads, keys::check(&mut connection, subjects).await?]);
        checks.push(snapshots::check(&mut connection).await?);
        checks.push(periods::check(&mut connection).await?);
        for &model in options.models {
            checks.push(projection(pool, model, options.show).await?);
        }
    }
    connections.close().await;
    let passed = checks.iter().all(|check| check.first.is_none());
    Ok(VerifyReport { passed, events, read_ms, events_per_second, checks })
}

async fn walk_all(
    connections: &Connections,
    heads: &[StoredHead],
    required: &Required,
    chain_only: bool,
    progress: &Progress,
) -> Result<Vec<Walked>, ToolError> {
    let mut results: Vec<Option<Walked>> = heads.iter().map(|_| None).collect();
    let mut waiting = heads.iter().cloned().enumerate();
    let mut running = JoinSet::new();
    let partitions = u16::try_from(heads.len()).unwrap_or(u16::MAX);
    loop {
        while running.len() < VERIFY_WORKERS {
            let Some((index, head)) = waiting.next() else { break };
            let readers = connections.readers().clone();
            let anchored = required.of(head.partition);
            let counter = progress.counter();
            running
                .spawn(async move { (index, walk(&readers, &head, partitions, anchored, chain_only, counter).await) });
        }
        let Some(ended) = running.join_next().await else { break };
        let (index, walked) =
            ended.map_err(|error| ToolError::Corrupt(format!("a worker ended abnormally: {error}")))?;
        results[index] = Some(walked?);
    }
    Ok(results.into_iter().flatten().collect())
}

/// Whether a projection's rows are what the log gives.
async fn projection(pool: &PgPool, model: ReadModel, show: Show) -> Result<Check, ToolError> {
    let mut check = Check::new(format!("projection {}", model.name()));
    match diff(pool, model, NAMED_ROWS, show).await {
        Ok(report) => {
            let (version, events, aside) = (report.version, report.events, report.dead_letters);
            check.looked_at = format!("version {version} equals a fold of {events} events");
            if aside > 0 {
                check.looked_at.push_str(&format!("; {aside} events are set aside as dead letters"));
            }
            if let Some(first) = report.differences.listed.first() {
                check.found(Finding::of(first.to_string()));
                check.findings = u64::try_from(report.differences.count).unwrap_or(1);
            }
        }
        // Tables that are missing or of another shape, and a log that cannot be folded, are findings about the data.
        Err(ToolError::Database(sqlx::Error::Database(error))) => check.found(Finding::of(error.to_string())),
        Err(error @ (ToolError::Log(_) | ToolError::Corrupt(_))) if error.exit() == crate::error::Exit::Failed => {
            check.found(Finding::of(error.to_string()));
        }
        Err(error) => return Err(error),
    }
    for (partition, halted) in unfit_checkpoints(pool, model).await? {
        check.found(Finding {
            partition: Some(partition),
            position: None,
            what: halted.map_or_else(|| "it has no checkpoint".to_owned(), |why| format!("it halted: {why}")),
        });
    }
    Ok(check)
}

/// The partitions in which a live read model does not follow the log, and why it halted, where that is the reason.
async fn unfit_checkpoints(pool: &PgPool, model: ReadModel) -> Result<Vec<(i32, Option<String>)>, ToolError> {
    let rows = sqlx::query_as(
        "SELECT h.partition, c.halted FROM partitions h JOIN projections p ON p.name = $1 \
         LEFT JOIN checkpoints c ON c.projection = p.name AND c.version = p.live_version AND c.partition = h.partition \
         WHERE c.partition IS NULL OR c.halted IS NOT NULL ORDER BY h.partition",
    );
    Ok(rows.bind(model.name()).fetch_all(pool).await?)
}
