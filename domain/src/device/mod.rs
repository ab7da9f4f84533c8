//! The `device` aggregate.
