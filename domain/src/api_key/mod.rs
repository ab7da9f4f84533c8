//! The `api_key` aggregate.
