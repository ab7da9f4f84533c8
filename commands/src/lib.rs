//! What CALOS can be asked to do, and what it needs of the world to do it.
//!
//! [`sourced`] is the only file that knows both the domain and `cqrs-es`. [`log`] is the port to the event log: every
//! use case decides inside [`log::EventLog::execute`]. [`ports`] are the other roles a use case needs.

pub mod accounts;
pub mod adjustments;
pub mod api_keys;
pub mod ask;
pub mod books;
pub mod byok;
pub mod client;
pub mod complete_chat;
pub mod erasure;
pub mod fault;
pub mod figures;
pub mod in_request;
pub mod ledger_access;
pub mod licences;
pub mod log;
pub mod login;
#[cfg(test)]
mod memory_log;
pub mod metadata;
pub mod opening;
pub mod payments;
pub mod periods;
pub mod ports;
pub mod processes;
pub mod provider;
pub mod raw_object;
pub mod reconciliation;
pub mod redact;
pub mod register;
pub mod sessions;
pub mod sourced;
pub mod staff;
pub mod tenants;
pub mod tokens;
pub mod tool_loop;
mod transcript;
pub mod web;
pub mod whoami;
