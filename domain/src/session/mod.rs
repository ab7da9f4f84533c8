//! The `session` aggregate.
