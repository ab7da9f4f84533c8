//! The `providers` adapter.
