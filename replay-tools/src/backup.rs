//! `backup`: the log and whatever else a restore needs, in a folder; and later what the log has grown by since.
//!
//! A backup is a folder of files that follow one another: `log-000000.jsonl.zst` has the log from its beginning, each after
//! it what was appended since. Every file also has the small tables that are no projections, as they were when it was taken:
//! the keys, wrapped by the master key, the anchors, and answers that may be asked for again. Of these a restore takes the
//! youngest file's. The master key is in none of them, and has to be kept elsewhere.

use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use calos_commands::log::EventLog;
use calos_domain::operation::{BackupTaken, OperationCommand, RunBy};

use crate::error::ToolError;
use crate::export_log::vector;
use crate::import_log::name_of;
use crate::log_file::{self, LogFormat, Plan, Source, Tables};
use crate::operation::{self, now};
use crate::progress::Show;
use crate::turn::{Deed, Part, Reach, Turn};
use crate::versions::Vector;

/// Files one backup may have: take a new one before restoring it takes too many.
pub const BACKUP_MAX_FILES: usize = 10_000;

/// Where a backup goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place<'a> {
    /// A folder that is new or empty.
    New(&'a Path),
    /// The folder of an earlier backup, which grows by a file.
    Since(&'a Path),
}

/// A backup that was taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackedUp {
    /// Which log.
    pub log_id: Uuid,
    /// The file.
    pub file: PathBuf,
    /// Which of the folder; 0 is the first.
    pub number: u32,
    /// The heads the backup goes up to now.
    pub heads: Vector,
    /// Events in this file.
    pub events: u64,
}

/// Takes a backup of what the log and the small tables hold at one moment, while everything goes on. `pool` has to log in as
/// the owner.
///
/// # Errors
/// [`ToolError::Usage`] when the folder is not what it has to be, [`ToolError::Refused`] when the log no longer holds what
/// an earlier file went up to, [`ToolError::Corrupt`] when the log is not what was sealed; the database's and the file's.
pub async fn backup(
    pool: &PgPool,
    key: &SigningKey,
    place: Place<'_>,
    run: &RunBy,
    show: Show,
) -> Result<BackedUp, ToolError> {
    let turn = Turn::take(pool, Deed::Backup, run, Reach::Part(Part::Backups)).await?;
    let (folder, number, after) = match place {
        Place::New(folder) => {
            new_folder(folder)?;
            (folder, 0, None)
        }
        Place::Since(folder) => {
            remove_parts(folder)?;
            let files = files(folder)?;
            let last = files.last().ok_or_else(|| none_in(folder))?;
            let header = Source::header(last, Some(key.verifying_key())).await?.0;
            (folder, files.len(), Some((header.log_id(), header.heads.heads)))
        }
    };
    if number >= BACKUP_MAX_FILES {
        return Err(ToolError::Usage(format!("{} has {number} files: begin a new backup", folder.display())));
    }
    let (path, number) = (folder.join(file_name(number)), u32::try_from(number).unwrap_or(u32::MAX));
    let (format, tables) = (LogFormat::Jsonl, Tables::All);
    let plan = Plan { format, tables, number, after, path: &path, force: false, show };
    let (header, events) = log_file::write(pool, key, plan).await?;
    turn.end().await?;
    Ok(BackedUp { log_id: header.log_id(), file: path, number, heads: vector(&header), events })
}

/// Records a backup in the log.
///
/// # Errors
/// As [`operation::record`].
pub async fn record_backup<L: EventLog>(log: &L, run: &RunBy, taken: &BackedUp) -> Result<(), ToolError> {
    let fact = BackupTaken {
        run: run.clone(),
        backup: name_of(taken.file.parent().unwrap_or(Path::new("."))),
        number: taken.number,
        positions: operation::positions(&taken.heads),
        events: taken.events,
        taken_at: now(),
    };
    operation::record(log, run, OperationCommand::RecordBackup(fact)).await
}

/// The files of a backup, which have to be numbered without a gap.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>, ToolError> {
    let mut numbers = Vec::new();
    for entry in read_folder(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let number = name.strip_prefix("log-").and_then(|rest| rest.strip_suffix(".jsonl.zst"));
        numbers.extend(number.and_then(|digits| digits.parse::<usize>().ok()));
    }
    numbers.sort_unstable();
    if numbers.is_empty() {
        return Err(none_in(folder));
    }
    match (0..).zip(&numbers).find(|(expected, found)| expected != *found) {
        Some((missing, _)) => {
            let (name, folder) = (file_name(missing), folder.display());
            Err(ToolError::Corrupt(format!("{name} is missing in {folder}: what comes after it follows from nothing")))
        }
        None => Ok(numbers.into_iter().map(|number| folder.join(file_name(number))).collect()),
    }
}

fn file_name(number: usize) -> String {
    format!("log-{number:06}.jsonl.zst")
}

fn none_in(folder: &Path) -> ToolError {
    ToolError::Usage(format!("there is no backup in {}", folder.display()))
}

fn read_folder(folder: &Path) -> Result<std::fs::ReadDir, ToolError> {
    std::fs::read_dir(folder).map_err(|error| ToolError::Usage(format!("{} cannot be read: {error}", folder.display())))
}

/// Removes what backups that were killed left behind: with the backups' turn in our hands, nobody is writing them.
fn remove_parts(folder: &Path) -> Result<(), ToolError> {
    for entry in read_folder(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(".log-") && name.contains(".jsonl.zst.") && name.ends_with(".part") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn new_folder(folder: &Path) -> Result<(), ToolError> {
    std::fs::create_dir_all(folder)?;
    remove_parts(folder)?;
    if read_folder(folder)?.next().is_some() {
        let folder = folder.display();
        return Err(ToolError::Usage(format!("{folder} is not empty; --since adds to a backup that is there")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_backup_have_no_gap_and_other_files_are_none_of_it() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(files(folder.path()), Err(ToolError::Usage(_))));
        for name in [file_name(1), file_name(0), ".log-000002.jsonl.zst.7.part".to_owned(), "notes".to_owned()] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(files(folder.path()).unwrap(), [0, 1].map(|number| folder.path().join(file_name(number))));
        std::fs::write(folder.path().join(file_name(3)), "").unwrap();
        assert!(matches!(files(folder.path()), Err(ToolError::Corrupt(what)) if what.contains(&file_name(2))));
    }

    #[test]
    fn what_a_killed_backup_left_behind_blocks_no_folder_and_anything_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join(".log-000000.jsonl.zst.0192a5c8-0000-4000-8000-000000000001.part");
        std::fs::write(&part, "half of it").unwrap();
        new_folder(folder.path()).unwrap();
        assert!(!part.exists());
        for name in [".log.part", ".log-000000.jsonl.zst", "notes"] {
            std::fs::write(folder.path().join(name), "").unwrap();
            assert!(matches!(new_folder(folder.path()), Err(ToolError::Usage(_))), "{name}");
            std::fs::remove_file(folder.path().join(name)).unwrap();
        }
    }
}
