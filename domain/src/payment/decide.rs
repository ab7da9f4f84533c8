//! Which facts about a payment are recorded, or why one is refused.

use crate::wallet::CLOCK_SKEW_MAX_SECONDS;
use crate::{MicroUsd, Timestamp, Units};

use super::{
    Closing, DISPUTES_PER_PAYMENT_MAX_COUNT, DisputeOpened, Payment, PaymentEvent, PaymentFact, PaymentReceived,
    PaymentRefunded, PaymentVia, REFUNDS_PER_PAYMENT_MAX_COUNT, is_reference,
};

/// Records a fact. Recorded again it changes nothing, whenever that is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordFact {
    /// The fact.
    pub fact: PaymentFact,
    /// Now.
    pub at: Timestamp,
}

/// Why a fact is refused. A refused fact changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FactRefusal {
    /// The reference is empty, too long, or not of visible ASCII characters.
    #[error("{0:?} is no reference")]
    NoReference(String),
    /// The reference was recorded with other content.
    #[error("{0} was recorded before with other content")]
    OtherContent(String),
    /// An amount below what is allowed.
    #[error("an amount of {amount} is below {least}")]
    AmountTooSmall {
        /// The amount, in micro-dollars or units.
        amount: i64,
        /// The least allowed.
        least: i64,
    },
    /// Stripe takes no fee for what does not go through Stripe.
    #[error("a payment out of band has no fee, least of all {fee} micro-dollars")]
    FeeOutOfBand {
        /// The fee.
        fee: MicroUsd,
    },
    /// More money would go back than was paid.
    #[error("{amount} micro-dollars are more than the {paid} that were paid")]
    MoreThanPaid {
        /// All that would be refunded, or what one dispute is about.
        amount: MicroUsd,
        /// What was paid.
        paid: MicroUsd,
    },
    /// More credit would be claimed back than was granted.
    #[error("{units} units are more than the {granted} that were granted")]
    MoreThanGranted {
        /// All that refunds would claim, or what one dispute claims.
        units: Units,
        /// What was granted.
        granted: Units,
    },
    /// A dispute ends over what it was opened for.
    #[error("the dispute {dispute_ref} was opened for {opened} micro-dollars and ends over {closed}")]
    OtherAmount {
        /// The dispute.
        dispute_ref: String,
        /// What it was opened for.
        opened: MicroUsd,
        /// What it ends over.
        closed: MicroUsd,
    },
    /// More refunds or disputes than one payment may meet.
    #[error("the payment has met {0} of them already")]
    TooMany(usize),
    /// It would happen at a moment to come.
    #[error("the fact is of {occurred_at:?}, and it is {at:?}")]
    NotYet {
        /// When it happened.
        occurred_at: Timestamp,
        /// Now.
        at: Timestamp,
    },
    /// The credit would end before it begins.
    #[error("credit paid for at {occurred_at:?} cannot end at {expires_at:?}")]
    ImpossibleTerm {
        /// When it was paid for.
        occurred_at: Timestamp,
        /// When it would end.
        expires_at: Timestamp,
    },
}

type Refusable = Result<(), FactRefusal>;

pub(super) fn decide(payment: &Payment, command: RecordFact) -> Result<Vec<PaymentEvent>, FactRefusal> {
    let RecordFact { fact, at } = command;
    if is_known(payment, &fact)? {
        return Ok(Vec::new());
    }
    for reference in [fact.payment_ref(), fact.source_ref()] {
        if !is_reference(reference) {
            return Err(FactRefusal::NoReference(reference.to_owned()));
        }
    }
    let occurred_at = fact.occurred_at();
    if occurred_at > at.plus_seconds(CLOCK_SKEW_MAX_SECONDS) {
        return Err(FactRefusal::NotYet { occurred_at, at });
    }
    match &fact {
        PaymentEvent::PaymentReceived(received) => check_received(payment, received)?,
        PaymentEvent::PaymentRefunded(refunded) => check_refunded(payment, refunded)?,
        PaymentEvent::DisputeOpened(opened) => check_opened(payment, opened)?,
        PaymentEvent::DisputeWon(won) => check_closed(payment, &won.dispute_ref, won.amount)?,
        PaymentEvent::DisputeLost(lost) => check_closed(payment, &lost.dispute_ref, lost.amount)?,
    }
    Ok(vec![fact])
}

