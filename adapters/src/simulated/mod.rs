//! The `simulated` adapter.
