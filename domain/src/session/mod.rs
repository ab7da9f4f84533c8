//! One login on one device, from its start to its end.

mod event;

pub use event::*;
