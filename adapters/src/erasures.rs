//! Who was erased, kept outside the database: what keeps a restored backup from bringing their keys back.
//!
//! A backup that was taken before an erasure holds the key the erasure destroyed. The restore reads this list, and leaves
//! those keys out. It has nothing of the person but their random id.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use calos_domain::{SubjectId, Timestamp};

use crate::json_lines::{LinesError, append_line, read_lines};

/// The file beside the anchors; one JSON object per line, oldest first.
pub const ERASURE_FILE: &str = "erasures.jsonl";

/// One erasure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Erasure {
    /// Whose key was destroyed.
    pub subject: SubjectId,
    /// In which log.
    pub log_id: Uuid,
    /// When.
    pub erased_at: Timestamp,
}

/// Why the list cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    /// The file.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A line that is no erasure. Whoever is on it is not known to be erased, so nothing may be restored past it.
    #[error("{place} is not an erasure: {source}")]
    Unreadable {
        /// Which line.
        place: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Notes an erasure: appended to the file and synced. To be done before the key is destroyed, so that no crash in between
/// leaves an erasure that a restore would undo.
///
/// # Errors
/// The file's.
pub fn keep(directory: &Path, erasure: &Erasure) -> Result<(), ErasureError> {
    let path = directory.join(ERASURE_FILE);
    let line = serde_json::to_string(erasure);
    let line = line.map_err(|source| ErasureError::Unreadable { place: "a new erasure".to_owned(), source })?;
    append_line(directory, &path, &line).map_err(|source| ErasureError::File { path, source })
}

/// The subjects erased from a log; none when there is no file.
///
/// # Errors
/// The file's, or [`ErasureError::Unreadable`]. A last line that a crash cut short is no error: the erasure it was to
/// note had not begun.
pub fn read(directory: &Path, log_id: Uuid) -> Result<BTreeSet<Uuid>, ErasureError> {
    let erasures: Vec<Erasure> = read_lines(&directory.join(ERASURE_FILE)).map_err(|error| match error {
        LinesError::File { path, source } => ErasureError::File { path, source },
        LinesError::Unreadable { place, source } => ErasureError::Unreadable { place, source },
    })?;
    Ok(erasures.into_iter().filter(|erasure| erasure.log_id == log_id).map(|erasure| erasure.subject.0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erasures_are_read_back_by_log_and_a_line_nobody_can_read_stops() {
        let folder = tempfile::tempdir().unwrap();
        let of = |subject, log| Erasure {
            subject: SubjectId(Uuid::from_u128(subject)),
            log_id: Uuid::from_u128(log),
            erased_at: Timestamp::from_micros(1),
        };
        assert!(read(folder.path(), Uuid::from_u128(1)).unwrap().is_empty());
        for erasure in [of(1, 1), of(2, 2), of(3, 1)] {
            keep(folder.path(), &erasure).unwrap();
        }
        let read_all = || read(folder.path(), Uuid::from_u128(1));
        assert_eq!(read_all().unwrap(), BTreeSet::from([1, 3].map(Uuid::from_u128)));
        let path = folder.path().join(ERASURE_FILE);
        append_line(folder.path(), &path, "{\"subject\": 7}").unwrap();
        assert!(matches!(read_all(), Err(ErasureError::Unreadable { .. })));
    }
}
