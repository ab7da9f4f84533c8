//! What the server does by itself, cut off anywhere in between, and facts that come in different orders.

use calos_commands::processes::expire_grants::{DueGrant, expire_grants};
use calos_commands::processes::expire_holds::{DueHold, due_until, expire_holds};
use calos_domain::wallet::WalletCommand;
use calos_domain::{Asset, Timestamp};
use calos_projections::{open_grants, open_holds};

use super::Fault;
use super::driver::Driver;
use super::issue::Interruption;
use super::payments;
use super::tenant::Tenant;
use super::work::Order;

/// Holds or grants one sweep looks for.
const SWEEP_MAX_ROWS: u32 = 100_000;
/// Times a sweep is begun, once struck included: the database of a busy machine may be away for a moment by itself.
const SWEEP_MAX_ATTEMPTS: u32 = 10;
/// Tenants that are told the same facts in different orders.
const TWINS_COUNT: usize = 3;
/// Payments they are told of.
const TOLD_PAYMENTS_COUNT: usize = 3;

impl Driver {
    /// The process manager that expires holds, as the server runs it: what is due is read from a read model, and only the
    /// wallet decides. Cut off, it begins anew.
    pub(super) async fn sweep_holds(&mut self) -> Result<(), Fault> {
        let (interruption, now) = (Interruption::draw_of_effects(&mut self.chance), self.now);
        let first = self.due_holds(now).await?;
        self.lacks_no_hold(&first, now)?;
        for attempt in 0..SWEEP_MAX_ATTEMPTS {
            let due = self.due_holds(now).await?;
            let process = self.process().await?;
            let log = process.log.clone();
            let work = process.spawn(async move { expire_holds(&log, &due, now).await.map(drop) })?;
            if self.interrupt(attempt, interruption, work).await? {
                break;
            }
        }
        self.verify_swept(&first, now).await
    }

    /// The process manager that records what grants have run out.
    pub(super) async fn sweep_grants(&mut self) -> Result<(), Fault> {
        let (interruption, now) = (Interruption::draw_of_effects(&mut self.chance), self.now);
        let first = self.due_grants(now).await?;
        self.lacks_no_grant(&first, now)?;
        for attempt in 0..SWEEP_MAX_ATTEMPTS {
            let due = self.due_grants(now).await?;
            let process = self.process().await?;
            let log = process.log.clone();
            let work = process.spawn(async move { expire_grants(&log, &due, now).await.map(drop) })?;
            if self.interrupt(attempt, interruption, work).await? {
                break;
            }
        }
        self.verify_expired(&first, now).await
    }

    /// Strikes while effects are sent. Answers whether they are known to be sent.
    async fn interrupt<E: std::fmt::Display>(
        &mut self,
        attempt: u32,
        interruption: Interruption,
        work: tokio::task::JoinHandle<Result<(), E>>,
    ) -> Result<bool, Fault> {
        let interruption = if attempt == 0 { interruption } else { Interruption::None };
        self.strike(interruption).await?;
        match work.await {
            Ok(Ok(())) if interruption == Interruption::EffectsSent => {
                self.crash("effects sent");
                Ok(false)
            }
            Ok(Ok(())) => Ok(true),
            // Cut off: the next attempt begins anew, from what the read model says then.
            Ok(Err(_)) | Err(_) if attempt + 1 < SWEEP_MAX_ATTEMPTS => Ok(false),
            Ok(Err(error)) => Err(Fault::Violation(format!("a process manager failed: {error}"))),
            Err(error) => Err(Fault::Environment(format!("a process manager was lost: {error}"))),
        }
    }

    /// The holds the read model calls due, once it stands at the head.
    async fn due_holds(&mut self, now: Timestamp) -> Result<Vec<DueHold>, Fault> {
        self.caught_up("open_holds").await?;
        let mut found = open_holds::expired(&mut self.owner, due_until(now), SWEEP_MAX_ROWS).await?;
        found.sort_by_key(|hold| (hold.expires_at, hold.tenant_id, hold.hold_id));
        Ok(found.iter().map(|hold| DueHold { tenant_id: hold.tenant_id, hold_id: hold.hold_id }).collect())
    }

