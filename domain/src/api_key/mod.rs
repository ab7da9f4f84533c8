//! A tenant's API key: what it may call, how often, and whether it still opens anything.

mod event;

pub use event::*;
