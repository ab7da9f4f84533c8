//! One payout: money on its way from Stripe to the bank.

use serde::{Deserialize, Serialize};

use crate::wallet::CLOCK_SKEW_MAX_SECONDS;
use crate::{Decider, MicroUsd, StreamId, Timestamp};

use super::is_reference;

/// The key of every payout's stream.
const PAYOUT_KEY: &str = "payout";

/// Everything that happens to a payout. Stored as `{"<name>": {…}}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayoutEvent {
    /// Stripe sent it.
    PayoutSent(PayoutSent),
}

crate::facts!(PayoutEvent {
    PayoutSent => "payout_sent" v "1",
});

/// See [`PayoutEvent::PayoutSent`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PayoutSent {
    /// The payout.
    pub payout_ref: String,
    /// How much reaches the bank; below zero when Stripe collects a negative balance from it.
    pub amount: MicroUsd,
    /// When.
    pub occurred_at: Timestamp,
}

impl PayoutEvent {
    /// When it happened: from then it counts in the book.
    #[must_use]
    pub const fn occurred_at(&self) -> Timestamp {
        let Self::PayoutSent(sent) = self;
        sent.occurred_at
    }

    /// The payout: what Stripe calls the source.
    #[must_use]
    pub fn source_ref(&self) -> &str {
        let Self::PayoutSent(sent) = self;
        &sent.payout_ref
    }
}

/// A payout as remembered.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Payout {
    sent: Option<PayoutSent>,
}

/// Records a payout. Recorded again it changes nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordPayout {
    /// The payout.
    pub sent: PayoutSent,
    /// Now.
    pub at: Timestamp,
}

/// Why a payout is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PayoutRefusal {
    /// The reference is empty, too long, or not of visible ASCII characters.
    #[error("{0:?} is no reference")]
    NoReference(String),
    /// Nothing was paid out, or the one amount that has no opposite.
    #[error("a payout of {0} micro-dollars is none")]
    NoAmount(MicroUsd),
    /// It would happen at a moment to come.
    #[error("the payout is of {occurred_at:?}, and it is {at:?}")]
    NotYet {
        /// When it happened.
        occurred_at: Timestamp,
        /// Now.
        at: Timestamp,
    },
    /// The reference was recorded with other content.
    #[error("the payout {0} was recorded before with other content")]
    OtherContent(String),
}

/// The stream of a payout.
#[must_use]
pub fn payout_stream(payout_ref: &str) -> StreamId {
    StreamId::under(PAYOUT_KEY, payout_ref)
}

impl Payout {
    /// The payout, once it is recorded.
    #[must_use]
    pub const fn sent(&self) -> Option<&PayoutSent> {
        self.sent.as_ref()
    }
}

impl Decider for Payout {
    const KIND: &'static str = "payout";
    const SNAPSHOT_VERSION: i32 = 1;

    type Command = RecordPayout;
    type Event = PayoutEvent;
    type Refusal = PayoutRefusal;

    fn decide(&self, command: RecordPayout) -> Result<Vec<PayoutEvent>, PayoutRefusal> {
        let RecordPayout { sent, at } = command;
        match &self.sent {
            Some(known) if *known == sent => return Ok(Vec::new()),
            Some(known) => return Err(PayoutRefusal::OtherContent(known.payout_ref.clone())),
            None => {}
        }
        if !is_reference(&sent.payout_ref) {
            return Err(PayoutRefusal::NoReference(sent.payout_ref));
        }
        if sent.amount.is_zero() || sent.amount.get() == i64::MIN {
            return Err(PayoutRefusal::NoAmount(sent.amount));
        }
        if sent.occurred_at > at.plus_seconds(CLOCK_SKEW_MAX_SECONDS) {
            return Err(PayoutRefusal::NotYet { occurred_at: sent.occurred_at, at });
        }
        Ok(vec![PayoutEvent::PayoutSent(sent)])
    }

    fn evolve(&mut self, event: &PayoutEvent) {
        let PayoutEvent::PayoutSent(sent) = event;
        self.sent = Some(sent.clone());
    }

    fn weight_bytes(&self) -> usize {
        std::mem::size_of::<Self>() + self.sent.as_ref().map_or(0, |sent| sent.payout_ref.len())
    }
}
