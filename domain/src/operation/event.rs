//! What an operator's tool can have done.

use serde::{Deserialize, Serialize};

use uuid::Uuid;

use crate::{OperationId, SubjectId, TenantId, Timestamp, UserId};

use super::upcast;

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
    /// A new version of a projection was asked for; what came of it is another fact of the same run.
    RebuildStarted(RebuildStarted),
    /// A rebuild was stopped before it was done; the live version is as it was.
    RebuildCancelled(RebuildCancelled),
    /// What a projection had set aside was taken up again.
    DeadLettersRetried(DeadLettersRetried),
    /// One event that a projection cannot take will be left out of it.
    DeadLetterSkipped(DeadLetterSkipped),
    /// Snapshots of aggregates were deleted; they only speed a load up.
    SnapshotsDropped(SnapshotsDropped),
    /// A log that another database held was read into this one, which was empty.
    LogImported(LogImported),
    /// The log, or what it had grown by, was written down with everything a restore needs.
    BackupTaken(BackupTaken),
    /// This database was filled from a backup.
    LogRestored(LogRestored),
    /// The log goes on from an earlier point than it had reached; what came after is abandoned.
    EpochStarted(EpochStarted),
    /// A person was erased: what is sealed for them opens for nobody any more.
    SubjectErased(SubjectErased),
    /// The data keys are wrapped by the current master key, so that the one before is needed no more.
    DataKeysRewrapped(DataKeysRewrapped),
}

crate::facts!(OperationEvent {
    ProjectionRebuilt => "projection_rebuilt" v "1",
    ProjectionSwitched => "projection_switched" v "1",
    ProjectionRepaired => "projection_repaired" v "1",
    KeyringRotated => "keyring_rotated" v "1",
    RebuildStarted => "rebuild_started" v "2" after ["1" to "2": upcast::scope_of_a_name],
    RebuildCancelled => "rebuild_cancelled" v "1",
    DeadLettersRetried => "dead_letters_retried" v "1",
    DeadLetterSkipped => "dead_letter_skipped" v "1",
    SnapshotsDropped => "snapshots_dropped" v "1",
    LogImported => "log_imported" v "1",
    BackupTaken => "backup_taken" v "1",
    LogRestored => "log_restored" v "1",
    EpochStarted => "epoch_started" v "1",
    SubjectErased => "subject_erased" v "1",
    DataKeysRewrapped => "data_keys_rewrapped" v "1",
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
    /// The user, when it was one rather than somebody at the console.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
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
    /// Whose rows were put right, at the position of their partition alone; all when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<RebuildOnly>,
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

/// See [`OperationEvent::LogImported`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogImported {
    /// Who and why.
    #[serde(flatten)]
    pub run: RunBy,
    /// The log, by its id.
    pub log_id: Uuid,
    /// The file it came from, by name.
    pub source: String,
    /// Where it ended, by partition.
    pub positions: Vec<PartitionPosition>,
    /// Its events.
    pub events: u64,
    /// Whether keys came with it: without them what is sealed in it stays so.
    pub with_keys: bool,
    /// Keys that were left out, of subjects erased since the file was written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub erased: u64,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was done.
    pub finished_at: Timestamp,
}

/// See [`OperationEvent::BackupTaken`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackupTaken {
    /// Who and why.
    #[serde(flatten)]
    pub run: RunBy,
    /// The backup's folder, by name.
    pub backup: String,
    /// Which file of it: 0 is the base, and each after it has what the log had grown by.
    pub number: u32,
    /// The log's heads as it has them, by partition.
    pub positions: Vec<PartitionPosition>,
    /// Events in this file.
    pub events: u64,
    /// When.
    pub taken_at: Timestamp,
}

/// See [`OperationEvent::LogRestored`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogRestored {
    /// Who and why.
    #[serde(flatten)]
    pub run: RunBy,
    /// The backup's folder, by name.
    pub backup: String,
    /// The log's epoch since; 0 is the first.
    pub epoch: i32,
    /// Where the restored log ended, by partition.
    pub positions: Vec<PartitionPosition>,
    /// Its events.
    pub events: u64,
    /// Events of the backup that were left out, because they came after the moment that was asked for.
    pub left_out: u64,
    /// Keys of the backup that were left out, because their subjects have been erased since.
    pub erased: u64,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was done.
    pub finished_at: Timestamp,
}

