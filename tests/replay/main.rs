//! The operators' tools against real PostgreSQL: what they find, what they mend, and what happens when they are killed.

// Helpers panic with a reason instead of returning errors: a test that cannot be set up has failed.
#![expect(clippy::expect_used, clippy::panic, reason = "a test's helper fails the test")]

#[path = "../crash/binaries.rs"]
mod binaries;
mod erasing;
mod erasing_live;
mod exporting;
mod finding;
mod history;
mod interrupting;
mod later;
mod log_files;
mod looking;
mod mending;
mod mending_letters;
mod old_versions;
mod parts;
mod periods;
mod previews;
mod receipts;
mod rekeying;
mod restoring;
#[path = "../crash/server.rs"]
#[expect(dead_code, reason = "the crash tests hand sockets over and kill servers, which nothing here does")]
mod server;
mod stopping;
mod sweeping;
mod turns;
mod whole_units;
mod year;
