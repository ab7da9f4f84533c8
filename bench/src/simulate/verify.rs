//! Holding the log against the model after a step.

use std::collections::{BTreeMap, BTreeSet};

use calos_commands::processes::expire_grants::DueGrant;
use calos_commands::processes::expire_holds::DueHold;
use calos_domain::adjustment::AdjustmentEvent;
use calos_domain::payment::PaymentEvent;
use calos_domain::wallet::{ReleaseCause, WalletCommand, WalletEvent};
use calos_domain::{Fact, TenantId, Timestamp};
use uuid::Uuid;

use super::Fault;
use super::driver::Driver;
use super::model::{Model, Verdict};
use super::tail::Happened;
use super::work::{Answer, Order};

/// An order on its way, and what became of it.
pub struct Issued {
    /// The tenant's place.
    pub place: usize,
    /// The same for every attempt.
    pub command_id: Uuid,
    /// What was asked.
    pub order: Order,
    /// The answer, once there is one.
    pub answer: Option<Answer>,
    /// Times it was asked.
    pub attempts: u32,
}

/// The events of one command of one tenant.
#[derive(Debug)]
struct Chunk {
    command_id: Uuid,
    events: Vec<WalletEvent>,
    facts: Vec<PaymentEvent>,
    adjustments: Vec<AdjustmentEvent>,
}

impl Driver {
    /// Reads what the step left in the log, books it, and holds every wallet it moved against the model.
    pub(super) async fn verify(&mut self, issued: &[Issued]) -> Result<(), Fault> {
        let mut chunks = self.read_on().await?;
        let touched: BTreeSet<usize> = issued.iter().map(|one| one.place).collect();
        for place in touched {
            let tenant = self.tenants[place].id;
            self.suspect = Some(tenant);
            let of_it: Vec<&Issued> = issued.iter().filter(|one| one.place == place).collect();
            self.verify_tenant(place, &of_it, chunks.remove(&tenant).unwrap_or_default())?;
        }
        match chunks.into_keys().next() {
            None => Ok(()),
            Some(tenant) => Err(Fault::Violation(format!("the wallet of {tenant} moved, which nobody asked for"))),
        }
    }

    /// Everything new in the log, by tenant and command.
    async fn read_on(&mut self) -> Result<BTreeMap<TenantId, Vec<Chunk>>, Fault> {
        let mut chunks: BTreeMap<TenantId, Vec<Chunk>> = BTreeMap::new();
        for stored in self.cursor.read(&mut self.owner).await? {
            self.summary.events += 1;
            let (Some(tenant), Some(happened)) = (stored.tenant(), stored.event()?) else { continue };
            let of_it = chunks.entry(tenant).or_default();
            if of_it.last().is_none_or(|chunk| chunk.command_id != stored.command_id) {
                let command_id = stored.command_id;
                of_it.push(Chunk { command_id, events: Vec::new(), facts: Vec::new(), adjustments: Vec::new() });
            }
            let Some(chunk) = of_it.last_mut() else { continue };
            let name = match &happened {
                Happened::Wallet(event) => event.name(),
                Happened::Payment(event) => event.name(),
                Happened::Adjustment(event) => event.name(),
            };
            *self.summary.kinds.entry(name.to_owned()).or_default() += 1;
            match happened {
                Happened::Wallet(event) => {
                    self.ledger.wallet(tenant, &event)?;
                    chunk.events.push(event);
                }
                Happened::Payment(event) => {
                    self.ledger.payment(&event)?;
                    chunk.facts.push(event);
                }
                Happened::Adjustment(event) => {
                    if matches!(event, AdjustmentEvent::AdjustmentApplied(_))
                        && !self.applied.insert(stored.stream.clone())
                    {
                        return Err(Fault::Violation(format!("{} was applied twice", stored.stream)));
                    }
                    chunk.adjustments.push(event);
                }
            }
        }
        Ok(chunks)
    }

    /// One tenant: every event is explained by its command, every refusal and every "nothing to do" by some moment in the
    /// order of the log.
    fn verify_tenant(&mut self, place: usize, issued: &[&Issued], chunks: Vec<Chunk>) -> Result<(), Fault> {
        let moved: BTreeSet<Uuid> = chunks.iter().map(|chunk| chunk.command_id).collect();
        let (step, id) = (self.summary.steps, self.tenants[place].id);
        let mut open: Vec<&Issued> = issued.iter().copied().filter(|one| !moved.contains(&one.command_id)).collect();
        open.retain(|one| !self.explained(place, one));
        for chunk in chunks {
            let Some(one) = issued.iter().find(|one| one.command_id == chunk.command_id) else {
                return Err(Fault::Violation(format!("nobody asked for {chunk:?}")));
            };
            self.history.order(step, id, &one.order, format!("{} events", chunk.events.len()));
            let refused_again = one.is_refused_again();
            if !refused_again {
                one.check(&chunk)?;
            }
            self.take(place, &one.order, &chunk.events)?;
            self.tenants[place].remember(&mut self.chance, &one.order);
            if refused_again {
                open.push(one);
            }
            open.retain(|one| !self.explained(place, one));
        }
        for one in issued.iter().filter(|one| !moved.contains(&one.command_id)) {
            match &one.answer {
                Some(Answer::Refused(_)) => self.summary.refused += 1,
                Some(Answer::Done(_)) | None => {
                    self.summary.repeated += 1;
                    if let Order::Fact(..) = &one.order {
                        self.tenants[place].remember(&mut self.chance, &one.order);
                    }
                }
            }
            self.history.order(step, id, &one.order, format!("{:?}", one.answer));
        }
        if let Some(one) = open.first() {
            let verdict = self.tenants[place].judge(&one.order);
            let Issued { answer, order, .. } = one;
            return Err(Fault::Violation(format!("{answer:?} was answered to {order:?}, the model says {verdict:?}")));
        }
        let recorded = self.recorded.entry(id).or_default();
        self.ledger.check_tenant(id, &recorded.figures)?;
        Ok(())
    }

