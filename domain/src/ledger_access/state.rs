//! What is remembered of looks: how many there were. Which, only the events say.

use serde::{Deserialize, Serialize};

use crate::Decider;

use super::{LedgerAccessCommand, LedgerAccessEvent, LedgerAccessRefusal, decide};

/// The looks at one tenant's ledger.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct LedgerAccess {
    views: u64,
}

impl Decider for LedgerAccess {
    const KIND: &'static str = "ledger_access";
    const SNAPSHOT_VERSION: i32 = 1;

    type Command = LedgerAccessCommand;
    type Event = LedgerAccessEvent;
    type Refusal = LedgerAccessRefusal;

    fn decide(&self, command: LedgerAccessCommand) -> Result<Vec<LedgerAccessEvent>, LedgerAccessRefusal> {
        Ok(decide::decide(command))
    }

    fn evolve(&mut self, event: &LedgerAccessEvent) {
        match event {
            LedgerAccessEvent::LedgerViewed(_) => self.views = self.views.saturating_add(1),
        }
    }
}

impl LedgerAccess {
    /// How often staff looked.
    #[must_use]
    pub const fn views(&self) -> u64 {
        self.views
    }
}