/// Whether this very fact is recorded; a fact of the same reference with other content is refused.
fn is_known(payment: &Payment, fact: &PaymentFact) -> Result<bool, FactRefusal> {
    let dispute = |reference: &String| payment.disputes.get(reference);
    let known = match fact {
        PaymentEvent::PaymentReceived(received) => payment.received.as_ref().map(|known| known == received),
        PaymentEvent::PaymentRefunded(refunded) => {
            payment.refunds.get(&refunded.refund_ref).map(|known| known == refunded)
        }
        PaymentEvent::DisputeOpened(opened) => {
            dispute(&opened.dispute_ref).and_then(|known| known.opened.as_ref()).map(|known| known == opened)
        }
        PaymentEvent::DisputeWon(won) => dispute(&won.dispute_ref)
            .and_then(|known| known.closed.as_ref())
            .map(|known| matches!(known, Closing::Won(known) if known == won)),
        PaymentEvent::DisputeLost(lost) => dispute(&lost.dispute_ref)
            .and_then(|known| known.closed.as_ref())
            .map(|known| matches!(known, Closing::Lost(known) if known == lost)),
    };
    match known {
        Some(true) => Ok(true),
        Some(false) => Err(FactRefusal::OtherContent(fact.source_ref().to_owned())),
        None => Ok(false),
    }
}

fn check_received(payment: &Payment, received: &PaymentReceived) -> Refusable {
    at_least(received.units.get(), 1)?;
    at_least(received.gross.get(), 0)?;
    at_least(received.fee.get(), 0)?;
    if received.via == PaymentVia::OutOfBand && !received.fee.is_zero() {
        return Err(FactRefusal::FeeOutOfBand { fee: received.fee });
    }
    if let Some(expires_at) = received.expires_at.filter(|end| *end <= received.occurred_at) {
        return Err(FactRefusal::ImpossibleTerm { occurred_at: received.occurred_at, expires_at });
    }
    // What came before the payment was not held against it yet.
    within(received, payment.refunded(), payment.refunded_units())?;
    for opened in payment.disputes.values().filter_map(|dispute| dispute.opened.as_ref()) {
        within(received, opened.amount, opened.units)?;
    }
    Ok(())
}

fn check_refunded(payment: &Payment, refunded: &PaymentRefunded) -> Refusable {
    at_least(refunded.amount.get(), 1)?;
    at_least(refunded.units.get(), 0)?;
    room(payment.refunds.len(), REFUNDS_PER_PAYMENT_MAX_COUNT)?;
    let Some(received) = &payment.received else { return Ok(()) };
    let amount = payment.refunded().saturating_plus(refunded.amount);
    within(received, amount, payment.refunded_units().saturating_plus(refunded.units))
}

fn check_opened(payment: &Payment, opened: &DisputeOpened) -> Refusable {
    at_least(opened.amount.get(), 1)?;
    at_least(opened.fee.get(), 0)?;
    at_least(opened.units.get(), 0)?;
    match payment.disputes.get(&opened.dispute_ref) {
        None => room(payment.disputes.len(), DISPUTES_PER_PAYMENT_MAX_COUNT)?,
        Some(known) => {
            if let Some(closed) = &known.closed {
                same_amount(&opened.dispute_ref, opened.amount, closed.amount())?;
            }
        }
    }
    payment.received.as_ref().map_or(Ok(()), |received| within(received, opened.amount, opened.units))
}

fn check_closed(payment: &Payment, dispute_ref: &str, amount: MicroUsd) -> Refusable {
    at_least(amount.get(), 1)?;
    match payment.disputes.get(dispute_ref) {
        None => room(payment.disputes.len(), DISPUTES_PER_PAYMENT_MAX_COUNT),
        Some(known) => known.opened.as_ref().map_or(Ok(()), |opened| same_amount(dispute_ref, opened.amount, amount)),
    }
}

fn same_amount(dispute_ref: &str, opened: MicroUsd, closed: MicroUsd) -> Refusable {
    if opened == closed {
        return Ok(());
    }
    Err(FactRefusal::OtherAmount { dispute_ref: dispute_ref.to_owned(), opened, closed })
}

fn within(received: &PaymentReceived, amount: MicroUsd, units: Units) -> Refusable {
    if amount > received.gross {
        return Err(FactRefusal::MoreThanPaid { amount, paid: received.gross });
    }
    if units > received.units {
        return Err(FactRefusal::MoreThanGranted { units, granted: received.units });
    }
    Ok(())
}

const fn room(met: usize, limit: usize) -> Refusable {
    if met >= limit { Err(FactRefusal::TooMany(met)) } else { Ok(()) }
}

const fn at_least(amount: i64, least: i64) -> Refusable {
    if amount < least { Err(FactRefusal::AmountTooSmall { amount, least }) } else { Ok(()) }
}
