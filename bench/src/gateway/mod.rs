//! `calos-bench gateway`: the way to a simulated provider direct, through the floor, and through CALOS, in turn.
//!
//! Provider, floor, CALOS and PostgreSQL are processes of their own and the callers are this one, so that each one's CPU
//! time can be told apart. All of them share the machine's cores.

mod children;
mod commit;
mod connection;
mod figures;
mod floor;
mod load;
mod provider;
mod reading;
mod report;
mod set_up;
mod watching;

use std::time::{Duration, Instant};

use calos_projections::status;

use self::commit::CommitProbe;
use self::connection::Goal;
use self::figures::{Figures, Measurement};
use self::load::{Arrival, Seen, Span, generate};
use self::provider::Switches;
use self::reading::CpuReadings;
use self::report::{GatewayReport, Memory};
use self::set_up::{KEY, Stage};
use self::watching::{Watched, watch};
use crate::cli::GatewayArguments;
use crate::error::BenchError;
use crate::machine::{Machine, resident_mib};
use crate::progress::Progress;

/// How long the read models may take to catch up with a run.
const CATCH_UP_MAX: Duration = Duration::from_secs(180);
/// How long to wait between looks at them.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Time for connections to be opened before a span begins, at the least.
const WARM_UP_QUICK: Duration = Duration::from_millis(500);
/// The same, with time.
const WARM_UP: Duration = Duration::from_millis(1_500);

/// Who is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The simulated provider.
    Direct,
    /// The bare proxy before it.
    Floor,
    /// CALOS before it.
    Calos,
}

impl Target {
    const ALL: [Self; 3] = [Self::Direct, Self::Floor, Self::Calos];

    const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Floor => "floor",
            Self::Calos => "CALOS",
        }
    }
}

/// One thing that is measured of all three.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    name: &'static str,
    what: &'static str,
    arrival: Arrival,
    streams: bool,
    switches: Switches,
}

const AT_ONCE: Switches = Switches { first_byte_delay_ms: 0, token_delay_ms: 0, answer_tokens: 16 };
const IN_50_MS: Switches = Switches { first_byte_delay_ms: 50, token_delay_ms: 0, answer_tokens: 16 };
const STREAM_AT_ONCE: Switches = Switches { first_byte_delay_ms: 0, token_delay_ms: 0, answer_tokens: 20 };
const STREAM_PACED: Switches = Switches { first_byte_delay_ms: 50, token_delay_ms: 20, answer_tokens: 20 };

const CASES: [Case; 8] = [
    plain("plain_1", "plain, provider answers at once", 1),
    plain("plain_50", "plain, provider answers at once", 50),
    plain("plain_64", "plain, provider answers at once", 64),
    plain("plain_500", "plain, provider answers at once", 500),
    Case {
        name: "open_500",
        what: "plain, 500 a second (open loop), provider takes 50 ms",
        arrival: Arrival::Open(500.0),
        streams: false,
        switches: IN_50_MS,
    },
    stream("stream_1", "stream of 20 tokens, provider answers at once", 1, STREAM_AT_ONCE),
    stream("stream_50", "stream of 20 tokens, first after 50 ms, then every 20 ms", 50, STREAM_PACED),
    stream("stream_500", "stream of 20 tokens, first after 50 ms, then every 20 ms", 500, STREAM_PACED),
];

const fn plain(name: &'static str, what: &'static str, callers: usize) -> Case {
    Case { name, what, arrival: Arrival::Closed(callers), streams: false, switches: AT_ONCE }
}

const fn stream(name: &'static str, what: &'static str, callers: usize, switches: Switches) -> Case {
    Case { name, what, arrival: Arrival::Closed(callers), streams: true, switches }
}

/// Measures and reports; whatever happens, nothing stays behind.
///
/// # Errors
/// When something does not start or does other work than it should; never for a missed figure.
pub async fn run(arguments: &GatewayArguments, progress: &Progress) -> Result<GatewayReport, BenchError> {
    let cases = chosen(arguments)?;
    let mut asked = std::pin::pin!(asked_to_stop());
    // What has started by then ends when it is dropped.
    let stage = tokio::select! {
        opened = Stage::open(usize::from(arguments.tenants), progress) => opened?,
        stopped = asked.as_mut() => return Err(stopped),
    };
    let gateway = Gateway::new(&stage, arguments, progress);
    let measured = tokio::select! {
        measured = gateway.measure(&cases) => measured,
        stopped = asked => Err(stopped),
    };
    let closed = stage.close().await;
    let report = measured?;
    closed?;
    Ok(report)
}

