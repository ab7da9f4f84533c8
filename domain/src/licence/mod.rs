//! The `licence` aggregate.
