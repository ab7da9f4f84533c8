//! `restore`: a backup into an empty database, whole or up to an earlier point.
//!
//! Before anybody can read it, the keys of whoever was erased since are left out. Where the log ends earlier than it is known
//! to have been, by the backup itself or by the anchors, a new epoch begins: signed, and kept with the anchors, so that they
//! do not call for what was abandoned and still call for everything else.

use std::collections::BTreeMap;
use std::path::Path;

use ed25519_dalek::SigningKey;
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use calos_adapters::anchors::{self, AnchoredHead};
use calos_adapters::epochs::{self, Epoch, EpochFacts};
use calos_adapters::erasures;
use calos_commands::log::EventLog;
use calos_domain::Timestamp;
use calos_domain::operation::{EpochStarted, LogRestored, OperationCommand, PartitionHead, RunBy};

use crate::backup::files;
use crate::error::ToolError;
use crate::import_log::name_of;
use crate::load::{Load, Loaded, Until, load};
use crate::log_file::{Item, Source};
use crate::operation::{self, now};
use crate::place::Place;
use crate::progress::Show;
use crate::rebuild::replay_all;
use crate::turn::{Deed, Reach, Turn};
use crate::versions::Vector;
use crate::whole_units;
use crate::write_guard::Confirmed;

/// How much of a backup is restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// All of it.
    Whole,
    /// What was recorded by this moment, but for the half of an append whose other half was stamped later.
    Time(Timestamp),
    /// Up to this event, and of the other partitions what was recorded by then; less where an append would come back in half.
    Position(Place),
}

/// How a backup is restored.
pub struct RestoreOptions<'a> {
    /// How much of it.
    pub target: Target,
    /// The ledger's key: it has to have signed the backup, and signs the epoch.
    pub key: &'a SigningKey,
    /// Where anchors, epochs and erasures are kept outside the database.
    pub directory: &'a Path,
    /// Who and why.
    pub run: &'a RunBy,
    /// Where progress is shown.
    pub show: Show,
}

/// What a restore did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// Which log.
    pub log_id: Uuid,
    /// Where it ends, before the restore itself was recorded in it.
    pub heads: Vector,
    /// Its events.
    pub events: u64,
    /// Events of the backup that were left out.
    pub left_out: u64,
    /// Keys that were left out, of subjects erased since the backup.
    pub erased: u64,
    /// The epoch that began, if the log had been further.
    pub epoch: Option<Epoch>,
    /// The log's epoch since; 0 is the first.
    pub epoch_number: i32,
    /// Read models that were made from it.
    pub read_models: usize,
    started_at: Timestamp,
}

/// Fills this database, which has to be empty, from a backup, and makes every read model. `pool` has to log in as the owner,
/// and no server may be running. [`record_restore`] has to follow.
///
/// # Errors
/// [`ToolError::Refused`] when the database is not empty, [`ToolError::Corrupt`] with what is wrong with the backup, with an
/// anchor or with the list of erasures: nothing was changed then. The database's and the files'.
pub async fn restore(
    pool: &PgPool,
    folder: &Path,
    options: &RestoreOptions<'_>,
    _confirmed: &Confirmed,
) -> Result<Restored, ToolError> {
    let started_at = now();
    let turn = Turn::take(pool, Deed::Restore, options.run, Reach::WholeLog).await?;
    let files = files(folder)?;
    let key = options.key.verifying_key();
    let Some(last) = files.last() else { return Err(ToolError::Usage("there is nothing to restore".to_owned())) };
    let header = Source::header(last, Some(key)).await?.0;
    let log_id = header.log_id();
    let until = match options.target {
        Target::Whole => Until::End,
        Target::Time(at) => Until::Time(at),
        Target::Position(Place { partition, position }) => {
            let at = recorded_at(&files, options.key, partition, position).await?;
            Until::Position { partition, position, at }
        }
    };
    let until = whole_units::cut(&files, key, until).await?;
    let unreadable = |error: &dyn std::fmt::Display| ToolError::Corrupt(error.to_string());
    let erased = erasures::read(options.directory, log_id).map_err(|error| unreadable(&error))?;
    let erased: Vec<Uuid> = erased.into_iter().collect();
    let kept = epochs::read_file(options.directory).map_err(|error| unreadable(&error))?;
    let mut known: Vec<Epoch> = header.epochs.clone();
    known.extend(kept.into_iter().filter(|epoch| epoch.log_id == log_id && epoch.verify(&key).is_ok()));
    let outside = Outside::of(options, log_id, &known)?;
    let begin = |loaded: &Loaded| outside.epoch(options, loaded, &known);
    let plan = Load { key: Some(key), until, erased: &erased, epoch: Some(&begin), show: options.show };
    let loaded = load(pool, &files, plan).await?;
    if let Some(epoch) = &loaded.epoch {
        epochs::keep(options.directory, epoch).map_err(|error| ToolError::Environment(error.to_string()))?;
    }
    let read_models = replay_all(pool, options.show).await?;
    turn.end().await?;
    let number = |epochs: &[Epoch]| epochs.iter().map(|epoch| epoch.epoch).max().unwrap_or_default();
    let epoch_number = loaded.epoch.as_ref().map_or_else(|| number(&known), |epoch| epoch.epoch);
    let (heads, events, left_out, erased) = (loaded.heads(), loaded.events, loaded.left_out, loaded.erased);
    let epoch = loaded.epoch;
    Ok(Restored { log_id, heads, events, left_out, erased, epoch, epoch_number, read_models, started_at })
}

