//! One login on one device, from its start to its end.

mod decide;
mod event;
mod state;
#[cfg(test)]
mod tests;

pub use decide::{SessionCommand, SessionRefusal};
pub use event::*;
pub use state::{Session, Started};
