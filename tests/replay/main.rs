//! The operators' tools against real PostgreSQL: what they find, what they mend, and what happens when they are killed.

// Helpers panic with a reason instead of returning errors: a test that cannot be set up has failed.
#![expect(clippy::expect_used, reason = "a test's helper fails the test")]

mod exporting;
mod finding;
mod history;
mod later;
mod log_files;
mod looking;
mod mending;
mod mending_letters;
mod old_versions;
mod parts;
mod previews;
mod periods;
mod receipts;
mod restoring;
mod stopping;
mod turns;
mod year;
