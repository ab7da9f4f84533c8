//! The composition root of CALOS and the only room with HTTP.
//!
//! [`wiring`] builds the running application, [`serve`] listens, [`routes`] parse, call and render, [`error`] turns a
//! refusal into an answer, and [`boundary`] is the one place where a failure is logged.

pub mod codes;
pub mod error;
