//! The `account` aggregate.
