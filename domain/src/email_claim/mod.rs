//! The claim on one email address: at most one account holds it, whatever its letters' case.

mod event;

pub use event::*;
