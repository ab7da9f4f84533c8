//! Nothing is remembered of looks, since nothing is decided on them: how many there were and which, the events say.

use serde::{Deserialize, Serialize};

use crate::Decider;

use super::{LedgerAccessCommand, LedgerAccessEvent, LedgerAccessRefusal, decide};

/// The looks at one tenant's ledger.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct LedgerAccess {}

impl Decider for LedgerAccess {
    const KIND: &'static str = "ledger_access";
    const SNAPSHOT_VERSION: i32 = 2;

    type Command = LedgerAccessCommand;
    type Event = LedgerAccessEvent;
    type Refusal = LedgerAccessRefusal;

    fn decide(&self, command: LedgerAccessCommand) -> Result<Vec<LedgerAccessEvent>, LedgerAccessRefusal> {
        Ok(decide::decide(command))
    }

    fn evolve(&mut self, event: &LedgerAccessEvent) {
        match event {
            LedgerAccessEvent::LedgerViewed(_) => {}
        }
    }
}
