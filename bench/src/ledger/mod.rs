//! `calos-bench ledger`: a year of the book, asked as of any moment, verified, exported and rebuilt.

pub(crate) mod bulk;
pub(crate) mod history;
mod questions;
mod report;
mod tool;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use calos_adapters::postgres;
use calos_adapters::postgres::log::{LogOptions, PgLog};
use calos_domain::Timestamp;
use calos_domain::time::SECONDS_PER_DAY;
use calos_replay::ReadModel;
use calos_replay::export::Format;

use crate::arena::{Arena, Fresh};
use crate::cli::LedgerArguments;
use crate::copy_baseline::{self, CapturedRows, Keys, Plan};
use crate::error::BenchError;
use crate::machine::Machine;
use crate::progress::Progress;
use crate::rebuild::{self, Models};
use crate::stats::{Run, count_as_f64};

use history::{HISTORY_SECONDS, Shape};
use report::{Answered, Bulk, LedgerReport, verdicts};
use tool::{Ran, Tool};

const ENTRIES: u64 = 1_000_000;
const QUICK_ENTRIES: u64 = 100_000;
/// How often each question is asked.
const ASKED: u32 = 400;
const QUICK_ASKED: u32 = 80;
/// Up to so many entries answers are held against the entries themselves, which takes as long as there are entries.
const CHECKED_MAX_ENTRIES: u64 = 2_000_000;
/// Connections of the pool the questions are asked over.
const ASKING_CONNECTIONS: u32 = 2;
/// Connections of the log that rebuilds record themselves in.
const LOG_CONNECTIONS: u32 = 4;
/// Connections that `COPY` drains the log over.
const DRAINING_CONNECTIONS: usize = 2;
const FORMATS: [Format; 4] = [Format::Csv, Format::Jsonl, Format::Hledger, Format::Parquet];

/// The rows of events, and the sums over them.
const ROWS: [&str; 2] = ["journal", "usage_log"];
const SUMS: [&str; 4] = ["account_balances", "trial_balance", "wallet_days", "open_grants"];

/// Runs everything.
///
/// # Errors
/// The machine is not fit to measure on, or something measured did other work than it should have.
pub async fn run(arena: &Arena, arguments: &LedgerArguments, progress: &Progress) -> Result<LedgerReport, BenchError> {
    let machine = Machine::describe(&mut *arena.admin().await, &arena.meter).await?;
    if machine.build == "debug" {
        progress.say("this is a debug build: its figures say nothing about CALOS");
    }
    let quick = arguments.quick;
    let events = arguments.entries.unwrap_or(if quick { QUICK_ENTRIES } else { ENTRIES });
    let tenants = usize::from(arguments.tenants);
    let shape = Shape { events, tenants, begin: begin() };
    let fresh = arena.with_log("ledger").await?;
    let tool = Tool::beside(&fresh, &arena.meter)?;

    progress.say(&format!("a year of {tenants} tenants, {events} events"));
    let filled = bulk::fill(&fresh, shape).await?;
    progress.say(&format!("{} events stand, {} of them in ten minutes", filled.events, filled.in_burst));

    let mut stage = Stage { arena, progress, fresh: &fresh, bulk: Vec::new() };
    let (drained, how) = stage.drain().await?;
    stage.done("copy_out", format!("binary COPY of the events to nowhere, {how}"), "event", &drained);
    let (rows, sums) = (models(&ROWS)?, models(&SUMS)?);
    stage.fold(&rows, &sums).await?;
    let entries = count(&fresh, "read.journal").await?;

    if entries <= CHECKED_MAX_ENTRIES {
        stage.check(&shape).await?;
    }
    let answered = stage.ask(&shape, if quick { QUICK_ASKED } else { ASKED }).await?;
    stage.tools(&tool, entries).await?;
    stage.copies("journal_and_usage", "journal and usage", &rows).await?;
    stage.copies("sums", "sums of the book", &sums).await?;
    let bulk = stage.bulk;
    arena.drop_database(fresh).await?;
    Ok(LedgerReport {
        measurement: "ledger",
        quick,
        took_seconds: progress.seconds(),
        machine,
        events: filled.events,
        entries,
        burst_events: filled.in_burst,
        tenants,
        verdicts: verdicts(&answered, &bulk),
        answered,
        bulk,
    })
}

/// The year ends yesterday: what is recorded today comes after it.
pub(crate) fn begin() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or_default());
    Timestamp::of_utc_day(now.utc_day() - HISTORY_SECONDS / SECONDS_PER_DAY - 1)
}

fn models(names: &[&str]) -> Result<Vec<ReadModel>, BenchError> {
    names.iter().map(|name| rebuild::find(name)).collect()
}

fn micros_each(cpu: Duration, count: u64) -> f64 {
    const MICROS_PER_SECOND: f64 = 1e6;
    cpu.as_secs_f64() * MICROS_PER_SECOND / count_as_f64(count.max(1))
}

async fn count(fresh: &Fresh, table: &str) -> Result<u64, BenchError> {
    let pool = fresh.pool(1).await?;
    let count: i64 = sqlx::query_scalar(&format!("SELECT count(*) FROM {table}")).fetch_one(&pool).await?;
    pool.close().await;
    Ok(u64::try_from(count).unwrap_or_default())
}

struct Stage<'a> {
    arena: &'a Arena,
    progress: &'a Progress,
    fresh: &'a Fresh,
    bulk: Vec<Bulk>,
}

