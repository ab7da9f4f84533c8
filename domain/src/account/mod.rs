//! A person: how they sign in, and what they may do for CALOS itself.

mod decide;
mod event;
mod state;
#[cfg(test)]
mod tests;

pub use decide::{AccountCommand, AccountRefusal, TENANTS_FOUNDED_MAX};
pub use event::*;
pub use state::{Account, Erased, Profile};
