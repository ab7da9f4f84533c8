//! Reconciliation: what the books say moved on an account, against what whoever keeps the account says. One stream per
//! run, with its exceptions, each owned by somebody until it is resolved.

mod decide;
mod event;
mod matching;
mod state;

#[cfg(test)]
mod tests;

pub use decide::{
    EXCEPTIONS_MAX_COUNT, NOTE_MAX_BYTES, REFERENCE_MAX_BYTES, ReconciliationCommand, ReconciliationRefusal,
    SOURCE_MAX_BYTES,
};
pub use event::*;
pub use matching::{Matched, Movement, match_up};
pub use state::{ExceptionState, Reconciliation};
