//! One event as it was recorded: what projections, exports and audits read.

use crate::Timestamp;

/// A stored event, borrowed from the bytes it was read as.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The partition of the log.
    pub partition: i32,
    /// Position within the partition, gapless from 1, in commit order.
    pub position: i64,
    /// The aggregate's stored type.
    pub aggregate_type: &'a str,
    /// The aggregate's stream id.
    pub aggregate_id: &'a str,
    /// Position within the stream, gapless from 1.
    pub sequence: i64,
    /// The stored event name.
    pub event_type: &'a str,
    /// The stored event version.
    pub event_version: &'a str,
    /// The payload, JSON, byte for byte as stored: an object with one key, the event name.
    pub payload: &'a str,
    /// The metadata envelope, JSON: an object of strings.
    pub metadata: &'a str,
    /// When the log accepted it; never goes backwards within a partition.
    pub recorded_at: Timestamp,
}
