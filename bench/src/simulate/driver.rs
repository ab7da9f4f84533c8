//! The driver: draws a step, has the server carry it out through whatever strikes it, and holds the log against the model.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use calos_adapters::postgres;
use calos_domain::wallet::{ReleaseCause, WalletCommand};
use calos_domain::{HoldId, TenantId, Timestamp};
use calos_projections::wait_until;
use sqlx::{Executor, PgConnection};
use tokio::time::Instant;

use super::chance::Chance;
use super::history::History;
use super::issue::Interruption;
use super::known_at::KnownAt;
use super::ledger::Ledger;
use super::orders;
use super::process::Process;
use super::recorded::Recorded;
use super::tail::Cursor;
use super::tenant::Tenant;
use super::verify::Issued;
use super::work::Order;
use super::{Failure, Fault, Options, Summary};

/// When the simulated history begins: 2025-01-01.
const BEGINNING_SECONDS: i64 = 1_735_689_600;
/// Orders in flight together, at the most.
const GROUP_MAX_ORDERS: usize = 24;
/// Commands a tenant gets.
const LIFE_COMMANDS: (i64, i64) = (150, 1_500);
/// How long a read model may take to come to the head of the log.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);
/// Steps between two reports.
const REPORT_EVERY_STEPS: u64 = 50;
/// Seconds in an hour.
const HOUR_SECONDS: i64 = 3_600;

/// One simulation.
pub struct Driver {
    pub(super) url: String,
    pub(super) owner: PgConnection,
    pub(super) options: Options,
    pub(super) chance: Chance,
    pub(super) now: Timestamp,
    pub(super) process: Option<Process>,
    pub(super) cursor: Cursor,
    pub(super) tenants: Vec<Tenant>,
    pub(super) recorded: BTreeMap<TenantId, Recorded>,
    pub(super) ledger: Ledger,
    /// What was known at earlier checkpoints.
    pub(super) known_at: Vec<KnownAt>,
    /// Adjustments that were applied, by their streams.
    pub(super) applied: BTreeSet<String>,
    pub(super) history: History,
    pub(super) summary: Summary,
    /// Whose wallet the step that failed is about.
    pub(super) suspect: Option<TenantId>,
    checked_at_commands: u64,
}

impl Driver {
    /// Begins on an empty log.
    pub async fn open(url: &str, options: Options) -> Result<Self, Fault> {
        let mut owner = postgres::connect_one(url).await?;
        // What is inserted all the time is analysed never: a plan that looks a position up by its key is the only good one.
        owner.execute("SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off").await?;
        let cursor = Cursor::start(&mut owner).await?;
        Ok(Self {
            url: url.to_owned(),
            owner,
            options,
            chance: Chance::of(options.seed),
            now: Timestamp::from_micros(0).plus_seconds(BEGINNING_SECONDS),
            process: None,
            cursor,
            tenants: Vec::new(),
            recorded: BTreeMap::new(),
            ledger: Ledger::default(),
            known_at: Vec::new(),
            applied: BTreeSet::new(),
            history: History::default(),
            summary: Summary::default(),
            suspect: None,
            checked_at_commands: 0,
        })
    }

    /// Steps until all commands are asked, and checks everything once more.
    pub async fn run(&mut self, mut say: impl FnMut(&Summary)) -> Result<Summary, Box<Failure>> {
        loop {
            let done = self.summary.commands >= self.options.commands;
            let stepped = if done { self.checkpoint().await } else { self.step().await };
            if let Err(fault) = stepped {
                let (seed, step, commands) = (self.options.seed, self.summary.steps, self.summary.commands);
                let tail = self.history.tail(self.suspect);
                return Err(Box::new(Failure { seed, step, commands, fault, tail }));
            }
            if self.summary.steps.is_multiple_of(REPORT_EVERY_STEPS) || done {
                say(&self.summary);
            }
            if done {
                return Ok(std::mem::take(&mut self.summary));
            }
        }
    }

    async fn step(&mut self) -> Result<(), Fault> {
        self.summary.steps += 1;
        self.suspect = None;
        let living = self.tenants.iter().filter(|tenant| tenant.left > 0).count();
        let due = self.summary.commands - self.checked_at_commands >= self.options.check_every_commands;
        if living == 0 || due {
            if self.summary.commands > 0 {
                self.retire().await?;
                self.checked_at_commands = self.summary.commands;
                self.checkpoint().await?;
            }
            return self.welcome().await;
        }
        self.pass_time();
        match self.chance.below(40) {
            0 => self.sweep_holds().await,
            1 => self.sweep_grants().await,
            2 if self.chance.one_in(4) => self.converge().await,
            _ => {
                let interruption = Interruption::draw(&mut self.chance);
                let group = self.draw_group(interruption);
                self.ask(group, interruption).await
            }
        }
    }

    /// Mostly a moment; now and then an hour or a night, over the end of holds and grants; now and then a little back.
    fn pass_time(&mut self) {
        let seconds = match self.chance.below(100) {
            0 => self.chance.between(HOUR_SECONDS, 12 * HOUR_SECONDS),
            1..=3 => self.chance.between(60, HOUR_SECONDS),
            4..=6 => -self.chance.between(1, 100),
            _ => self.chance.between(0, 3),
        };
        self.now = self.now.plus_seconds(seconds);
    }

