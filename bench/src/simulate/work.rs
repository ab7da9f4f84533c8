//! What the simulated server does with an order, and how a rule can be broken on purpose to see whether that is found.

use calos_adapters::postgres::PgLog;
use calos_commands::log::{Done, EventLog, Failed, LogError, Plan, Request, Unit};
use calos_commands::metadata::{Actor, Metadata};
use calos_commands::{adjustments, payments};
use calos_domain::adjustment::Adjustment;
use calos_domain::payment::{Payment, PaymentFact, payment_stream};
use calos_domain::wallet::{ReleaseCause, Wallet, WalletCommand, WalletEvent, WalletRefusal};
use calos_domain::{GrantId, HoldId, MicroUsd, StreamId, TenantId, Timestamp, Units, UsageId, UserId};
use futures_util::future::join_all;
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

use super::adjustments::Asking;
use super::model::Why;

/// The name under which the simulation's commands stand in the log.
const ACTOR: &str = "simulation";

/// A rule that is broken on purpose, at the seam between the command and the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// A repeated grant grants again.
    GrantsTwice,
    /// A settlement deducts one unit less than was used: too much returns.
    ReturnsTooMuch,
    /// The expiry of a grant takes what open holds keep of it.
    ExpiryIgnoresHolds,
    /// A command whose answer was lost is repeated under a new id.
    RepeatsUnderNewId,
    /// A claim that was undone is not restored.
    RestoresNothing,
    /// A fact that is delivered again is taken for another one.
    FactsTwice,
}

impl Broken {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::GrantsTwice,
        Self::ReturnsTooMuch,
        Self::ExpiryIgnoresHolds,
        Self::RepeatsUnderNewId,
        Self::RestoresNothing,
        Self::FactsTwice,
    ];
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Order {
    /// A command of the wallet.
    Wallet(WalletCommand),
    /// A fact about a payment, out of the durable inbox.
    Fact(PaymentFact, Timestamp),
    /// Something about an adjustment.
    Adjust(Asking, UserId, Timestamp),
}

/// An order on its way to the server.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its place among those that were asked together.
    pub place: usize,
    /// Whose wallet.
    pub tenant: TenantId,
    /// The command's id: the same when it is asked again.
    pub command_id: Uuid,
    /// Whether it was asked before.
    pub again: bool,
    /// What.
    pub order: Order,
}

impl Asked {
    /// Brings what the order is decided on into memory. What stands in the way of that, the order itself will meet.
    async fn warm(&self, log: &PgLog) {
        drop(log.warm::<Wallet>(&StreamId::key(self.tenant)).await);
        match &self.order {
            Order::Wallet(_) => {}
            Order::Fact(fact, _) => {
                drop(log.warm::<Payment>(&payment_stream(self.tenant, fact.payment_ref())).await);
            }
            Order::Adjust(asking, ..) => {
                let stream = adjustments::adjustment_stream(self.tenant, asking.adjustment());
                drop(log.warm::<Adjustment>(&stream).await);
            }
        }
    }
}

/// What the server answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Durable; so many events of the wallet, where that is told.
    Done(Option<usize>),
    /// Refused.
    Refused(Why),
}

/// What came of asking: an answer, or why there is none.
pub type Outcome = Result<Answer, LogError>;

/// Carries all of them out together, answering each as it ends.
pub async fn carry_out(
    log: PgLog,
    asked: Vec<Asked>,
    broken: Option<Broken>,
    answers: UnboundedSender<(usize, Outcome)>,
) {
    // All streams are in memory before the first is decided on: so what is asked together is decided in the order it was
    // asked in, whichever stream is read fastest, and the same seed comes to the same history.
    for one in &asked {
        one.warm(&log).await;
    }
    let each = asked.into_iter().map(|asked| {
        let (log, answers) = (log.clone(), answers.clone());
        async move {
            let place = asked.place;
            let outcome = one(&log, asked, broken).await;
            // Nobody listens any more when the simulation has failed elsewhere.
            drop(answers.send((place, outcome)));
        }
    });
    join_all(each).await;
}

async fn one(log: &PgLog, asked: Asked, broken: Option<Broken>) -> Outcome {
    let mut metadata = Metadata::new(Actor::System(ACTOR));
    metadata.command_id = asked.command_id;
    let request = Request::from(metadata);
    match asked.order {
        Order::Wallet(command) => {
            let renames = asked.again && broken == Some(Broken::RepeatsUnderNewId);
            let command = if renames { renamed(command) } else { command };
            wallet(log, asked.tenant, command, request, broken).await
        }
        Order::Fact(fact, at) => {
            let fact = match broken {
                Some(Broken::FactsTwice) if asked.again => under_another_reference(fact),
                Some(_) | None => fact,
            };
            match payments::record(log, asked.tenant, fact, at, request).await {
                Ok(done) if done.answer.recorded => Ok(Answer::Done(None)),
                Ok(_) => Ok(Answer::Done(Some(0))),
                Err(fault) => refused(fault, |refusal| Why::from(refusal)),
            }
        }
        Order::Adjust(asking, by, at) => {
            let decided = match asking {
                Asking::Propose(proposal) => adjustments::propose(log, proposal, by, at, request).await,
                Asking::Approve(id) => adjustments::approve(log, asked.tenant, id, by, at, request).await,
                Asking::Reject(id) => adjustments::reject(log, (asked.tenant, id), by, "no", at, request).await,
            };
            match decided {
                Ok(_) => Ok(Answer::Done(None)),
                Err(fault) => refused(fault, |refusal| Why::from(refusal)),
            }
        }
    }
}

