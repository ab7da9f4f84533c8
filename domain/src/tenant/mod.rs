//! A tenant: its name, its members, its settings. Its credit is the wallet's.

mod event;

pub use event::*;
