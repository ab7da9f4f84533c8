//! `calos-bench live`: read models are rebuilt while callers write. What the callers notice of it, whether anything is lost, and
//! whether the tool says rightly how long it will take.

mod foretold;
mod paced;
mod report;

use std::time::{Duration, Instant};

use calos_adapters::postgres;
use calos_projections::{Runner, RunnerHandle, RunnerOptions, registry, status};
use calos_replay::ReadModel;
use calos_replay::rebuild::REBUILD_WORKERS;
use sqlx::PgPool;

use crate::arena::Arena;
use crate::calos::CalosLog;
use crate::cli::LiveArguments;
use crate::drive::Window;
use crate::error::BenchError;
use crate::ledger::bulk;
use crate::ledger::history::Shape;
use crate::machine::{self, Machine};
use crate::progress::Progress;
use crate::rebuild::{self, Live, Models};
use crate::stats::{Label, Run, Scenario, count_as_f64};
use crate::workload::{EVENTS_PER_CHARGE, Spread};

pub use foretold::{Foretold, Looking};

use paced::{Paced, Pacer, Span};
use report::{LiveReport, Noticed, Round, StepNoticed};

const EVENTS: u64 = 1_000_000;
const QUICK_EVENTS: u64 = 100_000;
const ROUNDS: u16 = 3;
/// As long as a rebuild takes, about: PostgreSQL's own work, its checkpoints and vacuums, belongs to both.
const SECONDS: u16 = 40;
const QUICK_SECONDS: u16 = 3;
/// Tenants of the history that stands in the log before anybody calls.
const HISTORY_TENANTS: usize = 400;
/// Before the closed loop counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// Callers are let loose no longer than it takes to see how fast they are.
const FASTEST_MAX: Duration = Duration::from_secs(10);
/// Between two moments of the measurement: what one leaves behind is not the other's.
const PAUSE: Duration = Duration::from_secs(1);
/// Connections of the live read models' runner, as the server has them for it.
const RUNNER_CONNECTIONS_MAX: u32 = 4;
/// How long the live read models may take to come to the head.
const CATCH_UP_MAX: Duration = Duration::from_secs(600);
const CATCH_UP_LOOK_EVERY: Duration = Duration::from_millis(50);
const PERCENT: f64 = 100.0;

/// What a rebuild does before it names a step.
const READING: &str = "reading and folding";

/// What is rebuilt: the balances, and two views with a row per event.
const REBUILT: [&str; 3] = ["wallet_balance", "usage_log", "journal"];

/// Runs everything.
///
/// # Errors
/// The machine is not fit to measure on; an event was lost, or a row of a rebuilt read model differs.
pub async fn run(arena: &Arena, arguments: &LiveArguments, progress: &Progress) -> Result<LiveReport, BenchError> {
    let machine = Machine::describe(&mut *arena.admin().await, &arena.meter).await?;
    if machine.build == "debug" {
        progress.say("this is a debug build: its figures say nothing about CALOS");
    }
    let quick = arguments.quick;
    let events = arguments.events.unwrap_or(if quick { QUICK_EVENTS } else { EVENTS });
    let rounds_count = arguments.rounds.unwrap_or(if quick { 1 } else { ROUNDS });
    let seconds = Duration::from_secs(arguments.seconds.unwrap_or(if quick { QUICK_SECONDS } else { SECONDS }).into());
    let models: Vec<ReadModel> = REBUILT.iter().map(|name| rebuild::find(name)).collect::<Result<_, _>>()?;
    let wallets = usize::try_from(arguments.wallets).unwrap_or(usize::MAX);

    arena.run_in().await?;
    progress.say(&format!("a log of {events} events"));
    let workers = arguments.workers.map_or(REBUILD_WORKERS, usize::from);
    let (mut site, preloaded) = Site::open(arena, progress, events, wallets, models, workers).await?;
    let callers = usize::from(arguments.callers);
    let fastest = site.fastest(callers, seconds.min(FASTEST_MAX)).await?;
    let per_second = fastest.per_second * f64::from(arguments.load) / PERCENT;
    progress.say(&format!("{callers} callers, {per_second:.0} commands/s: {} % of what they could", arguments.load));

    let mut rounds = Vec::new();
    for number in 1..=rounds_count {
        progress.say(&format!("round {number} of {rounds_count}"));
        rounds.push(site.round(callers, per_second, seconds).await?);
    }
    let read = site.differences().await?;
    let events_total = site.log.events() + preloaded;
    let peak_mib = machine::peak_resident_mib(std::process::id());
    let lost = site.finish().await?;
    let (quiet, loud): (Vec<Run>, Vec<Run>) = rounds.iter_mut().filter_map(Round::runs).unzip();
    let label = |name, what: &str| Label {
        name,
        what: format!("{callers} callers at their pace, {what}"),
        callers,
        connections: None,
        unit: "command",
        events_per_operation: EVENTS_PER_CHARGE,
    };
    let scenarios = vec![
        fastest,
        Scenario::of(label("live_without", "nothing else"), &quiet),
        Scenario::of(label("live_during", "during a rebuild"), &loud),
    ];
    Ok(LiveReport::new(report::Found {
        quick,
        took_seconds: progress.seconds(),
        machine,
        preloaded,
        events: events_total,
        per_second,
        scenarios,
        rounds,
        events_lost: lost,
        rows_compared: read,
        peak_mib,
    }))
}

