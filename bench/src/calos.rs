//! What is measured: a wallet's `Charge` through the whole command path of the log, from the decision on warm state over
//! the seal chain to the durable commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use calos_adapters::postgres;
use calos_adapters::postgres::log::{LogOptions, PgLog};
use calos_commands::log::{EventLog, Failed, Plan, Request};
use calos_domain::wallet::{DebtCause, GrantKind, Wallet, WalletCommand, WalletRefusal};
use calos_domain::{Asset, MicroUsd, StreamId, Timestamp, Units};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use sqlx::{Connection, PgPool};
use tokio::task::JoinSet;

use crate::arena::{Arena, Fresh};
use crate::drive::{Caller, Driven, Window, drive};
use crate::error::BenchError;
use crate::workload::{self, EVENTS_PER_CHARGE, OPENING_MICROS, Payer, Spread};

/// Connections of the log's pool, as the server has them for it.
const LOG_CONNECTIONS_MAX: u32 = 8;
/// Concurrent commands while wallets are opened or a log is filled.
const FILLING_CALLERS: usize = 1_024;
/// Events that open one wallet: opened, granted.
const EVENTS_PER_OPENING: u64 = 2;

/// A log with open wallets in it.
pub struct CalosLog {
    /// Its database.
    pub fresh: Fresh,
    pool: PgPool,
    log: PgLog,
    payers: Arc<Vec<Payer>>,
    /// Events acknowledged so far: exactly as many must be stored.
    acknowledged: u64,
}

struct ChargeCaller {
    log: PgLog,
    payers: Arc<Vec<Payer>>,
    spread: Spread,
    random: SmallRng,
}

/// Charges until a number of charges has been claimed by all callers together.
struct FillCaller {
    charge: ChargeCaller,
    left: Arc<AtomicU64>,
}

/// The wall clock, as the edge hands it to commands.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

fn failed(error: Failed<WalletRefusal>) -> BenchError {
    match error {
        Failed::Refused(refusal) => BenchError::Check(format!("a charge was refused: {refusal}")),
        Failed::Log(error) => BenchError::Log(error),
    }
}

/// The command that spends without a hold.
pub fn charge_command(random: &mut SmallRng) -> WalletCommand {
    let usage = workload::usage(random);
    let amount = Units::from(usage.total);
    WalletCommand::Charge {
        usage,
        asset: Asset::Usd,
        amount,
        debt_limit: Units::ZERO,
        debt_cause: DebtCause::Overrun,
        at: now(),
    }
}

/// The command that opens a wallet.
pub fn open_command(payer: Payer) -> WalletCommand {
    WalletCommand::OpenWallet { tenant_id: payer.tenant, opened_at: now() }
}

/// The command that gives it more than any run can spend.
pub fn grant_command(payer: Payer) -> WalletCommand {
    let at = now();
    WalletCommand::GrantCredits {
        grant_id: payer.grant,
        asset: Asset::Usd,
        kind: GrantKind::Purchase,
        amount: Units::new(OPENING_MICROS),
        priority: 0,
        effective_at: at,
        expires_at: None,
        cost_basis: MicroUsd::ZERO,
        source_ref: "calos-bench".to_owned(),
        reason: None,
        at,
    }
}

impl ChargeCaller {
    fn new(log: &CalosLog, spread: Spread, number: usize) -> Self {
        let random = SmallRng::seed_from_u64(u64::try_from(number).unwrap_or_default());
        Self { log: log.log.clone(), payers: Arc::clone(&log.payers), spread, random }
    }
}

impl Caller for ChargeCaller {
    async fn call(&mut self) -> Result<u32, BenchError> {
        let payer = self.payers[self.spread.pick(self.payers.len(), &mut self.random)];
        let command = charge_command(&mut self.random);
        let mut plan = Plan::default();
        let wallet = plan.stream::<Wallet>(StreamId::key(payer.tenant));
        let request = Request::from(workload::metadata());
        let done = self.log.execute(&plan, request, |unit| unit.decide(wallet, command.clone())).await;
        let done = done.map_err(failed)?;
        if done.answer.len() != EVENTS_PER_CHARGE as usize {
            return Err(BenchError::Check(format!("a charge led to {} events", done.answer.len())));
        }
        Ok(0)
    }
}

async fn open_wallets(log: PgLog, payers: Vec<Payer>) -> Result<(), BenchError> {
    for payer in payers {
        let mut plan = Plan::default();
        let wallet = plan.stream::<Wallet>(StreamId::key(payer.tenant));
        let done = log.execute(&plan, Request::from(workload::metadata()), |unit| {
            unit.decide(wallet, open_command(payer))?;
            unit.decide(wallet, grant_command(payer))
        });
        done.await.map_err(failed)?;
    }
    Ok(())
}

async fn join(mut tasks: JoinSet<Result<(), BenchError>>) -> Result<(), BenchError> {
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| BenchError::Check(format!("a caller ended badly: {error}")))??;
    }
    Ok(())
}

