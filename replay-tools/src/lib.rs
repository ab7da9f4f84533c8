//! The operators' tools: what `calos-replay` does, callable from a program as well.
//!
//! One file per verb. A verb that changes state takes a [`write_guard::Confirmed`], which only a confirmation makes, and
//! records what it did as an operation in the log.

pub mod anchor;
mod background;
pub mod backup;
pub mod balance;
mod bulk;
pub mod check;
pub mod cli;
mod connections;
pub mod dead_letters;
mod decode;
pub mod diff;
pub mod differences;
mod environment;
pub mod erase;
pub mod error;
pub mod events;
pub mod export;
pub mod export_log;
mod finance;
mod fold;
pub mod import_log;
mod interrupt;
mod load;
pub mod log_file;
mod log_verbs;
pub mod operation;
pub mod output;
mod people;
pub mod place;
pub mod progress;
pub mod rebuild;
mod rebuild_verb;
pub mod receipt;
pub mod rekey;
pub mod restore;
mod run;
pub mod search;
mod skips;
pub mod snapshots;
pub mod status;
mod tending;
mod time_text;
mod traffic;
pub mod trial_balance;
pub mod turn;
pub mod verify;
mod versions;
mod whole_units;
pub mod write_guard;

pub use connections::APPLICATION_NAME;
pub use differences::{Difference, Differences};
pub use error::{Exit, ToolError};
pub use fold::ReadModel;
pub use run::run;
pub use versions::Vector;