/// A log with a history, callers' wallets, live read models, and a tool to rebuild them.
struct Site<'a> {
    arena: &'a Arena,
    progress: &'a Progress,
    log: CalosLog,
    /// The runner's own connections.
    pool: PgPool,
    runner: RunnerHandle,
    tool: Models,
    models: Vec<ReadModel>,
    /// Partitions folded at the same time.
    workers: usize,
    /// Wallets' events that were there before the first caller's.
    before: u64,
}

impl<'a> Site<'a> {
    async fn open(
        arena: &'a Arena,
        progress: &'a Progress,
        events: u64,
        wallets: usize,
        models: Vec<ReadModel>,
        workers: usize,
    ) -> Result<(Self, u64), BenchError> {
        let fresh = arena.with_log("live").await?;
        let shape = Shape { events, tenants: HISTORY_TENANTS, begin: crate::ledger::begin() };
        let filled = bulk::fill(&fresh, shape).await?;
        let before = wallet_events(&fresh.pool(1).await?).await?;
        progress.say(&format!("{} events stand; {wallets} wallets are opened", filled.events));
        let log = CalosLog::over(fresh, wallets).await?;
        // The ones that are rebuilt are whole. The others are live as well and have the same work from now on; what they
        // would have to say of the history is asked by nobody here.
        let tool = Models::lost(&log.fresh, log.log(), registry::ALL).await?;
        let restored = tool.restore(arena, &models).await?;
        progress.rate("a rebuild with nobody there", restored.rate(), "event");
        tool.at_the_head(registry::ALL).await?;
        let pool = postgres::connect(&log.fresh.url(), RUNNER_CONNECTIONS_MAX).await?;
        let runner = Runner::start(pool.clone(), log.log().heads(), RunnerOptions::default()).await?;
        Ok((Self { arena, progress, log, pool, runner, tool, models, workers, before }, filled.events))
    }

    /// What the callers reach when each asks again as soon as it was answered, the live read models beside them.
    async fn fastest(&mut self, callers: usize, measured: Duration) -> Result<Scenario, BenchError> {
        let window = Window { warm_up: WARM_UP, measured };
        let driven = self.log.charge(self.arena, Spread::Uniform, callers, window).await?;
        self.progress.rate("as fast as they can", driven.run.rate(), "command");
        let what = format!("{callers} callers, as fast as they can");
        let label = Label {
            name: "closed_loop",
            what,
            callers,
            connections: None,
            unit: "command",
            events_per_operation: EVENTS_PER_CHARGE,
        };
        self.caught_up().await?;
        Ok(Scenario::of(label, &[driven.run]))
    }