impl CalosLog {
    /// A new log in a database of its own, with `wallets` wallets that have something to spend.
    pub async fn open(arena: &Arena, wallets: usize) -> Result<Self, BenchError> {
        Self::over(arena.with_log("calos").await?, wallets).await
    }

    /// Over a log that may hold something already: `wallets` wallets more, and of the rest nothing is known here.
    pub async fn over(fresh: Fresh, wallets: usize) -> Result<Self, BenchError> {
        let pool = postgres::connect(&fresh.url(), LOG_CONNECTIONS_MAX).await?;
        let log = PgLog::open(pool.clone(), LogOptions::default()).await?;
        let payers = Arc::new(workload::payers(wallets));
        let mut tasks = JoinSet::new();
        for share in payers.chunks(payers.len().div_ceil(FILLING_CALLERS).max(1)) {
            tasks.spawn(open_wallets(log.clone(), share.to_vec()));
        }
        join(tasks).await?;
        let acknowledged = EVENTS_PER_OPENING * u64::try_from(payers.len()).unwrap_or_default();
        Ok(Self { fresh, pool, log, payers, acknowledged })
    }

    /// Events acknowledged so far.
    pub fn events(&self) -> u64 {
        self.acknowledged
    }

    /// The log itself, for those who record what they did.
    pub fn log(&self) -> PgLog {
        self.log.clone()
    }

    /// Callers who charge, for whoever drives them otherwise; what is answered has to be acknowledged.
    pub fn callers(&self, spread: Spread, count: usize) -> Vec<impl Caller + use<>> {
        (0..count).map(|number| ChargeCaller::new(self, spread, number)).collect()
    }

    /// Takes note of charges that were answered.
    pub fn acknowledge(&mut self, charges: u64) {
        self.acknowledged += charges * u64::from(EVENTS_PER_CHARGE);
    }

    /// Lets callers charge for a while.
    pub async fn charge(
        &mut self,
        arena: &Arena,
        spread: Spread,
        callers: usize,
        window: Window,
    ) -> Result<Driven, BenchError> {
        arena.settle().await?;
        let driven = drive(self.callers(spread, callers), window, &arena.meter).await?;
        self.acknowledge(driven.answered);
        Ok(driven)
    }

    /// Charges all wallets until the log holds at least `events` events, or until there is no more time.
    pub async fn fill(&mut self, events: u64, time: Option<Duration>) -> Result<(), BenchError> {
        let deadline = time.map(|time| Instant::now() + time);
        let charges = events.saturating_sub(self.acknowledged).div_ceil(u64::from(EVENTS_PER_CHARGE));
        let left = Arc::new(AtomicU64::new(charges));
        let mut tasks: JoinSet<Result<(), BenchError>> = JoinSet::new();
        for number in 0..FILLING_CALLERS {
            let charge = ChargeCaller::new(self, Spread::Uniform, number);
            let mut caller = FillCaller { charge, left: Arc::clone(&left) };
            tasks.spawn(async move {
                let one_less = |left: u64| left.checked_sub(1);
                while deadline.is_none_or(|deadline| Instant::now() < deadline)
                    && caller.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
                {
                    caller.charge.call().await?;
                }
                Ok(())
            });
        }
        join(tasks).await?;
        let charged = charges - left.load(Ordering::Relaxed);
        self.acknowledged += charged * u64::from(EVENTS_PER_CHARGE);
        Ok(())
    }

    /// Asks the database whether it holds exactly what was acknowledged, without a gap.
    pub async fn check(&self) -> Result<(), BenchError> {
        let mut owner = self.fresh.connect().await?;
        let (wallets, stored, headed, gaps): (i64, i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM events WHERE aggregate_type = 'wallet'),
                    (SELECT count(*) FROM events),
                    (SELECT sum(last_position)::bigint FROM partitions),
                    (SELECT count(*) FROM (SELECT partition, count(*) AS stored, max(position) AS last
                                           FROM events GROUP BY partition) AS p WHERE stored <> last)",
        )
        .fetch_one(&mut owner)
        .await?;
        owner.close().await?;
        if u64::try_from(wallets) != Ok(self.acknowledged) || headed != stored || gaps > 0 {
            return Err(BenchError::Check(format!(
                "{} events of wallets were acknowledged, {wallets} are stored; of all {stored} the heads say {headed}, \
                 {gaps} partitions have gaps",
                self.acknowledged
            )));
        }
        Ok(())
    }

    /// Ends the log's tasks; its database stays.
    pub async fn stop(self) -> Fresh {
        self.log.close().await;
        self.pool.close().await;
        self.fresh
    }

    /// Checks, ends and drops it.
    pub async fn finish(self, arena: &Arena) -> Result<(), BenchError> {
        self.check().await?;
        let fresh = self.stop().await;
        arena.drop_database(fresh).await
    }
}
