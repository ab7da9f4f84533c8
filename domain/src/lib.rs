//! The rules of CALOS, and nothing else.
//!
//! Each module is one aggregate in four files: `event.rs` (what can have happened), `state.rs` (what a decision
//! needs to remember), `decide.rs` (which events a command leads to, or why it is refused) and `tests.rs`. No module
//! here does I/O, reads a clock, draws a random number or awaits: time, ids and prices arrive inside the commands.

pub mod account;
pub mod adjustment;
pub mod api_key;
pub mod book;
pub mod decider;
pub mod device;
pub mod email_claim;
pub mod fingerprint;
pub mod ids;
pub mod ledger_access;
pub mod licence;
pub mod money;
pub mod operation;
pub mod payment;
pub mod period;
pub mod pricing;
pub mod reconciliation;
pub mod record;
pub mod routing;
pub mod sealed;
pub mod session;
pub mod stream;
pub mod tenant;
mod text;
pub mod tiers;
pub mod time;
pub mod upcast;
pub mod wallet;

pub use decider::{Decider, Fact};
pub use ids::*;
pub use money::{Asset, MicroUsd, NoAsset, Units};
pub use record::Record;
pub use stream::StreamId;
pub use time::Timestamp;
