//! The `email_claim` aggregate.