/// A partition's head: its last event's position and hash.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PartitionHead {
    /// The partition.
    pub partition: i32,
    /// The position; 0 when it is empty.
    pub position: i64,
    /// The hash there, hexadecimal.
    pub hash: String,
}

/// See [`OperationEvent::EpochStarted`]. The signed epoch is kept with the anchors; this is its trace in the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EpochStarted {
    /// Who and why.
    #[serde(flatten)]
    pub run: RunBy,
    /// Its number, from 1.
    pub epoch: i32,
    /// The heads the log goes on from.
    pub from: Vec<PartitionHead>,
    /// The heads it is known to have had, where they are others.
    pub abandoned: Vec<PartitionHead>,
    /// When.
    pub started_at: Timestamp,
}

/// What stands for every projection where one could be named.
pub const EVERY_PROJECTION: &str = "all";

/// See [`OperationEvent::RebuildStarted`]. Version 1 had the projection's name, or `all`, as a text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RebuildStarted {
    /// Who and why.
    #[serde(flatten)]
    pub run: RunBy,
    /// Which projections.
    pub scope: RebuildScope,
    /// What of them; everything when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<RebuildOnly>,
    /// Up to when the log was to be read; to its head when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// When.
    pub started_at: Timestamp,
}

/// Which projections a rebuild is of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RebuildScope {
    /// All there are.
    Every,
    /// One.
    One {
        /// Its name.
        projection: String,
    },
}

impl RebuildScope {
    /// From a projection's name, or `all`.
    #[must_use]
    pub fn named(name: &str) -> Self {
        if name == EVERY_PROJECTION { Self::Every } else { Self::One { projection: name.to_owned() } }
    }

    /// The projection's name, or `all`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Every => EVERY_PROJECTION,
            Self::One { projection } => projection,
        }
    }
}

/// What of a projection a rebuild puts right.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RebuildOnly {
    /// What is about one tenant.
    Tenant(TenantId),
    /// What is about one stream: `<aggregate type>/<id>`. A wallet is its tenant's `wallet/<tenant>`.
    Stream(String),
}

/// See [`OperationEvent::RebuildCancelled`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RebuildCancelled {
    /// Who and why.
    #[serde(flatten)]
    pub run: RunBy,
    /// The projection's name, or `all`.
    pub projection: String,
    /// When.
    pub cancelled_at: Timestamp,
}

/// See [`OperationEvent::DeadLettersRetried`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeadLettersRetried {
    /// Who and why.
    #[serde(flatten)]
    pub run: RunBy,
    /// The projection's name.
    pub projection: String,
    /// Events taken after all.
    pub resumed: u64,
    /// Streams that failed again and wait on.
    pub streams_failing: u64,
    /// When.
    pub retried_at: Timestamp,
}

/// See [`OperationEvent::DeadLetterSkipped`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeadLetterSkipped {
    /// Who and why.
    #[serde(flatten)]
    pub run: RunBy,
    /// The projection's name.
    pub projection: String,
    /// Its live version. One that is built later takes the event if it can, and leaves it out if it cannot.
    pub version: i32,
    /// The partition of the event that is left out.
    pub partition: i32,
    /// Its position.
    pub position: i64,
    /// When.
    pub skipped_at: Timestamp,
}

/// See [`OperationEvent::SnapshotsDropped`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SnapshotsDropped {
    /// Who and why.
    #[serde(flatten)]
    pub run: RunBy,
    /// Of which kind of aggregate; of all when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// How many.
    pub snapshots: u64,
    /// When.
    pub dropped_at: Timestamp,
}

/// See [`OperationEvent::SubjectErased`]. What ended with it stands on the streams of the account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SubjectErased {
    /// Who and why.
    #[serde(flatten)]
    pub run: RunBy,
    /// Whose data key is destroyed.
    pub subject: SubjectId,
    /// When.
    pub erased_at: Timestamp,
}

/// See [`OperationEvent::DataKeysRewrapped`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DataKeysRewrapped {
    /// Who and why.
    #[serde(flatten)]
    pub run: RunBy,
    /// Keys that the previous master key had wrapped.
    pub rewrapped: u64,
    /// Keys that the current one had wrapped before.
    pub already: u64,
    /// Keys that do not open, and were left as they were.
    pub unopenable: u64,
    /// When.
    pub rewrapped_at: Timestamp,
}

/// For fields that are left out while they say nothing.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}
