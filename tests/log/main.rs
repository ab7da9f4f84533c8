//! The event log against real PostgreSQL.

#![expect(clippy::expect_used, clippy::panic, reason = "a test's helper fails the test")]

mod append;
mod append_only;
mod concurrency;
mod deferred;
mod fencing;
mod framework;
mod old_snapshot;
mod tally;
