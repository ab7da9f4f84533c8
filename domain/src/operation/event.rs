//! What an operator's tool can have done.

use serde::{Deserialize, Serialize};

use crate::{OperationId, Timestamp};

/// Everything an operator's tool records. Stored as `{"<name>": {…}}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationEvent {
    /// A new version of a projection was built from the log beside the live one, and compared with it.
    ProjectionRebuilt(ProjectionRebuilt),
    /// A built version took the live one's place.
    ProjectionSwitched(ProjectionSwitched),
    /// The live version itself was put right from the log.
    ProjectionRepaired(ProjectionRepaired),
    /// The keyring has a new key, and its entries are sealed under it.
    KeyringRotated(KeyringRotated),
}

crate::facts!(OperationEvent {
    ProjectionRebuilt => "projection_rebuilt" v "1",
    ProjectionSwitched => "projection_switched" v "1",
    ProjectionRepaired => "projection_repaired" v "1",
    KeyringRotated => "keyring_rotated" v "1",
});

/// How far one partition was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PartitionPosition {
    /// The partition.
    pub partition: i32,
    /// The last position read.
    pub position: i64,
}

/// Who ran the tool, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RunBy {
    /// The run.
    pub operation_id: OperationId,
    /// Who: a login name or a user.
    pub operator: String,
    /// Why, in their words.
    pub reason: String,
}

/// See [`OperationEvent::ProjectionRebuilt`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProjectionRebuilt {
    /// Who and why.
    #[serde(flatten)]
    pub run: RunBy,
    /// The projection's name.
    pub projection: String,
    /// The live version it was compared with.
    pub live_version: i32,
    /// The version that was built.
    pub built_version: i32,
    /// How far the log was read, by partition.
    pub positions: Vec<PartitionPosition>,
    /// Events folded in.
    pub events: u64,
    /// Rows the built version has.
    pub rows: u64,
    /// Rows in which the two versions differed at those positions.
    pub differences: u64,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was done.
    pub finished_at: Timestamp,
}

/// See [`OperationEvent::ProjectionSwitched`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProjectionSwitched {
    /// Who and why.
    #[serde(flatten)]
    pub run: RunBy,
    /// The projection's name.
    pub projection: String,
    /// The version that was live.
    pub from_version: i32,
    /// The version that is live now.
    pub to_version: i32,
    /// Where both stood, by partition.
    pub positions: Vec<PartitionPosition>,
    /// When.
    pub switched_at: Timestamp,
}

/// See [`OperationEvent::ProjectionRepaired`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProjectionRepaired {
    /// Who and why.
    #[serde(flatten)]
    pub run: RunBy,
    /// The projection's name.
    pub projection: String,
    /// The version that was repaired in place.
    pub version: i32,
    /// How far the log was read, by partition.
    pub positions: Vec<PartitionPosition>,
    /// Rows that were put right.
    pub differences: u64,
    /// When.
    pub repaired_at: Timestamp,
}

/// See [`OperationEvent::KeyringRotated`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyringRotated {
    /// Who and why.
    #[serde(flatten)]
    pub run: RunBy,
    /// The keyring key in force since, counted from 1.
    pub version: i32,
    /// Entries that were sealed anew.
    pub resealed: u64,
    /// Entries that do not open, and were left as they were.
    pub unopenable: u64,
    /// When.
    pub rotated_at: Timestamp,
}
