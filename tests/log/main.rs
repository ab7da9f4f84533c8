//! The event log against real PostgreSQL.

mod append;
mod append_only;
mod concurrency;
mod framework;
mod tally;
