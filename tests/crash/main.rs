//! Real processes, ended by `kill -9` or replaced: what was acknowledged is there, once, and the log proves it.

#![expect(clippy::expect_used, clippy::panic, reason = "a test's helper fails the test")]

mod binaries;
mod handover;
mod holds;
mod kill_postgres;
mod kill_server;
mod server;
mod two_servers;

/// Held by each test: they start servers and PostgreSQLs and drive them with hundreds of callers. Where every test is a
/// process of its own, `.config/nextest.toml` keeps them apart.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
