//! What CALOS shows, folded from the log.

pub mod copy_in;
pub mod copy_out;
pub mod kind;
pub mod projection;
pub mod table;

pub use copy_in::{CopyError, CopySink, Value};
pub use copy_out::{Columns, CopyOutError, LogRow, LogSlice, ReadStopped};
pub use kind::Kind;
pub use projection::{ProjectError, Projection};
pub use table::{Column, ColumnType, Growth, Index, Schema, TableSpec, column_names};
