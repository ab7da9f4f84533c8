//! The `secrets` adapter.
