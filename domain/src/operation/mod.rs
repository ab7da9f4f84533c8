//! Operations: what operators' tools did to projections, who ran them and why. One stream per run of a tool.

mod decide;
mod event;
mod state;
mod upcast;

#[cfg(test)]
mod tests;

pub use decide::{OperationCommand, OperationRefusal};
pub use event::*;
pub use state::{FACTS_MAX_COUNT, Operation};
