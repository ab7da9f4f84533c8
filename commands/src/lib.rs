//! What CALOS can be asked to do, and what it needs of the world to do it.
//!
//! [`sourced`] is the only file that knows both the domain and `cqrs-es`. [`log`] is the port to the event log: every
//! use case decides inside [`log::EventLog::execute`]. [`ports`] are the other roles a use case needs.

pub mod log;
pub mod metadata;
pub mod ports;
pub mod provider;
pub mod raw_object;
pub mod sourced;
pub mod tokens;
