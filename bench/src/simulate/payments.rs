//! What facts about payments come to, written from the design: the same facts mean the same, in whatever order they come,
//! and what comes before the payment itself waits for it.

use std::collections::BTreeMap;

use calos_domain::payment::{
    DisputeLost, DisputeOpened, DisputeWon, PaymentFact, PaymentKind, PaymentReceived, PaymentRefunded, PaymentVia,
};
use calos_domain::wallet::{DebtCause, FreezeCause, GrantKind, WalletCommand};
use calos_domain::{Asset, GrantId, MicroUsd, Timestamp, Units};

use super::chance::Chance;
use super::judging::AHEAD_MAX_MICROS;
use super::model::{Verdict, Why};

/// Credit that was bought burns after credit that was given.
const BOUGHT_PRIORITY: i16 = 20;

/// Everything known of one payment, by what it is about.
#[derive(Clone, Default, Debug)]
struct Known {
    received: Option<PaymentReceived>,
    refunds: BTreeMap<String, PaymentRefunded>,
    opened: BTreeMap<String, DisputeOpened>,
    closed: BTreeMap<String, PaymentFact>,
}

/// A tenant's payments.
#[derive(Clone, Default, Debug)]
pub struct Payments(BTreeMap<String, Known>);

impl Known {
    /// What is recorded where this fact would be.
    fn place_of(&self, fact: &PaymentFact) -> Option<PaymentFact> {
        match fact {
            PaymentFact::PaymentReceived(_) => self.received.clone().map(PaymentFact::PaymentReceived),
            PaymentFact::PaymentRefunded(refund) => {
                self.refunds.get(&refund.refund_ref).cloned().map(PaymentFact::PaymentRefunded)
            }
            PaymentFact::DisputeOpened(opened) => {
                self.opened.get(&opened.dispute_ref).cloned().map(PaymentFact::DisputeOpened)
            }
            PaymentFact::DisputeWon(DisputeWon { dispute_ref, .. })
            | PaymentFact::DisputeLost(DisputeLost { dispute_ref, .. }) => self.closed.get(dispute_ref).cloned(),
        }
    }

    fn is_won(&self, dispute_ref: &str) -> bool {
        matches!(self.closed.get(dispute_ref), Some(PaymentFact::DisputeWon(_)))
    }

    /// A claim on the credit, once the payment is known.
    fn claim(&self, cause: DebtCause, reference: &str, units: Units, at: Timestamp) -> Option<WalletCommand> {
        let received = self.received.as_ref().filter(|_| units.get() > 0)?;
        let source_ref = format!("{}:{reference}", if cause == DebtCause::Refund { "refund" } else { "dispute" });
        Some(WalletCommand::VoidGrant { grant_id: received.grant_id, claimed: units, cause, source_ref, at })
    }
}

impl Payments {
    /// What recording a fact comes to. One that would happen too far ahead of the clock is refused, and told again later:
    /// the clock was turned back since it happened.
    pub fn judge(&self, fact: &PaymentFact, at: Timestamp) -> Verdict {
        match self.0.get(fact.payment_ref()).and_then(|known| known.place_of(fact)) {
            None if fact.occurred_at().micros() > at.micros() + AHEAD_MAX_MICROS => Verdict::Refused(Why::NotYet),
            None => Verdict::Changes,
            Some(known) if known == *fact => Verdict::Nothing,
            Some(_) => Verdict::Refused(Why::IdReused),
        }
    }

    /// Takes a fact in, and says what the wallet has to do for it.
    pub fn perform(&mut self, fact: &PaymentFact, at: Timestamp) -> Vec<WalletCommand> {
        let known = self.0.entry(fact.payment_ref().to_owned()).or_default();
        let mut commands = Vec::new();
        let freeze = |dispute_ref: &str| (FreezeCause::Dispute, Some(format!("dispute:{dispute_ref}")));
        match fact {
            PaymentFact::PaymentReceived(received) => {
                known.received = Some(received.clone());
                commands.push(granting(received, at));
                for refund in known.refunds.values() {
                    commands.extend(known.claim(DebtCause::Refund, &refund.refund_ref, refund.units, at));
                }
                for opened in known.opened.values().filter(|opened| !known.is_won(&opened.dispute_ref)) {
                    commands.extend(known.claim(DebtCause::Dispute, &opened.dispute_ref, opened.units, at));
                }
            }
            PaymentFact::PaymentRefunded(refund) => {
                known.refunds.insert(refund.refund_ref.clone(), refund.clone());
                commands.extend(known.claim(DebtCause::Refund, &refund.refund_ref, refund.units, at));
            }
            PaymentFact::DisputeOpened(opened) => {
                known.opened.insert(opened.dispute_ref.clone(), opened.clone());
                if !known.is_won(&opened.dispute_ref) {
                    commands.extend(known.claim(DebtCause::Dispute, &opened.dispute_ref, opened.units, at));
                }
                if !known.closed.contains_key(&opened.dispute_ref) {
                    let (cause, source_ref) = freeze(&opened.dispute_ref);
                    commands.push(WalletCommand::Freeze { cause, source_ref });
                }
            }
            PaymentFact::DisputeWon(DisputeWon { dispute_ref, .. })
            | PaymentFact::DisputeLost(DisputeLost { dispute_ref, .. }) => {
                known.closed.insert(dispute_ref.clone(), fact.clone());
                let claimed = known.opened.get(dispute_ref).filter(|opened| opened.units.get() > 0);
                if let (Some(received), Some(_), true) = (&known.received, claimed, known.is_won(dispute_ref)) {
                    let source_ref = format!("dispute:{dispute_ref}");
                    commands.push(WalletCommand::RestoreGrant { grant_id: received.grant_id, source_ref, at });
                }
                if known.opened.contains_key(dispute_ref) {
                    let (cause, source_ref) = freeze(dispute_ref);
                    commands.push(WalletCommand::Thaw { cause, source_ref });
                }
            }
        }
        commands
    }
}

