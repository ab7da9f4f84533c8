//! What can happen to a payment. Every event carries its own date, from which it counts in the book.

use serde::{Deserialize, Serialize};

use crate::wallet::GrantKind;
use crate::{Asset, GrantId, MicroUsd, Timestamp, Units};

/// Everything that happens to a payment. Stored as `{"<name>": {…}}`. What is handed in is what is recorded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentEvent {
    /// Money came in for credit.
    PaymentReceived(PaymentReceived),
    /// Money went back.
    PaymentRefunded(PaymentRefunded),
    /// The payer's bank disputes the payment: Stripe keeps the money back until it is decided.
    DisputeOpened(DisputeOpened),
    /// A dispute ended for CALOS: the money is back.
    DisputeWon(DisputeWon),
    /// A dispute ended against CALOS: the money is gone.
    DisputeLost(DisputeLost),
}

crate::facts!(PaymentEvent {
    PaymentReceived => "payment_received" v "1",
    PaymentRefunded => "payment_refunded" v "1",
    DisputeOpened => "dispute_opened" v "1",
    DisputeWon => "dispute_won" v "1",
    DisputeLost => "dispute_lost" v "1",
});

/// A fact about a payment, as the edge hands it in.
pub type PaymentFact = PaymentEvent;

/// What was paid for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentKind {
    /// Credit, once.
    Purchase,
    /// A period that includes credit.
    Subscription,
}

impl PaymentKind {
    /// The kind of grant it leads to.
    #[must_use]
    pub const fn grant_kind(self) -> GrantKind {
        match self {
            Self::Purchase => GrantKind::Purchase,
            Self::Subscription => GrantKind::Subscription,
        }
    }
}

/// Which way money came or went.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentVia {
    /// Through Stripe.
    #[default]
    Stripe,
    /// Any other way: a transfer, a cheque.
    OutOfBand,
}

impl PaymentVia {
    /// Whether events leave it out.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    const fn is_stripe(&self) -> bool {
        matches!(self, Self::Stripe)
    }
}

/// See [`PaymentEvent::PaymentReceived`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PaymentReceived {
    /// The payment: an invoice's or a session's id.
    pub payment_ref: String,
    /// What for.
    pub kind: PaymentKind,
    /// In which asset credit is granted.
    pub asset: Asset,
    /// How much credit is granted, at least 1.
    pub units: Units,
    /// What was paid; may be zero.
    pub gross: MicroUsd,
    /// What Stripe takes of it.
    pub fee: MicroUsd,
    /// The grant it leads to.
    pub grant_id: GrantId,
    /// Until when the credit lasts, if not for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Which way it came.
    #[serde(default, skip_serializing_if = "PaymentVia::is_stripe")]
    pub via: PaymentVia,
    /// When it was paid.
    pub occurred_at: Timestamp,
}

/// See [`PaymentEvent::PaymentRefunded`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PaymentRefunded {
    /// The payment.
    pub payment_ref: String,
    /// The refund.
    pub refund_ref: String,
    /// How much money went back, at least 1.
    pub amount: MicroUsd,
    /// How much credit is claimed back for it; may be zero.
    pub units: Units,
    /// Which way it went.
    #[serde(default, skip_serializing_if = "PaymentVia::is_stripe")]
    pub via: PaymentVia,
    /// When.
    pub occurred_at: Timestamp,
}

/// See [`PaymentEvent::DisputeOpened`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DisputeOpened {
    /// The payment.
    pub payment_ref: String,
    /// The dispute.
    pub dispute_ref: String,
    /// How much is disputed, at least 1.
    pub amount: MicroUsd,
    /// What Stripe takes for it, whoever wins.
    pub fee: MicroUsd,
    /// How much credit is claimed back until it is decided; may be zero.
    pub units: Units,
    /// When.
    pub occurred_at: Timestamp,
}

/// See [`PaymentEvent::DisputeWon`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DisputeWon {
    /// The payment.
    pub payment_ref: String,
    /// The dispute.
    pub dispute_ref: String,
    /// How much comes back: what was disputed.
    pub amount: MicroUsd,
    /// When.
    pub occurred_at: Timestamp,
}

/// See [`PaymentEvent::DisputeLost`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DisputeLost {
    /// The payment.
    pub payment_ref: String,
    /// The dispute.
    pub dispute_ref: String,
    /// How much is gone: what was disputed.
    pub amount: MicroUsd,
    /// When.
    pub occurred_at: Timestamp,
}

impl PaymentEvent {
    /// The payment it is about.
    #[must_use]
    pub fn payment_ref(&self) -> &str {
        match self {
            Self::PaymentReceived(received) => &received.payment_ref,
            Self::PaymentRefunded(refunded) => &refunded.payment_ref,
            Self::DisputeOpened(opened) => &opened.payment_ref,
            Self::DisputeWon(won) => &won.payment_ref,
            Self::DisputeLost(lost) => &lost.payment_ref,
        }
    }

    /// The payment, refund or dispute the money is booked under: what Stripe calls the source.
    #[must_use]
    pub fn source_ref(&self) -> &str {
        match self {
            Self::PaymentReceived(received) => &received.payment_ref,
            Self::PaymentRefunded(refunded) => &refunded.refund_ref,
            Self::DisputeOpened(opened) => &opened.dispute_ref,
            Self::DisputeWon(won) => &won.dispute_ref,
            Self::DisputeLost(lost) => &lost.dispute_ref,
        }
    }

    /// When it happened: from then it counts in the book.
    #[must_use]
    pub const fn occurred_at(&self) -> Timestamp {
        match self {
            Self::PaymentReceived(received) => received.occurred_at,
            Self::PaymentRefunded(refunded) => refunded.occurred_at,
            Self::DisputeOpened(opened) => opened.occurred_at,
            Self::DisputeWon(won) => won.occurred_at,
            Self::DisputeLost(lost) => lost.occurred_at,
        }
    }
}
