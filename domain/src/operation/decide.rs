//! Which events a tool's report leads to, or why it is refused.

use crate::{Fact, OperationId};

use super::{
    BackupTaken, DataKeysRewrapped, DeadLetterSkipped, DeadLettersRetried, EpochStarted, FACTS_MAX_COUNT,
    KeyringRotated, LogImported, LogRestored, Operation, OperationEvent, PartitionHead, PartitionPosition,
    ProjectionRebuilt, ProjectionRepaired, ProjectionSwitched, RebuildCancelled, RebuildOnly, RebuildStarted, RunBy,
    SnapshotsDropped, SubjectErased,
};

/// The longest operator, reason or projection name, in bytes.
const TEXT_MAX_BYTES: usize = 500;

/// What a fact about the keyring is about.
const KEYRING: &str = "keyring";

/// What a fact about one person is about: who it is, the fact says. A run is about one.
const SUBJECT: &str = "subject";

/// What a fact about all data keys is about.
const DATA_KEYS: &str = "data keys";

/// What a fact about the log's epochs is about.
const LOG: &str = "log";

/// A hash in hexadecimal.
const HASH_DIGITS: usize = 64;

/// What a fact about every aggregate's snapshots is about.
const SNAPSHOTS: &str = "snapshots";

/// The most partitions a log can have.
const PARTITIONS_MAX_COUNT: usize = 256;

/// What a tool reports. The same report twice is recorded once.
#[derive(Clone, PartialEq, Debug)]
pub enum OperationCommand {
    /// A version was built.
    RecordRebuilt(ProjectionRebuilt),
    /// A version went live.
    RecordSwitched(ProjectionSwitched),
    /// The live version was put right.
    RecordRepaired(ProjectionRepaired),
    /// The keyring has a new key.
    RecordKeyringRotated(KeyringRotated),
    /// A rebuild was asked for.
    RecordRebuildStarted(RebuildStarted),
    /// A rebuild was stopped.
    RecordRebuildCancelled(RebuildCancelled),
    /// What was set aside was taken up again.
    RecordDeadLettersRetried(DeadLettersRetried),
    /// An event is left out.
    RecordDeadLetterSkipped(DeadLetterSkipped),
    /// Snapshots were deleted.
    RecordSnapshotsDropped(SnapshotsDropped),
    /// A log was read in.
    RecordImported(LogImported),
    /// A backup was taken.
    RecordBackup(BackupTaken),
    /// The database was filled from a backup.
    RecordRestored(LogRestored),
    /// The log goes on from an earlier point.
    RecordEpoch(EpochStarted),
    /// A person was erased.
    RecordErased(SubjectErased),
    /// The data keys are wrapped anew.
    RecordRewrapped(DataKeysRewrapped),
}

/// Why a report is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OperationRefusal {
    /// The stream belongs to another run.
    #[error("this is the run {0}")]
    OtherRun(OperationId),
    /// The same fact about the same projection was recorded with other figures.
    #[error("the run already recorded {name} for {projection} with other figures")]
    RecordedBefore {
        /// The fact's stored name.
        name: &'static str,
        /// The projection.
        projection: String,
    },
    /// The run recorded as much as a run may.
    #[error("the run has recorded {0} facts already")]
    TooManyFacts(usize),
    /// A name or a reason is missing or too long.
    #[error("{field} must have 1 to {TEXT_MAX_BYTES} bytes, it has {bytes}")]
    BadText {
        /// Which.
        field: &'static str,
        /// How long it is.
        bytes: usize,
    },
    /// A partition that cannot be, a position before the first, or a partition named twice.
    #[error("the positions are no vector of partitions")]
    BadPositions,
    /// A stream is named as `<aggregate type>/<id>`.
    #[error("{0:?} names no stream: it is <aggregate type>/<id>")]
    BadStream(String),
    /// A version does not come after the one it follows.
    #[error("version {later} does not come after {earlier}")]
    BadVersions {
        /// The one before.
        earlier: i32,
        /// The one that should come after.
        later: i32,
    },
}