fn refused<E>(fault: calos_commands::fault::Fault<E>, why: impl FnOnce(&E) -> Why) -> Outcome {
    match fault {
        calos_commands::fault::Fault::Refused(refusal) => Ok(Answer::Refused(why(&refusal))),
        calos_commands::fault::Fault::Log(error) => Err(error),
        // Neither sealing nor hashing is needed here.
        _ => Err(LogError::Corrupt("a fault of another room".to_owned())),
    }
}

async fn wallet(
    log: &PgLog,
    tenant: TenantId,
    command: WalletCommand,
    request: Request,
    broken: Option<Broken>,
) -> Outcome {
    let mut plan = Plan::default();
    let wallet = plan.stream::<Wallet>(StreamId::key(tenant));
    let decided: Result<Done<usize>, Failed<WalletRefusal>> = log
        .execute(&plan, request, |unit| match broken {
            None => unit.decide(wallet, command.clone()).map(|events| events.len()),
            Some(broken) => {
                let state: Wallet = unit.read(wallet);
                decide_broken(unit, &state, &command, broken, |unit, command| unit.decide(wallet, command))
            }
        })
        .await;
    match decided {
        Ok(done) => Ok(Answer::Done(Some(done.answer))),
        Err(Failed::Refused(refusal)) => Ok(Answer::Refused(Why::from(&refusal))),
        Err(Failed::Log(error)) => Err(error),
    }
}

/// The same payment or refund as if it were another one.
fn under_another_reference(mut fact: PaymentFact) -> PaymentFact {
    match &mut fact {
        PaymentFact::PaymentReceived(received) => {
            received.payment_ref.push('x');
            received.grant_id = GrantId(Uuid::from_u128(received.grant_id.0.as_u128() ^ 1));
        }
        PaymentFact::PaymentRefunded(refund) => refund.refund_ref.push('x'),
        PaymentFact::DisputeOpened(opened) => opened.dispute_ref.push('x'),
        PaymentFact::DisputeWon(won) => won.dispute_ref.push('x'),
        PaymentFact::DisputeLost(lost) => lost.dispute_ref.push('x'),
    }
    fact
}

type Decided = Result<Vec<WalletEvent>, WalletRefusal>;

fn decide_broken(
    unit: &mut Unit<'_>,
    state: &Wallet,
    command: &WalletCommand,
    broken: Broken,
    decide: impl Fn(&mut Unit<'_>, WalletCommand) -> Decided,
) -> Result<usize, WalletRefusal> {
    let mut count = 0;
    let mut command = command.clone();
    match (broken, &mut command) {
        (Broken::ReturnsTooMuch, WalletCommand::SettleHold { hold_id, amount, usage, .. })
            if amount.get() > 0 && state.hold(hold_id).is_some() =>
        {
            *amount = amount.saturating_minus(Units::new(1));
            usage.total = MicroUsd::new(amount.get());
            (usage.provider_cost, usage.markup) = (MicroUsd::ZERO, usage.total);
        }
        (Broken::ExpiryIgnoresHolds, WalletCommand::ExpireGrant { grant_id, at }) => {
            let of_it =
                |parts: &[calos_domain::wallet::Allocation]| parts.iter().any(|part| part.grant_id == *grant_id);
            let holds: Vec<HoldId> =
                state.open_holds().filter(|(_, hold)| of_it(&hold.allocations)).map(|(id, _)| id).collect();
            for hold_id in holds {
                let release = WalletCommand::ReleaseHold { hold_id, cause: ReleaseCause::Voided, at: *at };
                count += decide(unit, release)?.len();
            }
        }
        (Broken::RestoresNothing, WalletCommand::RestoreGrant { .. }) => return Ok(0),
        (_, _) => {}
    }
    let events = decide(unit, command.clone())?.len();
    if broken == Broken::GrantsTwice && events == 0 && matches!(command, WalletCommand::GrantCredits { .. }) {
        count += decide(unit, renamed(command))?.len();
    }
    Ok(count + events)
}

/// The same under another id.
fn renamed(mut command: WalletCommand) -> WalletCommand {
    // The moment stays: it is in the first half.
    let other = |id: Uuid| Uuid::from_u128(id.as_u128() ^ 1);
    match &mut command {
        WalletCommand::GrantCredits { grant_id, .. } => *grant_id = GrantId(other(grant_id.0)),
        WalletCommand::PlaceHold { hold_id, usage_id, .. } => {
            *hold_id = HoldId(other(hold_id.0));
            *usage_id = UsageId(other(usage_id.0));
        }
        WalletCommand::Charge { usage, .. } => usage.usage_id = UsageId(other(usage.usage_id.0)),
        _ => {}
    }
    command
}
