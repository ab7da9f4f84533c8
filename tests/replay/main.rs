//! The operators' tools against real PostgreSQL: what they find, what they mend, and what happens when they are killed.

mod finding;
mod history;
mod looking;
mod mending;
mod stopping;
