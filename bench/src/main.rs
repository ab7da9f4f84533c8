//! `calos-bench`: CALOS measured beside its baselines, in the same run and against the same PostgreSQL.

mod append;
mod arena;
mod calos;
mod cli;
mod copy_baseline;
mod cpu;
mod drive;
mod error;
mod gateway;
mod growth;
mod insert_select;
mod lanes;
mod ledger;
mod live;
mod machine;
mod postgres_es_baseline;
mod progress;
mod query_replay;
mod rebuild;
mod replay;
mod report;
mod seed_sql;
mod stats;
mod workload;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::arena::Arena;
use crate::cli::{
    AppendArguments, Cli, Command, Common, GatewayArguments, LedgerArguments, LiveArguments, ReplayArguments,
    SimulateArguments,
};
use crate::error::{BenchError, EXIT_CHECK_FAILED};
use crate::machine::Machine;
use crate::progress::Progress;
use crate::report::{Measured, Published, Report};
use calos_bench::simulate::{self, Options};

/// How often a simulation says how far it is.
const SIMULATION_SAID_EVERY_SECONDS: f64 = 5.0;

/// As in the server: commands and rows are made of many short-lived texts; with this allocator they cost a fifth less CPU than with glibc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut runtime = match cli.command {
        // One thread is what it needs, and the least it can take from whom it serves.
        Command::SimulatedProvider => tokio::runtime::Builder::new_current_thread(),
        Command::Append(_)
        | Command::Replay(_)
        | Command::Ledger(_)
        | Command::Live(_)
        | Command::Gateway(_)
        | Command::Simulate(_)
        | Command::FloorProxy { .. } => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&BenchError::Output(error)),
    };
    let done = runtime.block_on(dispatch(&cli));
    // A thread may still wait for input that never comes.
    runtime.shutdown_background();
    match done {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

async fn dispatch(cli: &Cli) -> Result<ExitCode, BenchError> {
    match &cli.command {
        Command::Append(arguments) => measure(Log::Append(arguments)).await,
        Command::Replay(arguments) => measure(Log::Replay(arguments)).await,
        Command::Ledger(arguments) => measure_ledger(arguments).await,
        Command::Live(arguments) => measure_live(arguments).await,
        Command::Gateway(arguments) => measure_gateway(arguments).await,
        Command::Simulate(arguments) => simulate(arguments).await,
        Command::SimulatedProvider => gateway::run_provider().await.map(|()| ExitCode::SUCCESS),
        Command::FloorProxy { upstream } => gateway::run_floor(upstream).await.map(|()| ExitCode::SUCCESS),
    }
}

/// What is measured of the log.
#[derive(Clone, Copy)]
enum Log<'a> {
    Append(&'a AppendArguments),
    Replay(&'a ReplayArguments),
}

impl Log<'_> {
    fn common(&self) -> &Common {
        match self {
            Self::Append(arguments) => &arguments.common,
            Self::Replay(arguments) => &arguments.common,
        }
    }
}

async fn measure_gateway(arguments: &GatewayArguments) -> Result<ExitCode, BenchError> {
    let report = gateway::run(arguments, &Progress::start()).await?;
    publish(&report, arguments.json, false)
}

async fn measure_ledger(arguments: &LedgerArguments) -> Result<ExitCode, BenchError> {
    let progress = Progress::start();
    let report = in_an_arena(async |arena| Box::pin(ledger::run(arena, arguments, &progress)).await).await?;
    publish(&report, arguments.json, false)
}

async fn measure_live(arguments: &LiveArguments) -> Result<ExitCode, BenchError> {
    let progress = Progress::start();
    let report = in_an_arena(async |arena| Box::pin(live::run(arena, arguments, &progress)).await).await?;
    publish(&report, arguments.json, arguments.check)
}

/// Measures in databases of its own, and whatever happens leaves none of them behind.
async fn in_an_arena<T>(measuring: impl AsyncFnOnce(&Arc<Arena>) -> Result<T, BenchError>) -> Result<T, BenchError> {
    let arena = Arena::open().await?;
    let measured = until_interrupted(measuring(&arena)).await;
    let closed = arena.close().await;
    let measured = measured?;
    closed?;
    Ok(measured)
}

async fn until_interrupted<T>(work: impl Future<Output = Result<T, BenchError>>) -> Result<T, BenchError> {
    tokio::select! {
        done = work => done,
        interrupted = tokio::signal::ctrl_c() => Err(match interrupted {
            Ok(()) => BenchError::Environment("interrupted".to_owned()),
            Err(error) => BenchError::Output(error),
        }),
    }
}

/// Simulates in a database of its own.
async fn simulate(arguments: &SimulateArguments) -> Result<ExitCode, BenchError> {
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let options = Options {
        seed,
        commands: arguments.commands,
        tenants: usize::from(arguments.tenants),
        check_every_commands: arguments.check_every,
        broken: None,
    };
    let progress = Progress::start();
    progress.say(&format!("seed {seed}: {} commands, {} tenants at a time", options.commands, options.tenants));
    let arena = Arena::open().await?;
    let url = arena.with_log("simulate").await?.url();
    let mut said_at = 0.0;
    let say = |summary: &simulate::Summary| {
        let seconds = progress.seconds();
        if seconds - said_at >= SIMULATION_SAID_EVERY_SECONDS {
            said_at = seconds;
            progress.rate(&summary.to_string(), summary.commands as f64 / seconds, "command");
        }
    };
    let simulated = until_interrupted(async { Ok(simulate::run(&url, options, say).await) }).await;
    let closed = arena.close().await;
    let summary = match simulated? {
        Ok(summary) => summary,
        Err(failure) => {
            let _ = writeln!(std::io::stderr().lock(), "{failure}");
            return Ok(ExitCode::from(EXIT_CHECK_FAILED));
        }
    };
    closed?;
    let per_second = summary.commands as f64 / progress.seconds();
    writeln!(
        std::io::stdout().lock(),
        "seed {seed}: {summary}\n{summary:#?}\n{per_second:.0} commands/s, nothing lost, nothing doubled"
    )?;
    Ok(ExitCode::SUCCESS)
}

fn fail(error: &BenchError) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "calos-bench: {error}");
    ExitCode::from(error.exit_code())
}

