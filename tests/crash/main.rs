//! Real processes, ended by `kill -9`: what was acknowledged is there, once, and the log proves it.

#![expect(clippy::expect_used, clippy::panic, reason = "a test's helper fails the test")]

mod binaries;
mod holds;
mod kill_postgres;
mod kill_server;
mod server;
mod two_servers;
