//! A browser or phone of one user, and how far it is trusted.

mod event;

pub use event::*;
