//! `calos-bench append`: deductions by the seeds' SQL, by `postgres-es`, by the database alone, and by CALOS, in turn.

use std::sync::Arc;
use std::time::Duration;

use crate::arena::Arena;
use crate::calos::CalosLog;
use crate::cli::AppendArguments;
use crate::drive::Window;
use crate::error::BenchError;
use crate::insert_select::{self, BATCH_SIZES_ROWS};
use crate::postgres_es_baseline::{PostgresEsRun, PostgresEsTables};
use crate::progress::{Progress, QUICK_LIMIT_SECONDS};
use crate::report::{Measured, Ratio, Target};
use crate::seed_sql::{Form, SeedRun, SeedTables};
use crate::stats::{Label, Run, Scenario};
use crate::workload::{EVENTS_PER_CHARGE, Spread};

/// Pool sizes tried for a baseline; it runs with the best.
const POOL_SIZES: &[u32] = &[2, 4, 8, 16, 32, WIDE_POOL];
/// Each baseline runs with this many connections as well, as where nobody looked for the best: one for every fourth of 256
/// callers. Baselines come to the speed then that the targets were set against (1,070 to 1,470 deductions a second from one
/// wallet, 6,200 from many, 1,966 by `postgres-es`).
const WIDE_POOL: u32 = 64;
/// Of these, the ones tried when time is short: those that come out best on one machine or another.
const QUICK_POOL_SIZES: &[u32] = &[8, 16, 32];
/// Callers of the runs beside the compared ones.
const OTHER_CALLERS: [usize; 2] = [1, 1_024];

/// What a log for the runs beside the compared ones takes to be opened, filled and dropped, and one run on it.
const QUICK_OTHERS_SECONDS: f64 = 8.0;

const HOT_VS_SEED_SQL: Target = Target { name: "hot_vs_seed_sql", target: 25.0, goal: Some(40.0) };
const UNIFORM_VS_SEED_SQL: Target = Target { name: "uniform_vs_seed_sql", target: 4.0, goal: Some(6.0) };
const UNIFORM_VS_POSTGRES_ES: Target = Target { name: "uniform_vs_postgres_es", target: 12.0, goal: Some(20.0) };
const HOT_VS_SEED_SQL_WIDE: Target = Target { name: "hot_vs_seed_sql_64", ..HOT_VS_SEED_SQL };
const UNIFORM_VS_SEED_SQL_WIDE: Target = Target { name: "uniform_vs_seed_sql_64", ..UNIFORM_VS_SEED_SQL };
const UNIFORM_VS_POSTGRES_ES_WIDE: Target = Target { name: "uniform_vs_postgres_es_64", ..UNIFORM_VS_POSTGRES_ES };
const UNIFORM_VS_INSERT_SELECT: Target = Target { name: "uniform_vs_insert_select", target: 0.5, goal: None };

struct Settings {
    rounds: u16,
    callers: usize,
    wallets: usize,
    window: Window,
    sweep: Window,
    quick: bool,
}

impl Settings {
    fn of(arguments: &AppendArguments) -> Self {
        let quick = arguments.common.quick;
        let seconds = arguments.seconds.unwrap_or(if quick { 1 } else { 4 });
        let short = |millis| Duration::from_millis(millis);
        Self {
            rounds: arguments.common.rounds.unwrap_or(if quick { 2 } else { 5 }),
            callers: usize::from(arguments.callers),
            wallets: usize::try_from(arguments.common.wallets).unwrap_or(usize::MAX),
            window: Window {
                warm_up: if quick { short(200) } else { short(1_000) },
                measured: Duration::from_secs(u64::from(seconds)),
            },
            sweep: Window {
                warm_up: if quick { short(150) } else { short(500) },
                measured: if quick { short(500) } else { short(2_000) },
            },
            quick,
        }
    }
}

/// One of something for each baseline that has a pool of connections.
#[derive(Clone, Copy, Default)]
struct Baselines<T> {
    seed_hot: T,
    seed_uniform: T,
    postgres_es: T,
}

/// Their pool sizes.
type Pools = Baselines<u32>;

const WIDE_POOLS: Pools = Baselines { seed_hot: WIDE_POOL, seed_uniform: WIDE_POOL, postgres_es: WIDE_POOL };

const BEST_NAMES: Baselines<&str> =
    Baselines { seed_hot: "seed_sql_hot", seed_uniform: "seed_sql_uniform", postgres_es: "postgres_es_uniform" };
const WIDE_NAMES: Baselines<&str> = Baselines {
    seed_hot: "seed_sql_hot_64",
    seed_uniform: "seed_sql_uniform_64",
    postgres_es: "postgres_es_uniform_64",
};