pub(super) fn decide(
    operation: &Operation,
    command: OperationCommand,
) -> Result<Vec<OperationEvent>, OperationRefusal> {
    let event = match command {
        OperationCommand::RecordRebuilt(fact) => OperationEvent::ProjectionRebuilt(fact),
        OperationCommand::RecordSwitched(fact) => OperationEvent::ProjectionSwitched(fact),
        OperationCommand::RecordRepaired(fact) => OperationEvent::ProjectionRepaired(fact),
        OperationCommand::RecordKeyringRotated(fact) => OperationEvent::KeyringRotated(fact),
        OperationCommand::RecordRebuildStarted(fact) => OperationEvent::RebuildStarted(fact),
        OperationCommand::RecordRebuildCancelled(fact) => OperationEvent::RebuildCancelled(fact),
        OperationCommand::RecordDeadLettersRetried(fact) => OperationEvent::DeadLettersRetried(fact),
        OperationCommand::RecordDeadLetterSkipped(fact) => OperationEvent::DeadLetterSkipped(fact),
        OperationCommand::RecordSnapshotsDropped(fact) => OperationEvent::SnapshotsDropped(fact),
        OperationCommand::RecordImported(fact) => OperationEvent::LogImported(fact),
        OperationCommand::RecordBackup(fact) => OperationEvent::BackupTaken(fact),
        OperationCommand::RecordRestored(fact) => OperationEvent::LogRestored(fact),
        OperationCommand::RecordEpoch(fact) => OperationEvent::EpochStarted(fact),
        OperationCommand::RecordErased(fact) => OperationEvent::SubjectErased(fact),
        OperationCommand::RecordRewrapped(fact) => OperationEvent::DataKeysRewrapped(fact),
    };
    if let Some(run) = operation.operation_id.filter(|run| *run != event.run().operation_id) {
        return Err(OperationRefusal::OtherRun(run));
    }
    let same_subject = |known: &&OperationEvent| known.name() == event.name() && known.subject() == event.subject();
    match operation.facts.iter().find(same_subject) {
        Some(known) if *known == event => return Ok(Vec::new()),
        Some(known) => {
            return Err(OperationRefusal::RecordedBefore {
                name: known.name(),
                projection: known.subject().to_owned(),
            });
        }
        None => {}
    }
    if operation.facts.len() >= FACTS_MAX_COUNT {
        return Err(OperationRefusal::TooManyFacts(operation.facts.len()));
    }
    check(&event)?;
    Ok(vec![event])
}

fn check(event: &OperationEvent) -> Result<(), OperationRefusal> {
    text("the operator", &event.run().operator)?;
    text("the reason", &event.run().reason)?;
    text("the projection", event.subject())?;
    positions(event.positions())?;
    match event {
        OperationEvent::ProjectionRebuilt(fact) => versions(fact.live_version, fact.built_version),
        // Going back to the version before is a switch too.
        OperationEvent::ProjectionSwitched(fact) if fact.from_version != fact.to_version => Ok(()),
        OperationEvent::ProjectionSwitched(fact) => versions(fact.from_version, fact.to_version),
        OperationEvent::ProjectionRepaired(fact) => {
            versions(0, fact.version)?;
            whole(fact.only.as_ref())
        }
        // A new database has the first one already.
        OperationEvent::KeyringRotated(fact) => versions(1, fact.version),
        OperationEvent::DeadLetterSkipped(fact) => {
            versions(0, fact.version)?;
            let possible = fact.partition >= 0 && fact.position > 0;
            if possible { Ok(()) } else { Err(OperationRefusal::BadPositions) }
        }
        OperationEvent::RebuildStarted(fact) => whole(fact.only.as_ref()),
        OperationEvent::RebuildCancelled(_)
        | OperationEvent::DeadLettersRetried(_)
        | OperationEvent::SnapshotsDropped(_) => Ok(()),
        OperationEvent::LogImported(_) | OperationEvent::BackupTaken(_) => Ok(()),
        OperationEvent::SubjectErased(_) | OperationEvent::DataKeysRewrapped(_) => Ok(()),
        // A log that was never put back is in epoch 0.
        OperationEvent::LogRestored(fact) => versions(-1, fact.epoch),
        OperationEvent::EpochStarted(fact) => {
            heads(&fact.from)?;
            heads(&fact.abandoned)?;
            versions(0, fact.epoch)
        }
    }
}

const fn text(field: &'static str, text: &str) -> Result<(), OperationRefusal> {
    let bytes = text.len();
    if bytes == 0 || bytes > TEXT_MAX_BYTES { Err(OperationRefusal::BadText { field, bytes }) } else { Ok(()) }
}

fn whole(only: Option<&RebuildOnly>) -> Result<(), OperationRefusal> {
    match only {
        Some(RebuildOnly::Stream(stream)) => whole_stream(stream),
        Some(RebuildOnly::Tenant(_)) | None => Ok(()),
    }
}

