//! What closing a month remembers of those before.

use serde::{Deserialize, Serialize};

use crate::{Decider, Timestamp};

use super::{Month, PeriodCommand, PeriodEvent, PeriodRefusal, decide};

/// The months closed so far: twelve more a year, so they are kept.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Periods {
    pub(super) closed: Vec<ClosedMonth>,
}

/// A closed month, as far as later ones ask for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClosedMonth {
    /// Which.
    pub month: Month,
    /// When it was closed.
    pub closed_at: Timestamp,
    /// Its trial balance is as known at this moment.
    pub as_known_at: Timestamp,
    /// Its hash.
    pub hash: String,
}

impl Decider for Periods {
    const KIND: &'static str = "period";
    const SNAPSHOT_VERSION: i32 = 1;

    type Command = PeriodCommand;
    type Event = PeriodEvent;
    type Refusal = PeriodRefusal;

    fn decide(&self, command: PeriodCommand) -> Result<Vec<PeriodEvent>, PeriodRefusal> {
        decide::decide(self, command)
    }

    fn evolve(&mut self, event: &PeriodEvent) {
        match event {
            PeriodEvent::PeriodClosed(closed) => self.closed.push(ClosedMonth {
                month: closed.month,
                closed_at: closed.closed_at,
                as_known_at: closed.as_known_at,
                hash: closed.hash.clone(),
            }),
        }
    }

    fn weight_bytes(&self) -> usize {
        const HASH_BYTES: usize = 64;
        std::mem::size_of::<Self>() + self.closed.len() * (std::mem::size_of::<ClosedMonth>() + HASH_BYTES)
    }
}

impl Periods {
    /// The months closed so far, in order.
    #[must_use]
    pub fn closed(&self) -> &[ClosedMonth] {
        &self.closed
    }

    /// The month closed last.
    #[must_use]
    pub fn last(&self) -> Option<&ClosedMonth> {
        self.closed.last()
    }
}
