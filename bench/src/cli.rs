//! The command line.

use clap::{Args, Parser, Subcommand};

/// Measures CALOS beside its baselines, in the same run and against the same PostgreSQL.
///
/// Runs on the embedded PostgreSQL, or on the one DATABASE_URL names, in databases of its own that it drops again.
/// Exit codes: 0 done, 1 a check failed, 2 usage, 3 the environment does not allow measuring.
#[derive(Parser, Debug)]
#[command(name = "calos-bench", version, max_term_width = 120)]
pub struct Cli {
    /// What to measure.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be measured.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Deductions through the full command path: decide, seal, append, commit.
    Append(AppendArguments),
    /// Rebuilds of read models from the log.
    Replay(ReplayArguments),
    /// The book: asked as of any moment, verified, exported and rebuilt.
    Ledger(LedgerArguments),
    /// Callers who write while read models are rebuilt: what they notice, and whether anything is lost.
    Live(LiveArguments),
    /// Model calls: direct to a simulated provider, through a bare proxy, and through CALOS.
    Gateway(GatewayArguments),
    /// Generated histories through the real command path with crashes in between, against a model of the ledger.
    Simulate(SimulateArguments),
    /// The simulated provider, as a process of its own.
    #[command(hide = true)]
    SimulatedProvider,
    /// The bare proxy, as a process of its own.
    #[command(hide = true)]
    FloorProxy {
        /// Where it forwards to, such as `http://127.0.0.1:8000`.
        upstream: String,
    },
}

/// What both measurements have in common.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Print one JSON document instead of tables.
    #[arg(long)]
    pub json: bool,
    /// Short windows and few rounds: under a minute altogether, and rougher.
    #[arg(long)]
    pub quick: bool,
    /// Exit with 1 when a ratio misses its target.
    #[arg(long)]
    pub check: bool,
    /// Rounds, in each of which every baseline and CALOS take their turn [default: 5, quick 2].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=50))]
    pub rounds: Option<u16>,
    /// Wallets that are charged when the load is spread.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub wallets: u32,
}

/// `calos-bench append`
#[derive(Args, Clone, Debug)]
pub struct AppendArguments {
    /// What both measurements have in common.
    #[command(flatten)]
    pub common: Common,
    /// Measured seconds of each run [default: 4, quick 1].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=120))]
    pub seconds: Option<u16>,
    /// Concurrent callers of the compared runs.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    pub callers: u16,
    /// Only CALOS, without baselines and so without ratios: for a profiler.
    #[arg(long, conflicts_with = "growth")]
    pub alone: bool,
    /// Measure instead how cost changes as the log grows.
    #[arg(long)]
    pub growth: bool,
    /// How far the log grows with --growth, in events, tenfold steps from 10,000 on.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..=20_000_000))]
    pub growth_events: u64,
}

/// `calos-bench replay`
#[derive(Args, Clone, Debug)]
pub struct ReplayArguments {
    /// What both measurements have in common.
    #[command(flatten)]
    pub common: Common,
    /// Events in the log that is replayed [default: 2000000, quick 300000].
    #[arg(long, value_parser = clap::value_parser!(u64).range(10_000..=20_000_000))]
    pub events: Option<u64>,
    /// Seconds of rest before each load of rows and before their rebuild, on a disk that gives only so much at once.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=600))]
    pub rest: u16,
    /// Events in the sample that QueryReplay replays.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    pub sample: u32,
    /// Wallets that sample is spread over.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub sample_wallets: u16,
}

/// `calos-bench ledger`
///
/// Needs `calos-replay` beside this program.
#[derive(Args, Clone, Debug)]
pub struct LedgerArguments {
    /// Print one JSON document instead of tables.
    #[arg(long)]
    pub json: bool,
    /// A short history and few questions: under a minute altogether, and rougher.
    #[arg(long)]
    pub quick: bool,
    /// Events of the history, nearly all of which are entries of the book [default: 1000000, quick 100000].
    #[arg(long, value_parser = clap::value_parser!(u64).range(50_000..=20_000_000))]
    pub entries: Option<u64>,
    /// Tenants who live through it.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u16).range(2..=1_000))]
    pub tenants: u16,
}

/// `calos-bench live`
///
/// Callers keep to a timetable, at a part of what they could do: first with nothing else going on, then during a rebuild of
/// wallet_balance, usage_log and journal. Latencies count from the timetable. An event that is lost or a row that differs
/// fails the measurement.
#[derive(Args, Clone, Debug)]
pub struct LiveArguments {
    /// Print one JSON document instead of tables.
    #[arg(long)]
    pub json: bool,
    /// A short log and one round: under a minute altogether, and rougher.
    #[arg(long)]
    pub quick: bool,
    /// Exit with 1 when a promise is not kept.
    #[arg(long)]
    pub check: bool,
    /// Rounds, in each of which there is a rebuild [default: 3, quick 1].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=50))]
    pub rounds: Option<u16>,
    /// Measured seconds without a rebuild in each round [default: 10, quick 3].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=120))]
    pub seconds: Option<u16>,
    /// Events in the log before anybody calls [default: 1000000, quick 100000].
    #[arg(long, value_parser = clap::value_parser!(u64).range(50_000..=20_000_000))]
    pub events: Option<u64>,
    /// Concurrent callers.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    pub callers: u16,
    /// What they ask of what they could ask, in percent.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u8).range(1..=90))]
    pub load: u8,
    /// Wallets that are charged.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub wallets: u32,
    /// Partitions folded at the same time at most [default: as calos-replay does].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub workers: Option<u8>,
}

/// `calos-bench gateway`
///
/// Makes a private PostgreSQL and starts the `calos` beside this program on it.
#[derive(Args, Clone, Debug)]
pub struct GatewayArguments {
    /// Print one JSON document instead of tables.
    #[arg(long)]
    pub json: bool,
    /// Short windows and one round: about a minute altogether, and rougher.
    #[arg(long)]
    pub quick: bool,
    /// Rounds, in each of which provider, floor and CALOS take their turn [default: 3, quick 1].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=50))]
    pub rounds: Option<u16>,
    /// Measured seconds of each run [default: 5, quick 1].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=120))]
    pub seconds: Option<u16>,
    /// Tenants, each with a key of its own, that the callers share.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub tenants: u16,
    /// Only these cases, such as plain_64; all when left out.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// CALOS alone, to look at it while it works: nothing is compared.
    #[arg(long)]
    pub calos_alone: bool,
}

/// `calos-bench simulate`
///
/// Exits with 1 at the first thing that does not hold, and says how to come to it again.
#[derive(Args, Clone, Debug)]
pub struct SimulateArguments {
    /// Commands to ask, repetitions after a lost answer not counted.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub commands: u64,
    /// Where every choice comes from; drawn and printed when left out.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Tenants at one time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub tenants: u16,
    /// Commands from one checkpoint to the next.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    pub check_every: u64,
}
