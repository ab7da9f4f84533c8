//! The `tenant` aggregate.
