//! The runbook's emergencies, brought about and mended with the built programs, as whoever is on call would do it.

#![expect(clippy::expect_used, clippy::panic, reason = "a test's helper fails the test")]

#[path = "../crash/binaries.rs"]
mod binaries;
#[path = "../crash/server.rs"]
#[expect(dead_code, reason = "the crash tests hand sockets over and kill servers, which no drill does")]
mod server;

mod balance_wrong;
mod checklist;
mod database_lost;
mod database_unreachable;
mod disk_full;
mod extent;
mod ollama_gone;
mod point_in_time;
mod poisoned_event;
mod table_lost;
mod wire;

/// Held by each drill: they measure times.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
