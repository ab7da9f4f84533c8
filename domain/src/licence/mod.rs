//! The licence: what a tenant may use, at which markup, and how many tokens of a period are used.

mod decide;
mod event;
mod recent;
mod state;

#[cfg(test)]
mod tests;

pub use decide::{LicenceCommand, LicenceRefusal};
pub use event::*;
pub use recent::USAGES_REMEMBERED_MAX_COUNT;
pub use state::{Licence, Period};
