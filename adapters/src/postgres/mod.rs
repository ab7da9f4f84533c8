//! PostgreSQL: connections, the schema, and the log that is kept in it.

mod connect;
mod migrate;

mod append;
mod column;
mod confirm;
pub mod counters;
mod failure;
mod fence;
mod heads;
mod load;
pub mod log;
pub mod observed;
pub mod partitioning;
mod pipeline;
pub mod pulse;
pub mod reading;
mod recovery;
mod snapshots;
pub mod store;
pub mod timestamp;
mod unit;
pub mod upcast;
mod warm;
mod writer;

pub use confirm::flush_seen;
pub use log::{ChangedStream, LogOptions, PgLog};
pub use pulse::Pulse;
pub use store::PgEventStore;
pub use timestamp::Timestamptz;

pub use connect::{
    ACQUIRE_TIMEOUT_SECONDS, APPLICATION_ROLE, OWNER_CONNECTIONS_MAX, STATEMENT_TIMEOUT_SECONDS, connect, connect_one,
    connect_owner,
};
pub use migrate::{MIGRATOR, MigrateError, fingerprint, migrate};
