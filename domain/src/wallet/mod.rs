//! The wallet: everything that moves a tenant's credit is decided here.

mod event;

pub use event::*;
