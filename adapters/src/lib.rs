//! One vendor or store per module; none of them knows HTTP routing, and none knows another.

pub mod anchors;
pub mod config;
pub mod database;
pub mod embedded;
pub mod epochs;
pub mod erasures;
pub mod fetch;
mod json_lines;
pub mod postgres;
pub mod probe;
pub mod providers;
pub mod receipt;
pub mod seal;
pub mod secrets;
pub mod stripe_statement;
pub mod tokenizer;