    /// The same load for a while with nothing else, and then for as long as a rebuild takes.
    async fn round(&mut self, callers: usize, per_second: f64, quiet: Duration) -> Result<Round, BenchError> {
        self.caught_up().await?;
        self.arena.settle().await?;
        let cpu_begin = self.arena.meter.read();
        let pacer = Pacer::start(self.log.callers(Spread::Uniform, callers), per_second);
        tokio::time::sleep(WARM_UP).await;
        let without = Span::lasting(Instant::now(), quiet);
        tokio::time::sleep(quiet).await;
        let cpu_quiet = self.arena.meter.since(cpu_begin);
        tokio::time::sleep(PAUSE).await;
        let cpu_begin = self.arena.meter.read();
        let begin = Instant::now();
        let live = self.tool.beside_writers(&self.models, self.workers).await;
        let during = Span { begin, end: Instant::now() };
        let cpu = self.arena.meter.since(cpu_begin);
        tokio::time::sleep(PAUSE).await;
        let paced = pacer.stop().await;
        // What was answered counts, whatever else failed.
        let paced = paced?;
        self.log.acknowledge(paced.answered);
        let Live { reports, rebuild, foretold, begun, steps } = live?;
        let differences = reports.iter().map(|report| report.parity.differing_rows()).sum();
        let dead_letters = reports.iter().map(|report| report.dead_letters).sum();
        let noticed = noticed_by_step(&paced, during, begun, &steps)?;
        let (without, during) = (paced.run(without, cpu_quiet)?, paced.run(during, cpu)?);
        let round = Round::new(without, during, &rebuild, differences, dead_letters, foretold, noticed);
        self.progress.say(&round.said());
        Ok(round)
    }

    /// Waits until every live read model is at the head.
    async fn caught_up(&self) -> Result<(), BenchError> {
        let begun = Instant::now();
        loop {
            let all = status::projections(&self.pool).await?;
            if all.iter().all(|projection| projection.lag_events() == 0) {
                return Ok(());
            }
            if begun.elapsed() > CATCH_UP_MAX {
                return Err(BenchError::Check("the live read models do not come to the head".to_owned()));
            }
            tokio::time::sleep(CATCH_UP_LOOK_EVERY).await;
        }
    }

    /// Holds the live rows against a fresh fold: after a switch nothing may be missing from them. Answers how many rows.
    async fn differences(&self) -> Result<u64, BenchError> {
        self.caught_up().await?;
        let mut rows = 0;
        for &model in &self.models {
            let differing = self.tool.differences(model).await?;
            if differing > 0 {
                return Err(BenchError::Check(format!(
                    "{} differs from a fresh fold in {differing} rows",
                    model.name()
                )));
            }
            rows += self.tool.rows(model).await?;
        }
        Ok(rows)
    }

    /// How many acknowledged events are not in the log; then ends everything.
    async fn finish(self) -> Result<u64, BenchError> {
        let stored = wallet_events(&self.pool).await?;
        let expected = self.before + self.log.events();
        self.runner.shutdown().await;
        self.pool.close().await;
        self.tool.close().await;
        let fresh = self.log.stop().await;
        self.arena.drop_database(fresh).await?;
        if stored > expected {
            return Err(BenchError::Check(format!("{stored} events of wallets stand, {expected} were acknowledged")));
        }
        Ok(expected - stored)
    }
}

/// What callers noticed of each kind of step, in the order in which they first came.
fn noticed_by_step(
    paced: &Paced,
    during: Span,
    begun: Instant,
    steps: &[(String, Duration)],
) -> Result<Vec<StepNoticed>, BenchError> {
    let mut kinds: Vec<(&str, Vec<Span>)> = vec![(READING, Vec::new())];
    let mut since = during.begin;
    let mut kind = 0;
    for (what, at) in steps {
        let at = begun + *at;
        kinds[kind].1.push(Span { begin: since, end: at });
        since = at;
        kind = kinds.iter().position(|(known, _)| *known == what).unwrap_or(kinds.len());
        if kind == kinds.len() {
            kinds.push((what, Vec::new()));
        }
    }
    kinds[kind].1.push(Span { begin: since, end: during.end });
    let noticed = |(step, spans): (&str, Vec<Span>)| {
        let run = paced.run_within(&spans, None)?;
        Ok(StepNoticed { step: step.to_owned(), seconds: run.elapsed.as_secs_f64(), noticed: Noticed::of(&run) })
    };
    kinds.into_iter().map(noticed).collect()
}

async fn wallet_events(pool: &PgPool) -> Result<u64, BenchError> {
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM events WHERE aggregate_type = 'wallet'").fetch_one(pool).await?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// A part of a whole, in percent.
fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole * PERCENT } else { 0.0 }
}

/// Events each second.
fn per_second(events: u64, seconds: f64) -> f64 {
    count_as_f64(events) / seconds.max(f64::MIN_POSITIVE)
}
