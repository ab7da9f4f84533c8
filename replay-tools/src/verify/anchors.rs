//! Anchors: what signed heads, kept outside the database, require the log to contain.

use std::collections::BTreeMap;

use sqlx::PgPool;

use calos_adapters::anchors::{ANCHOR_FILE, ANCHOR_INTERVAL, Anchor, Kept, read_file, read_table};
use calos_adapters::epochs::{self, Epoch, EpochError};
use calos_domain::Timestamp;

use super::heads::Stored;
use super::{Anchors, Check, Finding};
use crate::error::ToolError;

/// A log with events has an anchor by this age, in seconds: its server takes one at every start, and then at intervals.
const ANCHORED_BY_SECONDS: u64 = 2 * ANCHOR_INTERVAL.as_secs();

/// An anchored position: its hash in hexadecimal, and when it was anchored.
pub(super) type AnchoredAt = BTreeMap<i64, (String, Timestamp)>;

/// What the anchors require of the log.
pub(super) struct Required {
    check: Check,
    by_partition: BTreeMap<i32, AnchoredAt>,
    given: bool,
    in_file: usize,
    in_table: usize,
    torn: Vec<String>,
    /// What says that the log was put back on purpose.
    epochs: Vec<Epoch>,
    /// Anchored heads that an epoch left behind.
    abandoned: u64,
}

/// Reads and checks the anchors, from outside the database and from within it.
pub(super) async fn required(pool: &PgPool, anchors: Option<&Anchors>, stored: &Stored) -> Result<Required, ToolError> {
    let mut required = Required {
        check: Check::new("anchors"),
        by_partition: BTreeMap::new(),
        given: anchors.is_some(),
        in_file: 0,
        in_table: 0,
        torn: Vec::new(),
        epochs: Vec::new(),
        abandoned: 0,
    };
    let Some(source) = anchors else { return Ok(required) };
    required.take_epochs("the epoch file", epochs::read_file(&source.directory), source, stored);
    required.take_epochs("the log_epochs table", epochs::read_table(pool).await, source, stored);
    match read_file(&source.directory) {
        Ok(kept) => required.in_file = required.take_all("the anchor file", kept, source, stored),
        Err(error) => required.check.found(Finding::of(format!("the anchor file: {error}"))),
    }
    required.in_table = required.take_all("the anchors table", read_table(pool).await?, source, stored);
    required.miss(source, stored);
    Ok(required)
}

impl Required {
    /// What a partition has to contain.
    pub(super) fn of(&self, partition: i32) -> AnchoredAt {
        self.by_partition.get(&partition).cloned().unwrap_or_default()
    }

    /// The check, once every partition has been held against it.
    pub(super) fn conclude(mut self, walked: &mut Check, met: u64) -> Check {
        self.check.take_in(std::mem::replace(walked, Check::new("anchors")));
        let (in_file, in_table) = (self.in_file, self.in_table);
        self.check.looked_at = match (self.given, in_file + in_table) {
            (false, _) => "no anchors were given, so that a cut tail could not be told".to_owned(),
            (true, 0) => "there are no anchors yet, so that a cut tail could not be told".to_owned(),
            (true, _) => format!(
                "signed anchors, {in_file} in the file and {in_table} in the table; the log contains all {met} heads \
                 they name"
            ),
        };
        if !self.epochs.is_empty() {
            let (epochs, abandoned) = (self.epochs.len(), self.abandoned);
            let what = format!("; {abandoned} heads were abandoned, for which {epochs} signed epochs of the log stand");
            self.check.looked_at.push_str(&what);
        }
        for place in &self.torn {
            self.check.looked_at.push_str(&format!("; {place} was cut short by a crash and says nothing"));
        }
        self.check
    }

    /// The epochs of a place; one that is not signed by the ledger excuses nothing, and is told.
    fn take_epochs(&mut self, place: &str, epochs: Result<Vec<Epoch>, EpochError>, source: &Anchors, stored: &Stored) {
        let epochs = epochs.unwrap_or_else(|error| {
            self.check.found(Finding::of(format!("{place}: {error}")));
            Vec::new()
        });
        for epoch in epochs {
            if let Err(error) = epoch.verify(&source.key) {
                self.check.found(Finding::of(format!("{place}: {error}")));
            } else if epoch.log_id != stored.log_id {
                let (theirs, ours) = (epoch.log_id, stored.log_id);
                self.check.found(Finding::of(format!("{place}: an epoch of the log {theirs}, but this log is {ours}")));
            } else if !self.epochs.contains(&epoch) {
                self.epochs.push(epoch);
            }
        }
    }

    /// How many anchors a place has.
    fn take_all(&mut self, place: &str, kept: Kept, source: &Anchors, stored: &Stored) -> usize {
        for error in kept.unreadable {
            self.check.found(Finding::of(format!("{place}: {error}")));
        }
        self.torn.extend(kept.torn);
        for anchor in &kept.anchors {
            self.take(place, anchor, source, stored);
        }
        kept.anchors.len()
    }

    /// Whoever cuts a tail off removes the anchors that would tell: that there are none has to be told too.
    fn miss(&mut self, source: &Anchors, stored: &Stored) {
        if self.in_file > 0 || stored.heads.iter().all(|head| head.position == 0) {
            return;
        }
        let file = source.directory.join(ANCHOR_FILE);
        let file = file.display();
        let what = if self.in_table > 0 {
            let noted = self.in_table;
            format!("{file} holds no anchor, but the database has noted {noted}: it was removed, or is kept elsewhere")
        } else if stored.age_seconds > i64::try_from(ANCHORED_BY_SECONDS).unwrap_or(i64::MAX) {
            let age = stored.age_seconds;
            format!("{file} holds no anchor, though the log is {age} s old and every start of its server takes one")
        } else {
            return;
        };
        self.check.found(Finding::of(what));
    }

    fn take(&mut self, place: &str, anchor: &Anchor, source: &Anchors, stored: &Stored) {
        if let Err(error) = anchor.verify(&source.key) {
            self.check.found(Finding::of(format!("{place}: {error}")));
            return;
        }
        if anchor.log_id != stored.log_id {
            let (theirs, ours) = (anchor.log_id, stored.log_id);
            self.check.found(Finding::of(format!("{place}: an anchor of the log {theirs}, but this log is {ours}")));
            return;
        }
        for head in anchor.heads.iter().filter(|head| head.position > 0) {
            if self.epochs.iter().any(|epoch| epoch.abandons(anchor, head)) {
                self.abandoned += 1;
                continue;
            }
            let at = (head.hash.clone(), anchor.anchored_at);
            let known = self.by_partition.entry(head.partition).or_default().entry(head.position).or_insert(at);
            if known.0 != head.hash {
                let what = format!("{place}: two anchors disagree about the hash");
                self.check.found(Finding::at(head.partition, head.position, what));
            }
            if !stored.heads.iter().any(|stored| stored.partition == head.partition) {
                let what = format!("{place}: anchored, but the log has no such partition");
                self.check.found(Finding::at(head.partition, head.position, what));
            }
        }
    }
}