async fn asked_to_stop() -> BenchError {
    use tokio::signal::unix::{SignalKind, signal};
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    match (interrupt, terminate) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            BenchError::Environment("interrupted".to_owned())
        }
        (Err(error), _) | (_, Err(error)) => BenchError::Output(error),
    }
}

fn chosen(arguments: &GatewayArguments) -> Result<Vec<Case>, BenchError> {
    let wanted = |case: &Case| arguments.only.is_empty() || arguments.only.iter().any(|name| name == case.name);
    let cases: Vec<Case> = CASES.into_iter().filter(wanted).collect();
    if cases.is_empty() {
        let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        return Err(BenchError::Environment(format!("--only takes: {}", names.join(", "))));
    }
    Ok(cases)
}

struct Gateway<'a> {
    stage: &'a Stage,
    progress: &'a Progress,
    quick: bool,
    rounds: u16,
    warm_up: Duration,
    measured: Duration,
    /// Whether the provider and the floor are measured too.
    compared: bool,
}

impl<'a> Gateway<'a> {
    fn new(stage: &'a Stage, arguments: &GatewayArguments, progress: &'a Progress) -> Self {
        let quick = arguments.quick;
        Self {
            stage,
            progress,
            quick,
            rounds: arguments.rounds.unwrap_or(if quick { 1 } else { 3 }),
            warm_up: if quick { WARM_UP_QUICK } else { WARM_UP },
            measured: Duration::from_secs(u64::from(arguments.seconds.unwrap_or(if quick { 1 } else { 5 }))),
            compared: !arguments.calos_alone,
        }
    }

    async fn measure(&self, cases: &[Case]) -> Result<GatewayReport, BenchError> {
        let arena = &self.stage.arena;
        let machine = Machine::describe(&mut *arena.admin().await, &arena.meter).await?;
        if machine.build == "debug" {
            self.progress.say("this is a debug build: its figures say nothing about CALOS");
        }
        let mut commits = CommitProbe::open(arena).await?;
        let mut commit_p50_micros = Vec::new();
        let mut memory = Memory { ready_mib: self.resident_mib(), ..Memory::default() };
        let mut figures: Vec<Figures> = cases.iter().map(|case| Figures::new(*case)).collect();
        let (mut answered, mut watched) = (0, Watched::new()?);
        let before = self.stage.provider_calls().await?;
        let others = self.stored_uses().await?;
        for round in 1..=self.rounds {
            self.progress.say(&format!("round {round} of {}", self.rounds));
            for figures in &mut figures {
                if figures.case.arrival == Arrival::Closed(1) {
                    commit_p50_micros.extend(commits.p50_micros(self.quick).await?);
                }
                self.stage.switch(figures.case.switches).await?;
                for target in Target::ALL {
                    if target == Target::Calos || self.compared {
                        let measurement = self.one(&figures.case, target, &mut watched).await?;
                        answered += if target == Target::Calos { measurement.seen.answered } else { 0 };
                        self.tell(&figures.case, target, &measurement);
                        figures.add(target, measurement);
                    }
                }
                memory.after_mib.push((figures.case.name, self.resident_mib()));
            }
        }
        memory.peak_mib = crate::machine::peak_resident_mib(self.stage.calos.pid);
        self.check(answered, others, before).await?;
        commits.close().await?;
        let (quick, took) = (self.quick, self.progress.seconds());
        Ok(GatewayReport::new(machine, quick, took, &commit_p50_micros, &figures, memory, watched.figures()))
    }

    fn resident_mib(&self) -> Option<u64> {
        resident_mib(self.stage.calos.pid)
    }