impl Stage<'_> {
    fn done(&mut self, name: &str, what: String, unit: &'static str, run: &Run) {
        self.progress.rate(&what, run.rate(), unit);
        self.bulk.push(Bulk {
            name: name.to_owned(),
            what,
            unit,
            count: run.operations,
            seconds: run.elapsed.as_secs_f64(),
            per_second: run.rate(),
            peak_mib: None,
            cpu_micros: run.cpu.map(|cpu| micros_each(cpu.client, run.operations)),
            postgres_cpu_micros: run.cpu.and_then(|cpu| cpu.postgres).map(|cpu| micros_each(cpu, run.operations)),
            bytes: None,
        });
    }

    fn ran(
        &mut self,
        name: &str,
        what: String,
        (unit, count): (&'static str, u64),
        ran: &Ran,
        postgres: Option<Duration>,
    ) {
        let seconds = ran.elapsed.as_secs_f64();
        let per_second = count_as_f64(count) / seconds.max(f64::MIN_POSITIVE);
        let (name, peak_mib, bytes) = (name.to_owned(), ran.peak_mib, Some(ran.bytes));
        let cpu_micros = ran.cpu.map(|cpu| micros_each(cpu, count));
        let postgres_cpu_micros = postgres.map(|cpu| micros_each(cpu, count));
        let peak = peak_mib.map_or_else(String::new, |peak| format!(", {peak} MiB"));
        self.progress.say(&format!("{what}: {per_second:.0} a second{peak}"));
        self.bulk.push(Bulk {
            name,
            what,
            unit,
            count,
            seconds,
            per_second,
            peak_mib,
            cpu_micros,
            postgres_cpu_micros,
            bytes,
        });
    }

    /// The better way of the two in which the log can be sent.
    async fn drain(&self) -> Result<(Run, &'static str), BenchError> {
        let along = copy_baseline::drain(self.arena, self.fresh, DRAINING_CONNECTIONS, Plan::Index).await?;
        let free = copy_baseline::drain(self.arena, self.fresh, DRAINING_CONNECTIONS, Plan::Free).await?;
        Ok(if along.rate() > free.rate() { (along, "along the index") } else { (free, "planned freely") })
    }

    /// Builds the read models by a rebuild, rows from one reading of the log and sums from another.
    async fn fold(&mut self, rows: &[ReadModel], sums: &[ReadModel]) -> Result<(), BenchError> {
        let pool = postgres::connect(&self.fresh.url(), LOG_CONNECTIONS).await?;
        let log = PgLog::open(pool.clone(), LogOptions::default()).await?;
        let all: Vec<ReadModel> = rows.iter().chain(sums).copied().collect();
        let models = Models::lost(self.fresh, log.clone(), &all).await?;
        for (name, what, models_of) in
            [("rebuild_journal_and_usage", "journal and usage", rows), ("rebuild_sums", "sums of the book", sums)]
        {
            let run = models.restore(self.arena, models_of).await?;
            self.done(name, format!("CALOS, rebuild of {what}"), "event", &run);
        }
        models.at_the_head(&all).await?;
        models.close().await;
        log.close().await;
        pool.close().await;
        Ok(())
    }

    async fn check(&self, shape: &Shape) -> Result<(), BenchError> {
        let pool = self.fresh.pool(1).await?;
        questions::check(&pool, shape).await?;
        pool.close().await;
        self.progress.say("the trial balance is the sum of its entries");
        Ok(())
    }

    async fn ask(&self, shape: &Shape, count: u32) -> Result<Vec<Answered>, BenchError> {
        self.arena.settle().await?;
        let pool = self.fresh.pool(ASKING_CONNECTIONS).await?;
        let answered = questions::ask(&pool, shape, count, self.progress).await?;
        pool.close().await;
        Ok(answered)
    }

    async fn tools(&mut self, tool: &Tool, entries: u64) -> Result<(), BenchError> {
        tool.anchor(self.fresh).await?;
        let before = self.arena.meter.of_postgres();
        let (ran, events) = tool.verify_chain().await?;
        let postgres = self.postgres_since(before);
        self.ran("verify_chain", "verify --chain".to_owned(), ("event", events), &ran, postgres);
        for format in FORMATS {
            let before = self.arena.meter.of_postgres();
            let ran = tool.export(format, entries).await?;
            let postgres = self.postgres_since(before);
            let name = tool::name(format);
            let what = format!("export journal, {name}");
            self.ran(&format!("export_{name}"), what, ("entry", entries), &ran, postgres);
        }
        Ok(())
    }

    fn postgres_since(&self, before: Option<Duration>) -> Option<Duration> {
        self.arena.meter.of_postgres().zip(before).map(|(now, before)| now.saturating_sub(before))
    }

    /// What this PostgreSQL takes to load the same rows into the same tables, already made.
    async fn copies(&mut self, name: &str, what: &str, models: &[ReadModel]) -> Result<(), BenchError> {
        let mut owner = self.fresh.connect().await?;
        let mut captured: Vec<CapturedRows> = Vec::new();
        for table in models.iter().flat_map(|model| model.tables()) {
            captured.push(copy_baseline::capture(&mut owner, table).await?);
        }
        sqlx::Connection::close(owner).await?;
        let first = copy_baseline::load(self.arena, self.fresh, &captured, Keys::First).await?;
        self.done(&format!("copy_in_{name}"), format!("binary COPY into {what}, keys and all"), "row", &first);
        let last = copy_baseline::load(self.arena, self.fresh, &captured, Keys::Last).await?;
        self.done(&format!("copy_in_{name}_keys_last"), format!("binary COPY into {what}, then keys"), "row", &last);
        Ok(())
    }
}
