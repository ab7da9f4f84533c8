//! The composition root of CALOS and the only room with HTTP.
//!
//! [`wiring`] builds the running application, [`run`] starts and ends it, [`serve`] listens, [`routes`] parse, call and
//! render, [`error`] turns a refusal into an answer, and [`boundary`] is the one place where a failure is logged.

pub mod admin;
pub mod auth;
mod body;
pub mod book_port;
pub mod boundary;
pub mod calendar;
pub mod cli;
pub mod codes;
pub mod demo;
mod dialect;
pub mod error;
pub mod expire_grants;
pub mod expire_holds;
mod forwarded;
pub mod gateway;
pub mod idempotency;
pub mod ledger;
mod listening;
pub mod logging;
pub mod metrics;
pub mod moment;
pub mod one_at_a_time;
pub mod openapi;
pub mod paging;
pub mod position;
pub mod rebuilds;
mod recent;
pub mod refusals;
pub mod request;
pub mod routes;
pub mod run;
pub mod seal_check;
pub mod serve;
pub mod simulated;
pub mod sweep_keyring;
pub mod telemetry;
mod to_the_end;
pub mod wiring;
