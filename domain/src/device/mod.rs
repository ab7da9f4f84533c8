//! A browser or phone of one user, and how far it is trusted.

mod decide;
mod event;
mod state;
#[cfg(test)]
mod tests;

pub use decide::{DeviceCommand, DeviceRefusal};
pub use event::*;
pub use state::{Device, Known};
