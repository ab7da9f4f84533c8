//! A look is recorded, every time: two looks of one person at one moment are two.

use crate::{Timestamp, UserId};

use super::{LedgerAccessEvent, LedgerView, LedgerViewed};

/// What can be recorded of a ledger that is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LedgerAccessCommand {
    /// Record a look.
    RecordView {
        /// Who looks.
        by: UserId,
        /// At what.
        what: LedgerView,
        /// Now.
        at: Timestamp,
    },
}

/// Why a look is not recorded, and so must not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LedgerAccessRefusal {
    /// There is nothing to look at.
    #[error("there is no such tenant")]
    NoSuchTenant,
}

pub(super) fn decide(command: LedgerAccessCommand) -> Vec<LedgerAccessEvent> {
    let LedgerAccessCommand::RecordView { by, what, at } = command;
    vec![LedgerAccessEvent::LedgerViewed(LedgerViewed { by, what, at })]
}