    /// Whether the model, as it stands, would answer just so and change nothing.
    fn explained(&self, place: usize, one: &Issued) -> bool {
        match (&one.answer, self.tenants[place].judge(&one.order)) {
            (Some(Answer::Refused(why)), Verdict::Refused(expected)) => *why == expected,
            (Some(Answer::Done(Some(0) | None)), Verdict::Nothing) => true,
            (_, _) => false,
        }
    }

    /// Takes a command's events into the record and the order into the model, and compares.
    fn take(&mut self, place: usize, order: &Order, events: &[WalletEvent]) -> Result<(), Fault> {
        let tenant = &mut self.tenants[place];
        let recorded = self.recorded.entry(tenant.id).or_default();
        for event in events {
            recorded.fold(event).map_err(|fault| format!("{fault}: {event:?}"))?;
        }
        match tenant.judge(order) {
            Verdict::Changes => tenant.perform(order)?,
            other => {
                return Err(Fault::Violation(format!("{other:?} is what the model says, the log says {events:?}")));
            }
        }
        same(&tenant.model, &recorded.figures).map_err(|fault| Fault::Violation(format!("{fault}, after {events:?}")))
    }

    /// The same for what the process manager did: every hold it was due to expire is expired, or had ended before.
    pub(super) async fn verify_swept(&mut self, due: &[DueHold], at: Timestamp) -> Result<(), Fault> {
        let known: BTreeSet<_> = due.iter().map(|hold| (hold.tenant_id, hold.hold_id)).collect();
        let release = |hold_id| WalletCommand::ReleaseHold { hold_id, cause: ReleaseCause::Expired, at };
        self.verify_effects(|tenant, events| {
            let released = events.iter().find_map(|event| match event {
                WalletEvent::HoldReleased(released) => Some(released.hold_id),
                _ => None,
            });
            released.filter(|hold_id| known.contains(&(tenant, *hold_id))).map(release)
        })
        .await?;
        for hold in due {
            self.is_done(hold.tenant_id, &release(hold.hold_id))?;
        }
        Ok(())
    }

    /// The same for grants that have run out.
    pub(super) async fn verify_expired(&mut self, due: &[DueGrant], at: Timestamp) -> Result<(), Fault> {
        let expire = |grant_id| WalletCommand::ExpireGrant { grant_id, at };
        self.verify_effects(|_, events| match events {
            [.., WalletEvent::GrantExpired(expired)] => Some(expire(expired.grant_id)),
            _ => None,
        })
        .await?;
        for grant in due {
            self.is_done(grant.tenant_id, &expire(grant.grant_id))?;
        }
        Ok(())
    }

    /// What a process manager did, each part as the command that must have been behind it.
    async fn verify_effects(
        &mut self,
        behind: impl Fn(TenantId, &[WalletEvent]) -> Option<WalletCommand>,
    ) -> Result<(), Fault> {
        for (tenant, chunks) in self.read_on().await? {
            self.suspect = Some(tenant);
            let Some(place) = self.tenants.iter().position(|known| known.id == tenant) else {
                return Err(Fault::Violation(format!("the wallet of {tenant}, which is gone, was moved")));
            };
            for chunk in chunks {
                let Some(command) = behind(tenant, &chunk.events) else {
                    return Err(Fault::Violation(format!("a process manager did {:?}", chunk.events)));
                };
                let order = Order::Wallet(command);
                self.history.order(self.summary.steps, tenant, &order, "swept".to_owned());
                self.take(place, &order, &chunk.events)?;
                self.summary.swept += 1;
            }
        }
        Ok(())
    }

    /// Nothing is left to do of this.
    fn is_done(&mut self, tenant: TenantId, command: &WalletCommand) -> Result<(), Fault> {
        let known = self.tenants.iter().find(|known| known.id == tenant);
        if known.is_some_and(|known| known.model.judge(command) == Verdict::Changes) {
            self.suspect = Some(tenant);
            return Err(Fault::Violation(format!("{command:?} was due and is not done")));
        }
        Ok(())
    }
}

impl Issued {
    /// Whether it was refused when it was asked again, its first answer lost. It may have been carried out the first time,
    /// and what was asked beside it can have gone on from there: a hold that expired is settled late, say, and then its
    /// expiry is refused. Some moment after its events has to explain that.
    const fn is_refused_again(&self) -> bool {
        self.attempts > 1 && matches!(self.answer, Some(Answer::Refused(_)))
    }

    /// The answer is the one these events deserve. Asked again, an order that is in the log already has nothing to do.
    fn check(&self, chunk: &Chunk) -> Result<(), Fault> {
        let again = self.attempts > 1;
        let deserved = match (&self.order, &self.answer) {
            (Order::Wallet(_), Some(Answer::Done(Some(count)))) => {
                *count == chunk.events.len() || (*count == 0 && again)
            }
            (Order::Fact(fact, _), Some(Answer::Done(count))) => {
                chunk.facts == [fact.clone()] && (count.is_none() || again)
            }
            (Order::Adjust(..), Some(Answer::Done(_))) => !chunk.adjustments.is_empty(),
            (_, _) => false,
        };
        let Self { order, answer, .. } = self;
        if deserved {
            Ok(())
        } else {
            Err(Fault::Violation(format!("{answer:?} was answered to {order:?}: {chunk:?}")))
        }
    }
}

fn same(model: &Model, recorded: &super::figures::Figures) -> Result<(), String> {
    model.check()?;
    recorded.check()?;
    model.figures.difference(recorded).map_or(Ok(()), Err)
}
