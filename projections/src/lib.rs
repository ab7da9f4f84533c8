//! What CALOS shows, folded from the log.
//!
//! A read model is a pure function from an event to row changes ([`Projection`]); [`registry`] names them all.

pub mod accounts;
pub mod api_keys;
pub mod copy_in;
pub mod copy_out;
mod decode;
pub mod kind;
mod moment;
pub mod open_holds;
pub mod page;
pub mod projection;
pub mod rate_limit_windows;
pub mod registry;
pub mod table;
pub mod tenants;
mod text;
pub mod usage_log;
pub mod wallet_balance;
mod wallet_facts;
pub mod wallet_ledger;

pub use copy_in::{CopyError, CopySink, Value};
pub use copy_out::{Columns, CopyOutError, LogRow, LogSlice, ReadStopped};
pub use kind::Kind;
pub use projection::{ProjectError, Projection};
pub use registry::{AnyProjection, Fold};
pub use table::{Column, ColumnType, Growth, Index, Schema, TableSpec, column_names};
