//! Holding the log against the model after a step.

use std::collections::{BTreeMap, BTreeSet};

use calos_commands::processes::expire_holds::DueHold;
use calos_domain::TenantId;
use calos_domain::wallet::{ReleaseCause, WalletCommand, WalletEvent};
use uuid::Uuid;

use super::Fault;
use super::driver::Driver;
use super::model::{Model, Verdict};
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

/// The events of one command in one wallet.
struct Chunk {
    command_id: Uuid,
    events: Vec<WalletEvent>,
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
            self.verify_wallet(place, &of_it, chunks.remove(&tenant).unwrap_or_default())?;
        }
        match chunks.into_keys().next() {
            None => Ok(()),
            Some(tenant) => Err(Fault::Violation(format!("the wallet of {tenant} moved, which nobody asked for"))),
        }
    }

    /// Everything new in the log, by wallet and command.
    async fn read_on(&mut self) -> Result<BTreeMap<TenantId, Vec<Chunk>>, Fault> {
        let mut chunks: BTreeMap<TenantId, Vec<Chunk>> = BTreeMap::new();
        for stored in self.cursor.read(&mut self.owner).await? {
            self.summary.events += 1;
            let Some(tenant) = stored.wallet() else { continue };
            let event = stored.event()?;
            *self.summary.kinds.entry(calos_domain::Fact::name(&event).to_owned()).or_default() += 1;
            self.ledger.wallet(tenant, &event)?;
            let recorded = self.recorded.entry(tenant).or_default();
            if stored.sequence != recorded.sequence + 1 + pending(chunks.get(&tenant)) {
                return Err(Fault::Violation(format!(
                    "{tenant}: sequence {} after {}",
                    stored.sequence, recorded.sequence
                )));
            }
            let of_it = chunks.entry(tenant).or_default();
            match of_it.last_mut().filter(|chunk| chunk.command_id == stored.command_id) {
                Some(chunk) => chunk.events.push(event),
                None => of_it.push(Chunk { command_id: stored.command_id, events: vec![event] }),
            }
        }
        Ok(chunks)
    }

    /// One wallet: every event is explained by its command, every refusal and every "nothing to do" by some moment in the
    /// order of the log.
    fn verify_wallet(&mut self, place: usize, issued: &[&Issued], chunks: Vec<Chunk>) -> Result<(), Fault> {
        let moved: BTreeSet<Uuid> = chunks.iter().map(|chunk| chunk.command_id).collect();
        let (step, id) = (self.summary.steps, self.tenants[place].id);
        let mut open: Vec<&Issued> = issued.iter().copied().filter(|one| !moved.contains(&one.command_id)).collect();
        let mut outcomes = Vec::new();
        open.retain(|one| !self.explained(place, one));
        for chunk in chunks {
            let Some(one) = issued.iter().find(|one| one.command_id == chunk.command_id) else {
                return Err(Fault::Violation(format!("{id}: nobody asked for {:?}", chunk.events)));
            };
            self.history.order(step, id, &one.order, format!("{} events", chunk.events.len()));
            match &one.answer {
                Some(Answer::Done(count)) if *count == chunk.events.len() || (*count == 0 && one.attempts > 1) => {}
                // The log holds the events of a command only once, whatever it answered.
                answer => return Err(Fault::Violation(format!("{answer:?} was answered to {:?}", chunk.events))),
            }
            self.take(place, &one.order, &chunk.events)?;
            outcomes.push(&one.order);
            open.retain(|one| !self.explained(place, one));
        }
        for one in issued.iter().filter(|one| !moved.contains(&one.command_id)) {
            match &one.answer {
                Some(Answer::Refused(_)) => self.summary.refused += 1,
                Some(Answer::Done(_)) | None => self.summary.repeated += 1,
            }
            self.history.order(step, id, &one.order, format!("{:?}", one.answer));
        }
        if let Some(one) = open.first() {
            let verdict = self.tenants[place].model.judge(wallet_command(&one.order));
            return Err(Fault::Violation(format!(
                "{:?} was answered to {:?}, the model says {verdict:?}",
                one.answer, one.order
            )));
        }
        for order in outcomes {
            self.tenants[place].remember(&mut self.chance, wallet_command(order).clone());
        }
        let recorded = self.recorded.entry(id).or_default();
        self.ledger.check_tenant(id, &recorded.figures)?;
        Ok(())
    }

    /// Whether the model, as it stands, would answer just so and change nothing.
    fn explained(&self, place: usize, one: &Issued) -> bool {
        let verdict = self.tenants[place].model.judge(wallet_command(&one.order));
        match (&one.answer, verdict) {
            (Some(Answer::Refused(why)), Verdict::Refused(expected)) => *why == expected,
            (Some(Answer::Done(0)), Verdict::Nothing) => true,
            (_, _) => false,
        }
    }

    /// Takes a command's events into the record and the command into the model, and compares.
    fn take(&mut self, place: usize, order: &Order, events: &[WalletEvent]) -> Result<(), Fault> {
        let tenant = &mut self.tenants[place];
        let recorded = self.recorded.entry(tenant.id).or_default();
        for event in events {
            recorded.fold(event).map_err(|fault| format!("{fault}: {event:?}"))?;
        }
        let command = wallet_command(order);
        match tenant.model.judge(command) {
            Verdict::Changes => tenant.model.perform(command)?,
            other => {
                return Err(Fault::Violation(format!("{other:?} is what the model says, the log says {events:?}")));
            }
        }
        same(&tenant.model, &recorded.figures).map_err(|fault| Fault::Violation(format!("{fault}, after {events:?}")))
    }

    /// The same for what the process manager did: every hold it was due to expire is expired, or had ended before.
    pub(super) async fn verify_swept(&mut self, due: &[DueHold]) -> Result<(), Fault> {
        let at = self.now;
        let chunks = self.read_on().await?;
        for (tenant, chunks) in chunks {
            self.suspect = Some(tenant);
            let Some(place) = self.tenants.iter().position(|known| known.id == tenant) else {
                return Err(Fault::Violation(format!("the sweep moved the wallet of {tenant}, which is gone")));
            };
            for chunk in chunks {
                let released = chunk.events.iter().find_map(|event| match event {
                    WalletEvent::HoldReleased(released) => Some(released.hold_id),
                    _ => None,
                });
                let known = |hold_id| due.iter().any(|hold| (hold.tenant_id, hold.hold_id) == (tenant, hold_id));
                let Some(hold_id) = released.filter(|hold_id| known(*hold_id)) else {
                    return Err(Fault::Violation(format!("the sweep did {:?}", chunk.events)));
                };
                let order = Order::Wallet(WalletCommand::ReleaseHold { hold_id, cause: ReleaseCause::Expired, at });
                self.history.order(self.summary.steps, tenant, &order, "swept".to_owned());
                self.take(place, &order, &chunk.events)?;
                self.summary.swept += 1;
            }
        }
        for hold in due {
            let tenant = self.tenants.iter().find(|known| known.id == hold.tenant_id);
            let command = WalletCommand::ReleaseHold { hold_id: hold.hold_id, cause: ReleaseCause::Expired, at };
            if tenant.is_some_and(|tenant| tenant.model.judge(&command) == Verdict::Changes) {
                return Err(Fault::Violation(format!("the hold {} was due and is still open", hold.hold_id)));
            }
        }
        Ok(())
    }
}

fn pending(chunks: Option<&Vec<Chunk>>) -> i64 {
    let count = chunks.map_or(0, |chunks| chunks.iter().map(|chunk| chunk.events.len()).sum());
    i64::try_from(count).unwrap_or(i64::MAX)
}

const fn wallet_command(order: &Order) -> &WalletCommand {
    match order {
        Order::Wallet(command) => command,
    }
}

fn same(model: &Model, recorded: &super::figures::Figures) -> Result<(), String> {
    model.check()?;
    recorded.check()?;
    model.figures.difference(recorded).map_or(Ok(()), Err)
}