/// Measures the log and reports.
async fn measure(what: Log<'_>) -> Result<ExitCode, BenchError> {
    let progress = Progress::start();
    let report = in_an_arena(async |arena| run(arena, what, &progress).await).await?;
    publish(&report, what.common().json, what.common().check)
}

async fn run(arena: &Arc<Arena>, what: Log<'_>, progress: &Progress) -> Result<Report, BenchError> {
    let machine = Machine::describe(&mut *arena.admin().await, &arena.meter).await?;
    if machine.build == "debug" {
        progress.say("this is a debug build: its figures say nothing about CALOS");
    }
    let (measurement, quick, measured) = match what {
        Log::Append(arguments) if arguments.growth => {
            ("growth", arguments.common.quick, growth::run(arena, arguments, progress).await?)
        }
        Log::Append(arguments) => ("append", arguments.common.quick, append::run(arena, arguments, progress).await?),
        Log::Replay(arguments) => ("replay", arguments.common.quick, replay::run(arena, arguments, progress).await?),
    };
    let Measured { scenarios, ratios, tables, notes } = measured;
    Ok(Report { measurement, quick, took_seconds: progress.seconds(), machine, scenarios, ratios, tables, notes })
}

fn publish(report: &impl Published, json: bool, check: bool) -> Result<ExitCode, BenchError> {
    let mut out = std::io::stdout().lock();
    if json {
        report.write_json(&mut out)?;
    } else {
        report.write_text(&mut out)?;
    }
    out.flush()?;
    let missed = report.missed();
    if check && !missed.is_empty() {
        let _ = writeln!(std::io::stderr().lock(), "calos-bench: not reached: {}", missed.join(", "));
        return Ok(ExitCode::from(EXIT_CHECK_FAILED));
    }
    Ok(ExitCode::SUCCESS)
}
