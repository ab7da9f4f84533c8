//! What CALOS shows, folded from the log.

pub mod copy_in;
pub mod copy_out;

pub use copy_in::{CopyError, CopySink, Value};
pub use copy_out::{Columns, CopyOutError, LogRow, LogSlice, ReadStopped};