/// Records a restore, and the epoch it began, in the log it brought.
///
/// # Errors
/// As [`operation::record`].
pub async fn record_restore<L: EventLog>(
    log: &L,
    run: &RunBy,
    folder: &Path,
    restored: &Restored,
) -> Result<(), ToolError> {
    if let Some(epoch) = &restored.epoch {
        let heads = |heads: &[AnchoredHead]| {
            let head = |head: &AnchoredHead| PartitionHead {
                partition: head.partition,
                position: head.position,
                hash: head.hash.clone(),
            };
            heads.iter().map(head).collect()
        };
        let fact = EpochStarted {
            run: run.clone(),
            epoch: epoch.epoch,
            from: heads(&epoch.from),
            abandoned: heads(&epoch.abandoned),
            started_at: epoch.started_at,
        };
        operation::record(log, run, OperationCommand::RecordEpoch(fact)).await?;
    }
    let fact = LogRestored {
        run: run.clone(),
        backup: name_of(folder),
        epoch: restored.epoch_number,
        positions: operation::positions(&restored.heads),
        events: restored.events,
        left_out: restored.left_out,
        erased: restored.erased,
        started_at: restored.started_at,
        finished_at: now(),
    };
    operation::record(log, run, OperationCommand::RecordRestored(fact)).await
}

/// What the anchors outside say the log had reached.
struct Outside {
    /// The furthest head of each partition, as anchored.
    furthest: BTreeMap<i32, AnchoredHead>,
    /// When the last anchor was taken.
    last_at: Option<Timestamp>,
}

impl Outside {
    fn of(options: &RestoreOptions<'_>, log_id: Uuid, known: &[Epoch]) -> Result<Self, ToolError> {
        let kept = anchors::read_file(options.directory).map_err(|error| ToolError::Environment(error.to_string()))?;
        let key = options.key.verifying_key();
        let mut outside = Self { furthest: BTreeMap::new(), last_at: None };
        // Anchors of others say nothing about this log; `verify` names them.
        for anchor in kept.anchors.iter().filter(|anchor| anchor.log_id == log_id && anchor.verify(&key).is_ok()) {
            outside.last_at = outside.last_at.max(Some(anchor.anchored_at));
            let standing = anchor.heads.iter().filter(|head| !known.iter().any(|epoch| epoch.abandons(anchor, head)));
            for head in standing.filter(|head| head.position > 0) {
                let furthest = outside.furthest.entry(head.partition).or_insert_with(|| head.clone());
                if furthest.position < head.position {
                    *furthest = head.clone();
                }
            }
        }
        Ok(outside)
    }

    /// The epoch that begins, if the log had been further than what was loaded of it.
    fn epoch(&self, options: &RestoreOptions<'_>, loaded: &Loaded, known: &[Epoch]) -> Option<Epoch> {
        let (from, read) = (loaded.kept.heads(), loaded.read.heads());
        let mut abandoned = Vec::new();
        for (kept, read) in from.iter().zip(read) {
            let anchored = self.furthest.get(&kept.partition);
            let furthest = anchored.filter(|head| head.position > read.position).unwrap_or(&read);
            if furthest.position > kept.position {
                abandoned.push(furthest.clone());
            }
        }
        if abandoned.is_empty() {
            return None;
        }
        let before = known.iter().map(|epoch| epoch.epoch).max().unwrap_or_default();
        // After the last anchor, whatever the clock of the machine that took it.
        let after_the_last = self.last_at.map(|at| Timestamp::from_micros(at.micros().saturating_add(1)));
        let facts = EpochFacts {
            log_id: loaded.log_id,
            epoch: before + 1,
            started_at: after_the_last.map_or_else(now, |at| at.max(now())),
            from,
            abandoned,
            by: options.run.operator.clone(),
            reason: options.run.reason.clone(),
        };
        Some(Epoch::sign(options.key, facts))
    }
}

/// When an event of a backup was recorded.
async fn recorded_at(
    files: &[std::path::PathBuf],
    key: &SigningKey,
    partition: i32,
    position: i64,
) -> Result<Timestamp, ToolError> {
    for file in files {
        let mut source = Source::open(file, Some(key.verifying_key())).await?;
        let reaches =
            source.header.heads.heads.iter().any(|head| head.partition == partition && head.position >= position);
        if !reaches {
            continue;
        }
        loop {
            match source.next().await? {
                Item::Events(events) => {
                    let found = events.iter().find(|event| event.partition == partition && event.position == position);
                    if let Some(event) = found {
                        return Ok(event.recorded_at);
                    }
                }
                Item::Rows { .. } => {}
                Item::End(_) => break,
            }
        }
    }
    Err(ToolError::Usage(format!("the backup has no event {partition}:{position}")))
}
