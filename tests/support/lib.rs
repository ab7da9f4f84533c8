//! What the tests share: PostgreSQL and a database per test.
//!
//! The helpers panic with a reason instead of returning errors: a test that cannot be set up has failed.

// This crate is test code, although no `cfg(test)` says so.
#![expect(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test's helper fails the test")]

pub mod app;
pub mod before;
pub mod cluster;
pub mod database;
pub mod logs;
