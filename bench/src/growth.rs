//! `calos-bench append --growth`: what a deduction, a decision and a rebuild cost as the log grows.

use std::time::{Duration, Instant};

use calos_domain::Decider;
use calos_domain::wallet::{Wallet, WalletCommand};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::arena::Arena;
use crate::calos::{CalosLog, charge_command, grant_command, open_command};
use crate::cli::AppendArguments;
use crate::drive::Window;
use crate::error::BenchError;
use crate::machine;
use crate::progress::Progress;
use crate::rebuild::{self, Models, Rebuilt};
use crate::report::{ExtraTable, Measured, Ratio, Target};
use crate::stats::{Label, Scenario, count_as_f64};
use crate::workload::{self, EVENTS_PER_CHARGE, Spread};

/// The first stage, in events.
const FIRST_STAGE_EVENTS: u64 = 10_000;
const STAGE_FACTOR: u64 = 10;
/// Wallets at the most: few enough that the first stage is not all openings, and the same at every stage.
const GROWTH_WALLETS_MAX: usize = 1_000;
/// Decisions timed at each stage.
const TIMED_DECISIONS: u32 = 20_000;
const NANOS_PER_SECOND: f64 = 1e9;

/// Cost may wander this far between the first and the last stage before it is called growth.
const APPEND_FLAT: Target = Target { name: "growth_append_flat", target: 0.7, goal: Some(1.0) };
const DECIDE_FLAT: Target = Target { name: "growth_decide_flat", target: 0.7, goal: Some(1.0) };

const COLUMNS: [&str; 10] = [
    "events",
    "commands_per_second",
    "p50_micros",
    "p99_micros",
    "client_cpu_micros_per_event",
    "postgres_cpu_micros_per_event",
    "warm_decide_nanos",
    "rebuild_events_per_second",
    "rebuild_peak_process_mib",
    "rebuild_rows",
];

/// One wallet in memory that is charged over and over.
struct HotWallet {
    wallet: Wallet,
    events: u64,
    random: SmallRng,
}

impl HotWallet {
    fn open() -> Result<Self, BenchError> {
        let mut hot = Self { wallet: Wallet::default(), events: 0, random: SmallRng::seed_from_u64(7) };
        for payer in workload::payers(1) {
            hot.take(open_command(payer))?;
            hot.take(grant_command(payer))?;
        }
        Ok(hot)
    }

    fn take(&mut self, command: WalletCommand) -> Result<(), BenchError> {
        let events = self.wallet.decide(command);
        let events = events.map_err(|refusal| BenchError::Check(format!("the hot wallet refused: {refusal}")))?;
        for event in &events {
            self.wallet.evolve(event);
        }
        self.events += u64::try_from(events.len()).unwrap_or_default();
        Ok(())
    }

    fn grow_to(&mut self, events: u64) -> Result<(), BenchError> {
        while self.events < events {
            let command = charge_command(&mut self.random);
            self.take(command)?;
        }
        Ok(())
    }

    /// Nanoseconds to decide one charge and fold its events, the command's own making left out.
    fn decide_nanos(&mut self) -> Result<f64, BenchError> {
        let mut spent = Duration::ZERO;
        for _ in 0..TIMED_DECISIONS {
            let command = charge_command(&mut self.random);
            let started = Instant::now();
            self.take(command)?;
            spent += started.elapsed();
        }
        Ok(spent.as_secs_f64() * NANOS_PER_SECOND / f64::from(TIMED_DECISIONS))
    }
}

fn stages(limit: u64) -> Vec<u64> {
    let mut stages: Vec<u64> = std::iter::successors(Some(FIRST_STAGE_EVENTS), |stage| stage.checked_mul(STAGE_FACTOR))
        .take_while(|stage| *stage < limit)
        .collect();
    stages.push(limit);
    stages
}

