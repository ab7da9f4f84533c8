//! Records for the tests of read models.

use calos_domain::{Record, Timestamp};

use crate::ProjectError;
use crate::projection::Projection;

/// A tenant's stream id.
pub(crate) const TENANT: &str = "00000000-0000-0000-0000-0000000000aa";

/// One stored event, owned.
pub(crate) struct Sample {
    pub(crate) aggregate_type: &'static str,
    pub(crate) event_type: &'static str,
    pub(crate) payload: String,
}

impl Sample {
    /// At a position of partition 3, in the tenant's stream.
    pub(crate) fn at(&self, position: i64) -> Record<'_> {
        Record {
            partition: 3,
            position,
            aggregate_type: self.aggregate_type,
            aggregate_id: TENANT,
            sequence: position,
            event_type: self.event_type,
            event_version: "1",
            payload: &self.payload,
            metadata: "",
            recorded_at: Timestamp::from_micros(1_000_000 + position),
        }
    }
}

/// The changes of a history.
pub(crate) fn fold<P: Projection>(history: &[Sample]) -> Result<P::Changes, ProjectError> {
    let mut changes = P::Changes::default();
    for (position, sample) in (1..).zip(history) {
        P::project(&mut changes, &sample.at(position))?;
    }
    Ok(changes)
}

/// A wallet event from the payload's inner part.
pub(crate) fn wallet(event_type: &'static str, inner: &str) -> Sample {
    Sample { aggregate_type: "wallet", event_type, payload: format!("{{\"{event_type}\":{inner}}}") }
}