/// Runs of one thing over all rounds.
#[derive(Default)]
struct Rounds {
    best: Baselines<Vec<Run>>,
    /// Left out of a quick measurement.
    wide: Baselines<Vec<Run>>,
    insert_select: Vec<Run>,
    hot: Vec<Run>,
    uniform: Vec<Run>,
    insert_select_rows: i64,
}

struct Append<'a> {
    arena: &'a Arena,
    progress: &'a Progress,
    settings: Settings,
}

/// Runs everything.
pub async fn run(arena: &Arc<Arena>, arguments: &AppendArguments, progress: &Progress) -> Result<Measured, BenchError> {
    let append = Append { arena, progress, settings: Settings::of(arguments) };
    if arguments.alone {
        return append.alone().await;
    }
    let pools = append.find_pools().await?;
    let mut rounds = Rounds::default();
    for round in 1..=append.settings.rounds {
        let began = progress.seconds();
        progress.say(&format!("round {round} of {}", append.settings.rounds));
        append.round(&pools, &mut rounds).await?;
        if append.settings.quick && !progress.allows(began, QUICK_LIMIT_SECONDS) {
            progress.say("the machine is too slow for another round within the time of a quick measurement");
            break;
        }
    }
    let mut scenarios = append.compared(&pools, &rounds);
    let ratios = ratios(&scenarios);
    let mut notes = notes(&rounds);
    append.others(&mut scenarios, &mut notes).await?;
    if !append.settings.quick {
        scenarios.extend(append.one_statement(&pools).await?);
    }
    Ok(Measured { scenarios, ratios, tables: Vec::new(), notes })
}