/// Grows one log stage by stage and measures at each.
pub async fn run(arena: &Arena, arguments: &AppendArguments, progress: &Progress) -> Result<Measured, BenchError> {
    let callers = usize::from(arguments.callers);
    let wallets = usize::try_from(arguments.common.wallets).unwrap_or(usize::MAX).min(GROWTH_WALLETS_MAX);
    let window = Window {
        warm_up: Duration::from_millis(300),
        measured: Duration::from_secs(arguments.seconds.map_or(1, u64::from)),
    };
    let mut log = CalosLog::open(arena, wallets).await?;
    let mut hot = HotWallet::open()?;
    let mut rows = Vec::new();
    for stage in stages(arguments.growth_events) {
        log.fill(stage, None).await?;
        let events = log.events();
        let driven = log.charge(arena, Spread::Uniform, callers, window).await?;
        let label = Label {
            name: "stage",
            what: String::new(),
            callers,
            connections: None,
            unit: "command",
            events_per_operation: EVENTS_PER_CHARGE,
        };
        let append = Scenario::of(label, &[driven.run]);
        hot.grow_to(stage)?;
        let decide_nanos = hot.decide_nanos()?;
        let (rebuilt, peak_mib) = rebuild_with_peak(arena, &log).await?;
        progress.say(&format!(
            "{events} events: {:.0} commands/s, decides in {decide_nanos:.0} ns, rebuilds {:.0} events/s",
            append.per_second,
            rebuilt.run.rate()
        ));
        rows.push(vec![
            Some(count_as_f64(events)),
            Some(append.per_second),
            append.p50_micros,
            append.p99_micros,
            append.client_cpu_micros_per_event,
            append.postgres_cpu_micros_per_event,
            Some(decide_nanos),
            Some(rebuilt.run.rate()),
            peak_mib.map(count_as_f64),
            Some(count_as_f64(rebuilt.rows)),
        ]);
    }
    log.finish(arena).await?;
    let ratios = flatness(&rows);
    let table = ExtraTable {
        name: "growth",
        title: format!("Growth: {wallets} wallets, {callers} callers; the same number of keys at every stage"),
        columns: COLUMNS.to_vec(),
        rows,
    };
    let notes =
        vec!["Flat is the last stage against the first: rate against rate, decision against decision.".to_owned()];
    Ok(Measured { scenarios: Vec::new(), ratios, tables: vec![table], notes })
}

/// Rebuilds the balances and tells the most memory this process held meanwhile, in MiB.
async fn rebuild_with_peak(arena: &Arena, log: &CalosLog) -> Result<(Rebuilt, Option<u64>), BenchError> {
    let model = rebuild::wallet_balance()?;
    let models = Models::live(log, &[model]).await?;
    let resettable = machine::forget_peak_memory();
    let rebuilt = models.rebuild(arena, &[model]).await?;
    let peak = machine::peak_memory_mib().filter(|_| resettable);
    models.close().await;
    Ok((rebuilt, peak))
}

fn flatness(rows: &[Vec<Option<f64>>]) -> Vec<Ratio> {
    const RATE: usize = 1;
    const DECIDE: usize = 6;
    let figure = |row: Option<&Vec<Option<f64>>>, column: usize| row.and_then(|row| row.get(column).copied().flatten());
    let mut ratios = Vec::new();
    if let (Some(first), Some(last)) = (figure(rows.first(), RATE), figure(rows.last(), RATE)) {
        ratios.push(Ratio::single(APPEND_FLAT, last, first));
    }
    if let (Some(first), Some(last)) = (figure(rows.first(), DECIDE), figure(rows.last(), DECIDE)) {
        ratios.push(Ratio::single(DECIDE_FLAT, first, last));
    }
    ratios
}

#[cfg(test)]
mod tests {
    use super::{HotWallet, stages};

    #[test]
    fn stages_grow_tenfold_and_end_at_the_limit() {
        assert_eq!(stages(10_000), [10_000]);
        assert_eq!(stages(1_000_000), [10_000, 100_000, 1_000_000]);
        assert_eq!(stages(2_500_000), [10_000, 100_000, 1_000_000, 2_500_000]);
    }

    #[test]
    fn the_hot_wallet_takes_charges_without_end() {
        let mut hot = HotWallet::open().unwrap();
        hot.grow_to(20_000).unwrap();
        assert!(hot.events >= 20_000);
        assert!(hot.decide_nanos().unwrap() > 0.0);
    }
}
