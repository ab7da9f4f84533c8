//! Events that operators leave out: each is a fact in the log, so every fold, whenever it is done, leaves the same ones out.

use std::collections::{HashMap, HashSet};

use sqlx::PgPool;

use calos_domain::operation::OperationEvent;

use crate::error::ToolError;

/// What is left out of a partition: positions, by projection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Skips(HashMap<String, HashSet<i64>>);

impl Skips {
    /// What the log says is left out of one partition.
    pub(crate) async fn of(pool: &PgPool, partition: i32) -> Result<Self, ToolError> {
        let facts: Vec<String> = sqlx::query_scalar(
            "SELECT payload::text FROM events WHERE aggregate_type = 'operation' AND event_type = 'dead_letter_skipped'",
        )
        .fetch_all(pool)
        .await?;
        let mut skips = Self::default();
        for fact in facts {
            let fact = serde_json::from_str(&fact)
                .map_err(|error| ToolError::Corrupt(format!("a skipped dead letter cannot be read: {error}")))?;
            if let OperationEvent::DeadLetterSkipped(skip) = fact
                && skip.partition == partition
            {
                skips.0.entry(skip.projection).or_default().insert(skip.position);
            }
        }
        Ok(skips)
    }

    /// What is left out of one projection.
    pub(crate) fn for_projection(&self, projection: &str) -> HashSet<i64> {
        self.0.get(projection).cloned().unwrap_or_default()
    }
}
