//! The `operation` aggregate.
