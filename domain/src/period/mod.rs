//! Closed months: the trial balance of each, fixed for ever. One stream for all of them, so that they close in order.

mod canonical;
mod decide;
mod event;
mod month;
mod state;

#[cfg(test)]
mod tests;

pub use canonical::canonical_text;
pub use decide::{ACCOUNT_MAX_BYTES, LINES_MAX_COUNT, PeriodCommand, PeriodRefusal, Trial};
pub use event::*;
pub use month::{Month, NoMonth};
pub use state::{ClosedMonth, Periods};

/// The one stream of closed months.
pub const PERIODS_STREAM: &str = "periods";
