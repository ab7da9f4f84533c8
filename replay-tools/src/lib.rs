//! The operators' tools: what `calos-replay` does, callable from a program as well.
//!
//! One file per verb. A verb that changes state takes a [`write_guard::Confirmed`], which only a confirmation makes, and
//! records what it did as an operation in the log.

pub mod balance;
mod bulk;
pub mod cli;
mod connections;
pub mod dead_letters;
mod decode;
pub mod diff;
pub mod differences;
mod environment;
pub mod error;
pub mod events;
pub mod export;
mod finance;
mod fold;
pub mod operation;
pub mod output;
pub mod place;
pub mod progress;
pub mod rebuild;
pub mod receipt;
mod run;
pub mod status;
mod time_text;
pub mod trial_balance;
pub mod verify;
mod versions;
pub mod write_guard;

pub use connections::APPLICATION_NAME;
pub use differences::{Difference, Differences};
pub use error::{Exit, ToolError};
pub use fold::ReadModel;
pub use run::run;
pub use versions::Vector;