impl Append<'_> {
    /// CALOS without anything to compare it with, round after round.
    async fn alone(&self) -> Result<Measured, BenchError> {
        let mut scenarios = Vec::new();
        for (name, spread) in [("calos_hot", Spread::Hot), ("calos_uniform", Spread::Uniform)] {
            let mut runs = Vec::new();
            for _ in 0..self.settings.rounds {
                let (run, log) = self.run_calos(spread, self.settings.callers).await?;
                runs.push(run);
                log.finish(self.arena).await?;
            }
            let label = Label {
                name,
                what: format!("CALOS, {}", self.describe(spread)),
                callers: self.settings.callers,
                connections: None,
                unit: "command",
                events_per_operation: EVENTS_PER_CHARGE,
            };
            scenarios.push(Scenario::of(label, &runs));
        }
        Ok(Measured { scenarios, ratios: Vec::new(), tables: Vec::new(), notes: Vec::new() })
    }

    async fn find_pools(&self) -> Result<Pools, BenchError> {
        let mut best = [0; 2];
        for (best, spread) in best.iter_mut().zip([Spread::Hot, Spread::Uniform]) {
            let mut tables = SeedTables::create(self.arena, self.settings.wallets).await?;
            let mut rates = Vec::new();
            for &connections in self.pool_sizes() {
                let run = tables.run(self.arena, self.seed(spread, connections, Form::AsWritten, self.settings.sweep));
                rates.push((connections, run.await?.rate()));
            }
            tables.finish(self.arena).await?;
            *best = self.choose(&format!("seeds' SQL, {}", self.describe(spread)), &rates);
        }
        let mut tables = PostgresEsTables::create(self.arena, self.settings.wallets).await?;
        let mut rates = Vec::new();
        for &connections in self.pool_sizes() {
            let run = tables.run(self.arena, self.postgres_es(connections, self.settings.sweep));
            rates.push((connections, run.await?.rate()));
        }
        tables.finish(self.arena).await?;
        let postgres_es = self.choose("postgres-es", &rates);
        let [seed_hot, seed_uniform] = best;
        Ok(Baselines { seed_hot, seed_uniform, postgres_es })
    }

    fn pool_sizes(&self) -> &'static [u32] {
        if self.settings.quick { QUICK_POOL_SIZES } else { POOL_SIZES }
    }

    fn choose(&self, what: &str, rates: &[(u32, f64)]) -> u32 {
        let best = rates.iter().copied().max_by(|(_, one), (_, other)| one.total_cmp(other));
        let (connections, _) = best.unwrap_or((POOL_SIZES[0], 0.0));
        let tried: Vec<String> = rates.iter().map(|(size, rate)| format!("{size}: {rate:.0}/s")).collect();
        self.progress.say(&format!("{what}, by connections: {}; best with {connections}", tried.join(", ")));
        connections
    }

    fn seed(&self, spread: Spread, connections: u32, form: Form, window: Window) -> SeedRun {
        SeedRun { spread, callers: self.settings.callers, connections, form, window }
    }

    fn postgres_es(&self, connections: u32, window: Window) -> PostgresEsRun {
        PostgresEsRun { callers: self.settings.callers, connections, window }
    }

    fn describe(&self, spread: Spread) -> String {
        spread.describe(self.settings.wallets, "wallet", "wallets")
    }

    /// Everything once, baseline and CALOS in turn, each in a fresh database.
    async fn round(&self, pools: &Pools, rounds: &mut Rounds) -> Result<(), BenchError> {
        rounds.best.seed_hot.push(self.run_seed(Spread::Hot, pools.seed_hot, Form::AsWritten).await?);
        let hot = self.run_calos(Spread::Hot, self.settings.callers).await?;
        rounds.hot.push(hot.0);
        hot.1.finish(self.arena).await?;

        rounds.best.seed_uniform.push(self.run_seed(Spread::Uniform, pools.seed_uniform, Form::AsWritten).await?);
        let (uniform, log) = self.run_calos(Spread::Uniform, self.settings.callers).await?;
        rounds.uniform.push(uniform);
        log.check().await?;
        let fresh = log.stop().await;
        // The best batch size of the first round serves the later ones.
        let known = [rounds.insert_select_rows];
        let sizes = if rounds.insert_select.is_empty() { BATCH_SIZES_ROWS } else { &known[..] };
        let best = insert_select::run(self.arena, &fresh, sizes).await?;
        self.progress.rate("INSERT … SELECT", best.run.rate(), "row");
        rounds.insert_select_rows = best.batch_rows;
        rounds.insert_select.push(best.run);
        self.arena.drop_database(fresh).await?;

        rounds.best.postgres_es.push(self.run_postgres_es(pools.postgres_es).await?);
        if !self.settings.quick {
            let Baselines { seed_hot, seed_uniform, postgres_es } = WIDE_POOLS;
            rounds.wide.seed_hot.push(self.run_seed(Spread::Hot, seed_hot, Form::AsWritten).await?);
            rounds.wide.seed_uniform.push(self.run_seed(Spread::Uniform, seed_uniform, Form::AsWritten).await?);
            rounds.wide.postgres_es.push(self.run_postgres_es(postgres_es).await?);
        }
        Ok(())
    }

    async fn run_postgres_es(&self, connections: u32) -> Result<Run, BenchError> {
        let mut tables = PostgresEsTables::create(self.arena, self.settings.wallets).await?;
        let run = tables.run(self.arena, self.postgres_es(connections, self.settings.window)).await?;
        self.progress.rate(&format!("postgres-es, {connections} connections"), run.rate(), "command");
        tables.finish(self.arena).await?;
        Ok(run)
    }

    async fn run_seed(&self, spread: Spread, connections: u32, form: Form) -> Result<Run, BenchError> {
        let mut tables = SeedTables::create(self.arena, self.settings.wallets).await?;
        let run = tables.run(self.arena, self.seed(spread, connections, form, self.settings.window)).await?;
        let what = format!("seeds' SQL, {}, {connections} connections", self.describe(spread));
        self.progress.rate(&what, run.rate(), "transaction");
        tables.finish(self.arena).await?;
        Ok(run)
    }

    async fn run_calos(&self, spread: Spread, callers: usize) -> Result<(Run, CalosLog), BenchError> {
        let wallets = match spread {
            Spread::Hot => 1,
            Spread::Uniform => self.settings.wallets,
        };
        let mut log = CalosLog::open(self.arena, wallets).await?;
        let driven = log.charge(self.arena, spread, callers, self.settings.window).await?;
        let what = format!("CALOS, {}, {callers} callers", self.describe(spread));
        self.progress.rate(&what, driven.run.rate(), "command");
        Ok((driven.run, log))
    }

    fn compared(&self, pools: &Pools, rounds: &Rounds) -> Vec<Scenario> {
        let label = |name, what: String, connections| Label {
            name,
            what,
            callers: self.settings.callers,
            connections,
            unit: "command",
            events_per_operation: EVENTS_PER_CHARGE,
        };
        let (hot, uniform) = (self.describe(Spread::Hot), self.describe(Spread::Uniform));
        let seed = |spread: &str| format!("seeds' SQL, {spread}");
        let rows = Label {
            callers: 1,
            unit: "row",
            events_per_operation: 1,
            ..label("insert_select", "INSERT … SELECT of the same rows".to_owned(), Some(1))
        };
        let baselines = |names: Baselines<&'static str>, pools: &Pools, runs: &Baselines<Vec<Run>>| {
            let postgres_es = format!("postgres-es, {uniform}");
            [
                (label(names.seed_hot, seed(&hot), Some(pools.seed_hot)), runs.seed_hot.as_slice()),
                (label(names.seed_uniform, seed(&uniform), Some(pools.seed_uniform)), runs.seed_uniform.as_slice()),
                (label(names.postgres_es, postgres_es, Some(pools.postgres_es)), runs.postgres_es.as_slice()),
            ]
            .map(|(label, runs)| Scenario::of(label, runs))
        };
        let mut scenarios = vec![
            Scenario::of(label("calos_hot", format!("CALOS, {hot}"), None), &rounds.hot),
            Scenario::of(label("calos_uniform", format!("CALOS, {uniform}"), None), &rounds.uniform),
            Scenario::of(rows, &rounds.insert_select),
        ];
        scenarios.extend(baselines(BEST_NAMES, pools, &rounds.best));
        if !rounds.wide.seed_hot.is_empty() {
            scenarios.extend(baselines(WIDE_NAMES, &WIDE_POOLS, &rounds.wide));
        }
        scenarios
    }

    /// CALOS with one caller and with many, as long as there is time.
    async fn others(&self, scenarios: &mut Vec<Scenario>, notes: &mut Vec<String>) -> Result<(), BenchError> {
        let names = [["calos_hot_1", "calos_uniform_1"], ["calos_hot_1024", "calos_uniform_1024"]];
        if self.settings.quick && self.progress.seconds() + QUICK_OTHERS_SECONDS > QUICK_LIMIT_SECONDS {
            notes.push("CALOS with one caller and with 1,024 was left out: there was no time left.".to_owned());
            return Ok(());
        }
        let mut log = CalosLog::open(self.arena, self.settings.wallets).await?;
        for (callers, [hot, uniform]) in OTHER_CALLERS.into_iter().zip(names) {
            for (name, spread) in [(hot, Spread::Hot), (uniform, Spread::Uniform)] {
                let ahead = (self.settings.window.warm_up + self.settings.window.measured).as_secs_f64() + 1.0;
                if self.settings.quick && self.progress.seconds() + ahead > QUICK_LIMIT_SECONDS {
                    notes.push(format!("{name} was left out: there was no time left."));
                    continue;
                }
                let driven = log.charge(self.arena, spread, callers, self.settings.window).await?;
                let what = format!("CALOS, {}", self.describe(spread));
                self.progress.rate(&format!("{what}, {callers} callers"), driven.run.rate(), "command");
                let label = Label {
                    name,
                    what,
                    callers,
                    connections: None,
                    unit: "command",
                    events_per_operation: EVENTS_PER_CHARGE,
                };
                scenarios.push(Scenario::of(label, &[driven.run]));
            }
        }
        log.finish(self.arena).await
    }

    /// The seeds' two statements folded into one, as nobody wrote them: for comparison, no target.
    async fn one_statement(&self, pools: &Pools) -> Result<Vec<Scenario>, BenchError> {
        let mut scenarios = Vec::new();
        let cases = [
            ("seed_sql_one_statement_hot", Spread::Hot, pools.seed_hot),
            ("seed_sql_one_statement_uniform", Spread::Uniform, pools.seed_uniform),
        ];
        for (name, spread, connections) in cases {
            let run = self.run_seed(spread, connections, Form::OneStatement).await?;
            let label = Label {
                name,
                what: format!("seeds' SQL as one statement, {}", self.describe(spread)),
                callers: self.settings.callers,
                connections: Some(connections),
                unit: "command",
                events_per_operation: EVENTS_PER_CHARGE,
            };
            scenarios.push(Scenario::of(label, &[run]));
        }
        Ok(scenarios)
    }
}