    /// The read model has lost no hold: every open one whose time has run out is among these.
    fn lacks_no_hold(&self, due: &[DueHold], now: Timestamp) -> Result<(), Fault> {
        for tenant in &self.tenants {
            for hold_id in tenant.model.figures.holds.keys() {
                let placed = tenant.model.use_of(hold_id).and_then(|known| known.hold.as_ref()).map(|hold| hold.1);
                let lapsed = placed.is_some_and(|placed| placed.expires <= due_until(now).micros());
                if lapsed && !due.iter().any(|hold| (hold.tenant_id, hold.hold_id) == (tenant.id, *hold_id)) {
                    return Err(Fault::Violation(format!(
                        "{}: the hold {hold_id} is due, and is not shown",
                        tenant.id
                    )));
                }
            }
        }
        Ok(())
    }

    async fn due_grants(&mut self, now: Timestamp) -> Result<Vec<DueGrant>, Fault> {
        self.caught_up("open_grants").await?;
        let found = open_grants::due(&mut self.owner, now, SWEEP_MAX_ROWS).await?;
        let mut due: Vec<DueGrant> =
            found.into_iter().map(|(tenant_id, grant_id)| DueGrant { tenant_id, grant_id }).collect();
        // Tenants that are gone from the simulation keep what they have.
        due.retain(|grant| self.tenants.iter().any(|tenant| tenant.id == grant.tenant_id));
        due.sort_unstable();
        Ok(due)
    }

    fn lacks_no_grant(&self, due: &[DueGrant], now: Timestamp) -> Result<(), Fault> {
        for tenant in &self.tenants {
            for (grant_id, terms) in &tenant.model.terms {
                let missing = DueGrant { tenant_id: tenant.id, grant_id: *grant_id };
                if terms.lapsed(now.micros()) && !terms.expiry_recorded && !due.contains(&missing) {
                    return Err(Fault::Violation(format!("{missing:?} is not shown")));
                }
            }
        }
        Ok(())
    }

    /// Invariant 6: tenants that are told the same facts, each in an order of its own and some of them twice, come to the
    /// same balances.
    pub(super) async fn converge(&mut self) -> Result<(), Fault> {
        let now = self.now;
        let mut facts = Vec::new();
        for _ in 0..TOLD_PAYMENTS_COUNT {
            facts.extend(payments::story(&mut self.chance, now, true));
        }
        let mut twins = Vec::new();
        for _ in 0..TWINS_COUNT {
            let tenant = Tenant::new(&mut self.chance, 0);
            let open = WalletCommand::OpenWallet { tenant_id: tenant.id, opened_at: now };
            self.tenants.push(tenant);
            self.summary.tenants += 1;
            let place = self.tenants.len() - 1;
            self.ask(vec![(place, Order::Wallet(open))], Interruption::None).await?;
            let mut left = facts.clone();
            while !left.is_empty() {
                let fact = left.swap_remove(self.chance.below(left.len()));
                if self.chance.one_in(5) {
                    left.push(fact.clone());
                }
                let interruption = Interruption::draw(&mut self.chance);
                self.ask(vec![(place, Order::Fact(fact, now))], interruption).await?;
            }
            let figures = &self.tenants[place].model.figures;
            let sums = Asset::ALL.map(|asset| (figures.available(asset), figures.debt(asset)));
            twins.push((self.tenants[place].id, sums, figures.frozen.clone()));
        }
        for pair in twins.windows(2) {
            if (pair[0].1, &pair[0].2) != (pair[1].1, &pair[1].2) {
                return Err(Fault::Violation(format!("the same facts came to {pair:?}")));
            }
        }
        *self.summary.kinds.entry("(twins converged)".to_owned()).or_default() += 1;
        Ok(())
    }
}
