//! What CALOS shows, folded from the log.
//!
//! A read model is a pure function from an event to row changes ([`Projection`]); [`registry`] names them all, and
//! [`Runner`] keeps the live ones at the head of the log, rows and checkpoints in one transaction.

pub mod account_balances;
pub mod accounts;
pub mod adjustments;
pub mod api_keys;
pub mod as_of;
mod bisect;
mod book;
pub mod bucket;
pub mod checkpoint;
pub mod copy_in;
pub mod copy_out;
pub mod dead_letters;
mod decode;
mod faults;
mod feed;
pub mod journal;
pub mod kind;
pub mod lag;
mod moment;
pub mod observed;
pub mod open_grants;
pub mod open_holds;
pub mod page;
pub mod periods;
pub mod progress;
pub mod projection;
pub mod provider_keys;
pub mod rate_limit_windows;
pub mod reconciliations;
pub mod registry;
mod round;
pub mod runner;
#[cfg(test)]
mod samples;
pub mod scope;
pub mod sessions;
pub mod statement;
pub mod status;
pub mod table;
pub mod tenants;
mod text;
pub mod trial_balance;
pub mod usage_log;
pub mod wait;
pub mod wallet_balance;
pub mod wallet_days;
mod wallet_facts;
pub mod wallet_ledger;
mod windows;

pub use copy_in::{CopyError, CopySink, Value};
pub use copy_out::{Columns, CopyOutError, LogRow, LogSlice, ReadStopped};
pub use kind::Kind;
pub use progress::Progress;
pub use projection::{Pace, ProjectError, Projection};
pub use registry::{AnyProjection, Fold};
pub use runner::{Runner, RunnerHandle, RunnerOptions};
pub use table::{Column, ColumnType, Growth, Index, Schema, TableSpec, column_names};
pub use wait::{Behind, wait_until};

/// Names the fold this program was built with: a hash of the sources that decide which rows an event becomes.
pub const FOLD_FINGERPRINT: &str = env!("CALOS_FOLD_FINGERPRINT");
