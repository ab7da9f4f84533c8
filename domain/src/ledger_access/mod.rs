//! Who of the staff looked at a tenant's ledger: every look is itself recorded. One stream per tenant.

mod decide;
mod event;
mod state;

#[cfg(test)]
mod tests;

pub use decide::{LedgerAccessCommand, LedgerAccessRefusal};
pub use event::*;
pub use state::LedgerAccess;