fn granting(received: &PaymentReceived, at: Timestamp) -> WalletCommand {
    let kind = match received.kind {
        PaymentKind::Purchase => GrantKind::Purchase,
        PaymentKind::Subscription => GrantKind::Subscription,
    };
    WalletCommand::GrantCredits {
        grant_id: received.grant_id,
        asset: received.asset,
        kind,
        amount: received.units,
        priority: BOUGHT_PRIORITY,
        effective_at: received.occurred_at,
        expires_at: received.expires_at,
        cost_basis: received.gross,
        source_ref: format!("payment:{}", received.payment_ref),
        reason: None,
        at,
    }
}

/// A payment with what follows it: refunds and disputes that never claim more than was paid for. In the order in which it
/// happened.
pub fn story(chance: &mut Chance, now: Timestamp, lasting: bool) -> Vec<PaymentFact> {
    let grant_id = GrantId(chance.id(now));
    let payment_ref = format!("pi_{}", grant_id.0.simple());
    let (units, gross) = (chance.between(1, 2_500), chance.between(10, 6_000));
    let via = if chance.one_in(5) { PaymentVia::OutOfBand } else { PaymentVia::Stripe };
    let mut facts = vec![PaymentFact::PaymentReceived(PaymentReceived {
        payment_ref: payment_ref.clone(),
        kind: if chance.one_in(3) { PaymentKind::Subscription } else { PaymentKind::Purchase },
        asset: if chance.one_in(3) { Asset::Credit } else { Asset::Usd },
        units: Units::new(units),
        gross: MicroUsd::new(gross),
        fee: MicroUsd::new(if via == PaymentVia::Stripe { gross / 30 } else { 0 }),
        grant_id,
        expires_at: (!lasting && chance.one_in(2)).then(|| now.plus_seconds(chance.between(60, 40_000))),
        via,
        occurred_at: now,
    })];
    let (mut units_left, mut money_left) = (units, gross - 1);
    for number in 0..chance.below(4) {
        let amount = MicroUsd::new(1 + chance.between(0, money_left / 2));
        let claimed = Units::new(chance.between(0, units_left));
        units_left -= claimed.get();
        money_left -= amount.get();
        let occurred_at = now.plus_seconds(chance.between(0, 100));
        if chance.one_in(2) {
            let refund_ref = format!("re_{number}_{}", grant_id.0.simple());
            let payment_ref = payment_ref.clone();
            let refund = PaymentRefunded { payment_ref, refund_ref, amount, units: claimed, via, occurred_at };
            facts.push(PaymentFact::PaymentRefunded(refund));
        } else {
            let dispute_ref = format!("dp_{number}_{}", grant_id.0.simple());
            facts.extend(dispute(chance, (&payment_ref, &dispute_ref), amount, claimed, occurred_at));
        }
        money_left = money_left.max(1);
    }
    facts
}

fn dispute(
    chance: &mut Chance,
    (payment_ref, dispute_ref): (&str, &str),
    amount: MicroUsd,
    units: Units,
    occurred_at: Timestamp,
) -> Vec<PaymentFact> {
    let (payment_ref, dispute_ref) = (payment_ref.to_owned(), dispute_ref.to_owned());
    let fee = MicroUsd::new(15);
    let opened = DisputeOpened {
        payment_ref: payment_ref.clone(),
        dispute_ref: dispute_ref.clone(),
        amount,
        fee,
        units,
        occurred_at,
    };
    let mut facts = vec![PaymentFact::DisputeOpened(opened)];
    match chance.below(5) {
        0 => {}
        1 => facts.push(PaymentFact::DisputeLost(DisputeLost { payment_ref, dispute_ref, amount, occurred_at })),
        _ => facts.push(PaymentFact::DisputeWon(DisputeWon { payment_ref, dispute_ref, amount, occurred_at })),
    }
    facts
}

/// The same reference with other content.
pub fn twisted(mut fact: PaymentFact) -> PaymentFact {
    let earlier = |moment: &mut Timestamp| *moment = moment.plus_seconds(-1);
    match &mut fact {
        PaymentFact::PaymentReceived(received) => received.units = received.units.saturating_plus(Units::new(1)),
        PaymentFact::PaymentRefunded(refund) => earlier(&mut refund.occurred_at),
        PaymentFact::DisputeOpened(opened) => earlier(&mut opened.occurred_at),
        PaymentFact::DisputeWon(won) => earlier(&mut won.occurred_at),
        PaymentFact::DisputeLost(lost) => earlier(&mut lost.occurred_at),
    }
    fact
}
