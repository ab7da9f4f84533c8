//! Adjustments: credit given or taken by hand, with four eyes. One stream per adjustment, beside its tenant's wallet.
//!
//! Somebody proposes it with a reason and evidence, somebody else approves it, and the last approval, the application
//! and what the wallet makes of it are one append: nothing is ever applied twice, and nothing by its author alone.

mod decide;
mod event;
mod limits;
mod state;

#[cfg(test)]
mod tests;

pub use decide::{AdjustmentCommand, AdjustmentRefusal, EVIDENCE_MAX_BYTES, Proposal, REJECTION_MAX_BYTES};
pub use event::*;
pub use limits::{LAPSE_SECONDS, approvals_needed};
pub use state::{Adjustment, AdjustmentStatus};
