//! The claim on one email address: at most one account holds it, whatever its letters' case.

mod address;
mod decide;
mod event;
mod state;
#[cfg(test)]
mod tests;

pub use address::{EMAIL_MAX_BYTES, EmailAddress, NoEmailAddress};
pub use decide::{EmailClaimCommand, EmailClaimRefusal};
pub use event::*;
pub use state::EmailClaim;
