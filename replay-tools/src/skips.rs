//! Events that operators leave out: each is a fact in the log, so every fold, whenever it is done, leaves the same ones out.

use std::collections::{HashMap, HashSet};

use sqlx::PgPool;

use calos_domain::Decider as _;
use calos_domain::operation::{Operation, OperationEvent};
use calos_domain::upcast::{self, Label};

use crate::error::ToolError;

/// The fact that an event is left out.
const SKIPPED: &str = "dead_letter_skipped";

/// What is left out: positions, by projection and partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Skips(HashMap<(String, i32), HashSet<i64>>);

impl Skips {
    /// What the log says is left out. Its facts stand among all other events of their kind, so they are read once for all
    /// partitions.
    pub(crate) async fn read(pool: &PgPool) -> Result<Self, ToolError> {
        let facts: Vec<(String, String)> = sqlx::query_as(
            "SELECT event_version, payload::text FROM events WHERE aggregate_type = $1 AND event_type = $2",
        )
        .bind(Operation::KIND)
        .bind(SKIPPED)
        .fetch_all(pool)
        .await?;
        let mut skips = Self::default();
        for (event_version, fact) in facts {
            let label = Label { aggregate_type: Operation::KIND, event_type: SKIPPED, event_version: &event_version };
            let fact = upcast::decode(label, &fact)
                .map_err(|error| ToolError::Corrupt(format!("a skipped dead letter cannot be read: {error}")))?;
            if let OperationEvent::DeadLetterSkipped(skip) = fact {
                skips.0.entry((skip.projection, skip.partition)).or_default().insert(skip.position);
            }
        }
        Ok(skips)
    }

    /// What is left out of one partition of one projection.
    pub(crate) fn of(&self, projection: &str, partition: i32) -> HashSet<i64> {
        self.0.get(&(projection.to_owned(), partition)).cloned().unwrap_or_default()
    }
}