fn whole_stream(stream: &str) -> Result<(), OperationRefusal> {
    text("the stream", stream)?;
    match stream.split_once('/') {
        Some((kind, id)) if !kind.is_empty() && !id.is_empty() => Ok(()),
        Some(_) | None => Err(OperationRefusal::BadStream(stream.to_owned())),
    }
}

fn positions(positions: &[PartitionPosition]) -> Result<(), OperationRefusal> {
    let ascending = positions.is_sorted_by(|one, next| one.partition < next.partition);
    let possible = positions.iter().all(|place| place.partition >= 0 && place.position >= 0);
    if ascending && possible && positions.len() <= PARTITIONS_MAX_COUNT {
        Ok(())
    } else {
        Err(OperationRefusal::BadPositions)
    }
}

fn heads(heads: &[PartitionHead]) -> Result<(), OperationRefusal> {
    let ascending = heads.is_sorted_by(|one, next| one.partition < next.partition);
    let possible = |head: &PartitionHead| head.partition >= 0 && head.position >= 0 && head.hash.len() == HASH_DIGITS;
    if ascending && heads.iter().all(possible) && heads.len() <= PARTITIONS_MAX_COUNT {
        Ok(())
    } else {
        Err(OperationRefusal::BadPositions)
    }
}

const fn versions(earlier: i32, later: i32) -> Result<(), OperationRefusal> {
    if later > earlier { Ok(()) } else { Err(OperationRefusal::BadVersions { earlier, later }) }
}

impl OperationEvent {
    /// Who ran the tool, and why.
    #[must_use]
    pub const fn run(&self) -> &RunBy {
        match self {
            Self::ProjectionRebuilt(fact) => &fact.run,
            Self::ProjectionSwitched(fact) => &fact.run,
            Self::ProjectionRepaired(fact) => &fact.run,
            Self::KeyringRotated(fact) => &fact.run,
            Self::RebuildStarted(fact) => &fact.run,
            Self::RebuildCancelled(fact) => &fact.run,
            Self::DeadLettersRetried(fact) => &fact.run,
            Self::DeadLetterSkipped(fact) => &fact.run,
            Self::SnapshotsDropped(fact) => &fact.run,
            Self::LogImported(fact) => &fact.run,
            Self::BackupTaken(fact) => &fact.run,
            Self::LogRestored(fact) => &fact.run,
            Self::EpochStarted(fact) => &fact.run,
            Self::SubjectErased(fact) => &fact.run,
            Self::DataKeysRewrapped(fact) => &fact.run,
        }
    }

    /// The projection it is about, or what else.
    #[must_use]
    pub fn subject(&self) -> &str {
        match self {
            Self::ProjectionRebuilt(fact) => &fact.projection,
            Self::ProjectionSwitched(fact) => &fact.projection,
            Self::ProjectionRepaired(fact) => &fact.projection,
            Self::KeyringRotated(_) => KEYRING,
            Self::RebuildStarted(fact) => fact.scope.name(),
            Self::RebuildCancelled(fact) => &fact.projection,
            Self::DeadLettersRetried(fact) => &fact.projection,
            Self::DeadLetterSkipped(fact) => &fact.projection,
            Self::SnapshotsDropped(fact) => fact.kind.as_deref().unwrap_or(SNAPSHOTS),
            Self::LogImported(fact) => &fact.source,
            Self::BackupTaken(fact) => &fact.backup,
            Self::LogRestored(fact) => &fact.backup,
            Self::EpochStarted(_) => LOG,
            Self::SubjectErased(_) => SUBJECT,
            Self::DataKeysRewrapped(_) => DATA_KEYS,
        }
    }

    /// How far the log was read, if it was.
    #[must_use]
    pub fn positions(&self) -> &[PartitionPosition] {
        match self {
            Self::ProjectionRebuilt(fact) => &fact.positions,
            Self::ProjectionSwitched(fact) => &fact.positions,
            Self::ProjectionRepaired(fact) => &fact.positions,
            Self::KeyringRotated(_)
            | Self::RebuildStarted(_)
            | Self::RebuildCancelled(_)
            | Self::DeadLettersRetried(_)
            | Self::DeadLetterSkipped(_)
            | Self::SnapshotsDropped(_)
            | Self::EpochStarted(_)
            | Self::SubjectErased(_)
            | Self::DataKeysRewrapped(_) => &[],
            Self::LogImported(fact) => &fact.positions,
            Self::BackupTaken(fact) => &fact.positions,
            Self::LogRestored(fact) => &fact.positions,
        }
    }
}