    /// Orders to be in flight together.
    fn draw_group(&mut self, interruption: Interruption) -> Vec<(usize, Order)> {
        let living: Vec<usize> = (0..self.tenants.len()).filter(|place| self.tenants[*place].left > 0).collect();
        let count = 1 + self.chance.below(GROUP_MAX_ORDERS);
        // Most go to a few wallets, so that several are in flight for one of them.
        let crowd = 1 + self.chance.below(living.len());
        let mut group: Vec<(usize, Order)> = Vec::with_capacity(count);
        let spending = self.chance.one_in(2);
        for _ in 0..count {
            let Some(place) = self.chance.pick(&living[..crowd]).copied() else { break };
            // What was cut off is asked again in the same order, but what is then refused was asked of another state: only
            // where that makes no difference may several be in flight for one wallet.
            let crowded = group.iter().any(|(other, _)| *other == place);
            let order = if interruption.cuts_off() && spending {
                Order::Wallet(orders::spending(&mut self.chance, self.now))
            } else if interruption.cuts_off() && crowded {
                continue;
            } else {
                orders::any(&mut self.chance, &mut self.tenants[place], self.now)
            };
            self.tenants[place].left = self.tenants[place].left.saturating_sub(1);
            group.push((place, order));
        }
        group
    }

    /// Has orders carried out and holds what came of them against the model.
    pub(super) async fn ask(&mut self, group: Vec<(usize, Order)>, interruption: Interruption) -> Result<(), Fault> {
        self.summary.commands += group.len() as u64;
        let mut issued: Vec<Issued> = group
            .into_iter()
            .map(|(place, order)| Issued { place, command_id: self.chance.any_id(), order, answer: None, attempts: 0 })
            .collect();
        self.issue(&mut issued, interruption).await?;
        self.verify(&issued).await
    }

    /// Tenants that have had their orders are told what is still in their inboxes, and give back what their holds keep.
    async fn retire(&mut self) -> Result<(), Fault> {
        let at = self.now;
        let release = |hold_id: &HoldId| {
            Order::Wallet(WalletCommand::ReleaseHold { hold_id: *hold_id, cause: ReleaseCause::ClientGone, at })
        };
        let leaving = self.tenants.iter().enumerate().filter(|(_, tenant)| tenant.left == 0);
        let group: Vec<(usize, Order)> = leaving
            .flat_map(|(place, tenant)| {
                let facts = tenant.inbox.iter().map(move |fact| (place, Order::Fact(fact.clone(), at)));
                facts.chain(tenant.model.figures.holds.keys().map(move |hold_id| (place, release(hold_id))))
            })
            .collect();
        for part in group.chunks(GROUP_MAX_ORDERS) {
            self.ask(part.to_vec(), Interruption::None).await?;
        }
        Ok(())
    }

    /// New tenants in the place of those that have left.
    async fn welcome(&mut self) -> Result<(), Fault> {
        let left: Vec<TenantId> =
            self.tenants.iter().filter(|tenant| tenant.left == 0).map(|tenant| tenant.id).collect();
        for tenant in &self.tenants {
            if tenant.left == 0 {
                self.ledger.archive(tenant.id, &tenant.model);
            }
        }
        self.tenants.retain(|tenant| tenant.left > 0);
        for tenant in left {
            self.recorded.remove(&tenant);
        }
        while self.tenants.len() < self.options.tenants.max(1) {
            let life = usize::try_from(self.chance.between(LIFE_COMMANDS.0, LIFE_COMMANDS.1)).unwrap_or(1);
            let tenant = Tenant::new(&mut self.chance, life);
            let opening = orders::opening(&mut self.chance, tenant.id, self.now);
            self.tenants.push(tenant);
            self.summary.tenants += 1;
            let place = self.tenants.len() - 1;
            let group = opening.into_iter().map(|command| (place, Order::Wallet(command))).collect();
            self.ask(group, Interruption::None).await?;
        }
        Ok(())
    }

    /// Waits until the runner has brought a read model to the head of the log.
    pub(super) async fn caught_up(&mut self, projection: &str) -> Result<(), Fault> {
        // Whatever an interrupted step left in the log is read first; it is verified by its own step.
        let heads = sqlx::query_as::<_, (i32, i64)>("SELECT partition, last_position FROM partitions");
        let heads: BTreeMap<i32, i64> = heads.fetch_all(&mut self.owner).await?.into_iter().collect();
        let process = self.process().await?;
        let Some(progress) = process.progress() else { return Ok(()) };
        let pool = process.pool.clone();
        let projection = projection.to_owned();
        let deadline = Instant::now() + CATCH_UP_MAX;
        let waiting =
            process.spawn(async move { wait_until(&pool, &progress, &projection, &heads, deadline).await })?;
        match waiting.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(behind)) => Err(Fault::Violation(behind.to_string())),
            Err(error) => Err(Fault::Environment(format!("waiting was lost: {error}"))),
        }
    }

    /// The server that runs, started if none does.
    pub(super) async fn process(&mut self) -> Result<&Process, Fault> {
        let running = match self.process.take() {
            Some(running) => running,
            None => Process::start(&self.url, true).await?,
        };
        Ok(self.process.insert(running))
    }

    /// Ends the server wherever it is.
    pub(super) fn crash(&mut self, whence: &'static str) {
        if let Some(process) = self.process.take() {
            process.crash();
            *self.summary.interruptions.entry(whence).or_default() += 1;
            self.history.event(self.summary.steps, None, format!("crash: {whence}"));
        }
    }
}
