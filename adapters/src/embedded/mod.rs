//! The `embedded` adapter.
