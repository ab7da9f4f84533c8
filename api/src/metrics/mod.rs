//! What the server shows of itself under `/metrics`.
//!
//! Every room counts in plain numbers ([`calos_commands::figures`]); [`exposition`] alone knows how they are written.
//! A scrape reads memory and nothing else, so it is answered while the database is away: what only the database knows
//! is looked up in the background ([`watch`]) and shown with its age. Labels are names this program knows before it
//! starts, never a tenant, a key, a model or a path from outside, so the number of series is bounded.

pub mod exposition;
mod families;
pub mod http;
pub mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use calos_commands::figures::{Counter, Level};

pub use http::HttpFigures;
pub use watch::Seen;

/// What the server itself counts, beside what the log and the gateway do.
#[derive(Default, Debug)]
pub struct Metrics {
    /// Requests and refusals.
    pub http: Arc<HttpFigures>,
    /// Connections that are open.
    pub connections: Level,
    /// Holds this process has expired because their owner was gone.
    pub holds_expired: Counter,
    seen: Mutex<Seen>,
}

impl Metrics {
    /// What the background has seen last.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