    /// One case of one target: the span, and then until the read models have seen all of it.
    async fn one(&self, case: &Case, target: Target, watched: &mut Watched) -> Result<Measurement, BenchError> {
        self.stage.arena.settle().await?;
        let keys = match target {
            Target::Direct | Target::Floor => vec![KEY.to_owned()],
            Target::Calos => self.stage.keys.clone(),
        };
        let tokens = case.streams.then_some(case.switches.answer_tokens);
        let goal = Goal::new(self.stage.address(target), &keys, tokens)?;
        let begin = Instant::now() + self.warm_up;
        let span = Span { begin, end: begin + self.measured };
        let arrival = case.arrival;
        let load = tokio::task::spawn_blocking(move || generate(&goal, arrival, span));
        let watching = (target == Target::Calos).then(|| watch(self.stage.address(target), span));
        tokio::time::sleep_until(span.begin.into()).await;
        let before = CpuReadings::read(self.stage);
        tokio::time::sleep_until(span.end.into()).await;
        let cpu = CpuReadings::read(self.stage).since(before);
        let seen: Seen = load.await.map_err(|error| BenchError::Check(format!("the load ended badly: {error}")))??;
        if let Some(watching) = watching {
            let pages = watching.await.map_err(|error| BenchError::Check(format!("nobody watched: {error}")))??;
            watched.take_in(case.name, pages)?;
        }
        let settled = if target == Target::Calos {
            self.catch_up().await?;
            Some(CpuReadings::read(self.stage).since(before))
        } else {
            None
        };
        Ok(Measurement { seen, elapsed: self.measured, cpu, settled })
    }

    /// Waits until every read model has seen everything: its work belongs to the calls that caused it.
    async fn catch_up(&self) -> Result<(), BenchError> {
        let deadline = Instant::now() + CATCH_UP_MAX;
        let mut connection = self.stage.arena.connect_to_log().await?;
        loop {
            let projections = status::projections(&mut connection).await?;
            let lag: i64 = projections.iter().map(status::ProjectionStatus::lag_events).sum();
            if lag == 0 {
                return Ok(sqlx::Connection::close(connection).await?);
            }
            if Instant::now() > deadline {
                return Err(BenchError::Check(format!("the read models are still {lag} events behind")));
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    async fn stored_uses(&self) -> Result<u64, BenchError> {
        let mut connection = self.stage.arena.connect_to_log().await?;
        let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM events WHERE event_type = 'usage_recorded'")
            .fetch_one(&mut connection)
            .await?;
        sqlx::Connection::close(connection).await?;
        Ok(u64::try_from(stored).unwrap_or_default())
    }

    /// A figure is worth something only if every call that was answered was recorded, and none was answered from nowhere.
    async fn check(&self, answered: u64, stored_before: u64, provider_before: u64) -> Result<(), BenchError> {
        let stored = self.stored_uses().await?.saturating_sub(stored_before);
        let called = self.stage.provider_calls().await?.saturating_sub(provider_before);
        if stored < answered || called < answered {
            return Err(BenchError::Check(format!(
                "{answered} calls were answered through CALOS, but {stored} uses are stored and the provider had {called}"
            )));
        }
        Ok(())
    }

    fn tell(&self, case: &Case, target: Target, measurement: &Measurement) {
        let quantile = |share| measurement.seen.whole.quantile_micros(share).unwrap_or_default();
        let failed = match (&measurement.seen.first_failure, measurement.seen.failed) {
            (Some(why), failed) => format!(", {failed} FAILED, the first: {why}"),
            (None, _) => String::new(),
        };
        self.progress.say(&format!(
            "{:<10} {:<6} {:>8.0} calls/s, p50 {:.0} us, p99 {:.0} us{failed}",
            case.name,
            target.name(),
            measurement.per_second(),
            quantile(0.5),
            quantile(0.99)
        ));
    }
}

/// A client of `reqwest`, which wants to be told by whom TLS is spoken even where none is.
fn http_client() -> Result<reqwest::Client, BenchError> {
    // One that an earlier caller installed is as good.
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().tcp_nodelay(true).pool_max_idle_per_host(1_024);
    builder.build().map_err(|error| BenchError::Environment(format!("no HTTP client: {error}")))
}

/// The simulated provider as this process: ends with its parent.
///
/// # Errors
/// When it cannot listen.
pub async fn run_provider() -> Result<(), BenchError> {
    let listener = children::listen().await?;
    tokio::select! {
        served = provider::serve(listener) => served,
        gone = children::parent_gone() => gone,
    }
}

/// The floor as this process: ends with its parent.
///
/// # Errors
/// When it cannot listen.
pub async fn run_floor(upstream: &str) -> Result<(), BenchError> {
    let listener = children::listen().await?;
    tokio::select! {
        served = floor::serve(listener, upstream, KEY) => served,
        gone = children::parent_gone() => gone,
    }
}

#[cfg(test)]
mod tests;
