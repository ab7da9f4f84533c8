//! A person: how they sign in, and what they may do for CALOS itself.

mod event;

pub use event::*;