fn ratios(scenarios: &[Scenario]) -> Vec<Ratio> {
    let find = |name: &str| scenarios.iter().find(|scenario| scenario.name == name);
    let pairs = [
        (HOT_VS_SEED_SQL, "calos_hot", BEST_NAMES.seed_hot),
        (UNIFORM_VS_SEED_SQL, "calos_uniform", BEST_NAMES.seed_uniform),
        (UNIFORM_VS_POSTGRES_ES, "calos_uniform", BEST_NAMES.postgres_es),
        (HOT_VS_SEED_SQL_WIDE, "calos_hot", WIDE_NAMES.seed_hot),
        (UNIFORM_VS_SEED_SQL_WIDE, "calos_uniform", WIDE_NAMES.seed_uniform),
        (UNIFORM_VS_POSTGRES_ES_WIDE, "calos_uniform", WIDE_NAMES.postgres_es),
        (UNIFORM_VS_INSERT_SELECT, "calos_uniform", "insert_select"),
    ];
    pairs
        .into_iter()
        .filter_map(|(target, ours, baseline)| Some(Ratio::between(target, find(ours)?, find(baseline)?)))
        .collect()
}

fn notes(rounds: &Rounds) -> Vec<String> {
    let batch = match rounds.insert_select_rows {
        i64::MAX => "all rows in one transaction".to_owned(),
        rows => format!("{rows} rows a transaction"),
    };
    vec![
        "A command is one deduction: a usage record and a deduction, two events (the seeds' SQL: an update and a log row)."
            .to_owned(),
        format!("INSERT … SELECT was fastest with {batch}."),
        "Every run has a fresh database; what was acknowledged was counted again in it afterwards.".to_owned(),
    ]
}
