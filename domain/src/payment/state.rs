//! What is known of a payment, and which claims on its credit follow from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::wallet::DebtCause;
use crate::{Decider, MicroUsd, Units};

use super::{
    DisputeLost, DisputeOpened, DisputeWon, FactRefusal, PaymentEvent, PaymentReceived, PaymentRefunded, RecordFact,
};

/// A payment with every fact about it, and the claims on its credit they have led to.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Payment {
    pub(super) received: Option<PaymentReceived>,
    pub(super) refunds: BTreeMap<String, PaymentRefunded>,
    pub(super) disputes: BTreeMap<String, Dispute>,
    /// In the order they were made.
    pub(super) claims: Vec<Claim>,
}

/// What is known of one dispute; its end may be known before its beginning.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Dispute {
    /// Its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<DisputeOpened>,
    /// Its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Closing>,
}

/// How a dispute ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closing {
    /// For CALOS.
    Won(DisputeWon),
    /// Against it.
    Lost(DisputeLost),
}

/// One claim on the payment's grant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// What the wallet knows it by: `refund:<ref>`, `dispute:<ref>`; a second part of one refund has ` #2` behind it.
    pub source_ref: String,
    /// How much credit.
    pub units: Units,
    /// Whether the claim was given up, since its dispute was won.
    pub restored: bool,
}

/// A refund or dispute, and how much credit it may claim.
struct Claimant {
    source_ref: String,
    wants: Units,
}

impl Dispute {
    /// Whether it is undecided.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.opened.is_some() && self.closed.is_none()
    }

    const fn is_won(&self) -> bool {
        matches!(self.closed, Some(Closing::Won(_)))
    }
}

impl Closing {
    /// How much was decided on.
    #[must_use]
    pub const fn amount(&self) -> MicroUsd {
        match self {
            Self::Won(won) => won.amount,
            Self::Lost(lost) => lost.amount,
        }
    }
}

impl Claim {
    /// What a debt the claim leads to is called.
    #[must_use]
    pub fn cause(&self) -> DebtCause {
        if self.source_ref.starts_with(DISPUTE) { DebtCause::Dispute } else { DebtCause::Refund }
    }
}

const REFUND: &str = "refund:";
pub(super) const DISPUTE: &str = "dispute:";

/// What others may ask a payment's state.
impl Payment {
    /// The payment itself, once it is known.
    #[must_use]
    pub const fn received(&self) -> Option<&PaymentReceived> {
        self.received.as_ref()
    }

    /// Its refunds by reference.
    #[must_use]
    pub const fn refunds(&self) -> &BTreeMap<String, PaymentRefunded> {
        &self.refunds
    }

    /// Its disputes by reference.
    #[must_use]
    pub const fn disputes(&self) -> &BTreeMap<String, Dispute> {
        &self.disputes
    }

    /// The claims on its grant so far, those given up among them.
    #[must_use]
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// Money that was refunded.
    #[must_use]
    pub fn refunded(&self) -> MicroUsd {
        self.refunds.values().fold(MicroUsd::ZERO, |sum, refund| sum.saturating_plus(refund.amount))
    }

    /// Credit that refunds claim.
    #[must_use]
    pub fn refunded_units(&self) -> Units {
        self.refunds.values().fold(Units::ZERO, |sum, refund| sum.saturating_plus(refund.units))
    }

    /// Follows the facts: gives up what disputes that were won have claimed, then lets every refund and every standing
    /// dispute claim what it has not claimed yet, as far as credit of the payment is left unclaimed. So together they
    /// always claim the same, whatever the order of the facts, and never more than was granted.
    fn claim(&mut self) {
        let Some(units) = self.received.as_ref().map(|received| received.units) else { return };
        for (reference, dispute) in &self.disputes {
            if dispute.is_won() {
                let source_ref = format!("{DISPUTE}{reference}");
                for claim in self.claims.iter_mut().filter(|claim| is_of(claim, &source_ref)) {
                    claim.restored = true;
                }
            }
        }
        let mut left = units.saturating_minus(self.claimed(|_| true));
        for Claimant { source_ref, wants } in self.claimants() {
            let has = self.claimed(|claim| is_of(claim, &source_ref));
            let more = wants.saturating_minus(has).min(left);
            if more.get() <= 0 {
                continue;
            }
            left = left.saturating_minus(more);
            let before = self.claims.iter().filter(|claim| is_of(claim, &source_ref)).count();
            let source_ref = if before == 0 { source_ref } else { format!("{source_ref} #{}", before + 1) };
            self.claims.push(Claim { source_ref, units: more, restored: false });
        }
    }

    /// Refunds before disputes, each in the order of their references.
    fn claimants(&self) -> Vec<Claimant> {
        let refunds = self
            .refunds
            .iter()
            .map(|(reference, refund)| Claimant { source_ref: format!("{REFUND}{reference}"), wants: refund.units });
        let disputes = self.disputes.iter().filter(|(_, dispute)| !dispute.is_won()).map(|(reference, dispute)| {
            let wants = dispute.opened.as_ref().map_or(Units::ZERO, |opened| opened.units);
            Claimant { source_ref: format!("{DISPUTE}{reference}"), wants }
        });
        refunds.chain(disputes).collect()
    }

    fn claimed(&self, of: impl Fn(&Claim) -> bool) -> Units {
        let standing = self.claims.iter().filter(|claim| !claim.restored && of(claim));
        standing.fold(Units::ZERO, |sum, claim| sum.saturating_plus(claim.units))
    }
}

/// Whether a claim is the first or a later part of what stands under this reference. No reference holds a blank.
fn is_of(claim: &Claim, source_ref: &str) -> bool {
    claim.source_ref.strip_prefix(source_ref).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

impl Decider for Payment {
    const KIND: &'static str = "payment";
    const SNAPSHOT_VERSION: i32 = 1;

    type Command = RecordFact;
    type Event = PaymentEvent;
    type Refusal = FactRefusal;

    fn decide(&self, command: RecordFact) -> Result<Vec<PaymentEvent>, FactRefusal> {
        super::decide::decide(self, command)
    }

    fn evolve(&mut self, event: &PaymentEvent) {
        match event {
            PaymentEvent::PaymentReceived(received) => self.received = Some(received.clone()),
            PaymentEvent::PaymentRefunded(refunded) => {
                self.refunds.insert(refunded.refund_ref.clone(), refunded.clone());
            }
            PaymentEvent::DisputeOpened(opened) => {
                self.disputes.entry(opened.dispute_ref.clone()).or_default().opened = Some(opened.clone());
            }
            PaymentEvent::DisputeWon(won) => {
                self.disputes.entry(won.dispute_ref.clone()).or_default().closed = Some(Closing::Won(won.clone()));
            }
            PaymentEvent::DisputeLost(lost) => {
                self.disputes.entry(lost.dispute_ref.clone()).or_default().closed = Some(Closing::Lost(lost.clone()));
            }
        }
        self.claim();
    }

    fn weight_bytes(&self) -> usize {
        let parts = self.refunds.len() * std::mem::size_of::<PaymentRefunded>()
            + self.disputes.len() * std::mem::size_of::<Dispute>()
            + self.claims.len() * std::mem::size_of::<Claim>();
        // References are short; twice the structs covers them.
        std::mem::size_of::<Self>() + 2 * parts
    }
}
