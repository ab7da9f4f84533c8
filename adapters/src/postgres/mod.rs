//! The `postgres` adapter.
