//! The wallet: everything that moves a tenant's credit is decided here.
//!
//! `event` is what can have happened, `state` what a decision remembers, `decide` dispatches a command to the file that
//! holds its rule: `spend` (holds, settlements, charges), `correct` (reversals, expiries, takings), `claim` (claims back
//! and their undoing). `costs` adds to the events of a decision what was paid for the credit that moved. `callers` and
//! `windows` remember how often and for how much each caller called: limits and budgets are decided on them.

mod burn_order;
mod callers;
mod claim;
mod command;
mod correct;
mod costs;
mod decide;
mod draft;
mod event;
mod evolve;
mod grant;
mod prints;
mod refusal;
mod spend;
mod state;
mod takings;
mod uses;
mod windows;

#[cfg(test)]
mod tests;

pub use burn_order::{BURN_ORDER_VERSION, BurnKey, burn_order};
pub use callers::{BudgetPeriod, CALLERS_REMEMBERED_MAX_COUNT, CallTerms, Caller, Spending};
pub use command::WalletCommand;
pub(crate) use decide::ordered;
pub use event::*;
pub use grant::{GRANTS_OPEN_MAX_COUNT, GRANTS_REMEMBERED_MAX_COUNT, Grant, VOIDS_PER_GRANT_MAX_COUNT};
pub use refusal::WalletRefusal;
pub use state::{Purse, Wallet};
pub use takings::TAKINGS_REMEMBERED_MAX_COUNT;
pub use uses::{Deduction, Drawn, EndedUse, Ending, HOLDS_OPEN_MAX_COUNT, OpenHold, USES_REMEMBERED_MAX_COUNT};
pub use windows::{CallWindow, WindowStatus};

/// How far an id or an effective date may lie ahead of the command's own moment: clocks of several machines differ.
pub const CLOCK_SKEW_MAX_SECONDS: i64 = 300;

/// The longest reference or reason, in bytes.
pub const WALLET_TEXT_MAX_BYTES: usize = 500;
