//! Log epochs: what says that a log was put back to an earlier point on purpose.
//!
//! Anchors make a cut tail visible, and a restore to an earlier point is one. So whoever restores signs, with the ledger's
//! key, from which heads the log goes on, what was abandoned, who did it and why. Anchors taken before that moment may then
//! name positions beyond those heads; everything up to them is required as before, and so is whatever was anchored since.

use std::path::{Path, PathBuf};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use calos_domain::Timestamp;

use crate::anchors::{Anchor, AnchoredHead};
use crate::json_lines::{LinesError, append_line, read_lines};
use crate::postgres::Timestamptz;
use crate::seal::put_text;

/// The file beside the anchors; one JSON object per line, oldest first.
pub const EPOCH_FILE: &str = "epochs.jsonl";

/// The encoding that is signed.
const FORMAT: &str = "calos.epoch.v1";

/// The beginning of a log's new epoch, signed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epoch {
    /// Names the encoding that was signed.
    pub format: String,
    /// Which log.
    pub log_id: Uuid,
    /// Counted from 1: a log that was never put back is in epoch 0.
    pub epoch: i32,
    /// When: anchors taken before it may name what was abandoned.
    pub started_at: Timestamp,
    /// The heads the log goes on from, by partition.
    pub from: Vec<AnchoredHead>,
    /// The heads it is known to have had before, where they are others.
    pub abandoned: Vec<AnchoredHead>,
    /// Who did it.
    pub by: String,
    /// Why, in their words.
    pub reason: String,
    /// The Ed25519 public key, hexadecimal.
    pub public_key: String,
    /// The Ed25519 signature over everything above but the key, hexadecimal.
    pub signature: String,
}

/// Why an epoch cannot be kept, read or believed.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// The database.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The file.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A line or row that is no epoch.
    #[error("{place} is not an epoch: {source}")]
    Unreadable {
        /// Which line or row.
        place: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A signature that does not hold, or another key's.
    #[error("epoch {epoch} is not signed by this ledger's key")]
    Forged {
        /// Its number.
        epoch: i32,
    },
}

/// What an epoch says, before it is signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EpochFacts {
    /// Which log.
    pub log_id: Uuid,
    /// Its number, from 1.
    pub epoch: i32,
    /// When.
    pub started_at: Timestamp,
    /// The heads the log goes on from.
    pub from: Vec<AnchoredHead>,
    /// The heads it is known to have had before.
    pub abandoned: Vec<AnchoredHead>,
    /// Who did it.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl Epoch {
    /// Signs the beginning of an epoch.
    #[must_use]
    pub fn sign(key: &SigningKey, facts: EpochFacts) -> Self {
        let EpochFacts { log_id, epoch, started_at, from, abandoned, by, reason } = facts;
        let public_key = hex::encode(key.verifying_key().to_bytes());
        let (format, signature) = (FORMAT.to_owned(), String::new());
        let mut epoch = Self { format, log_id, epoch, started_at, from, abandoned, by, reason, public_key, signature };
        epoch.signature = hex::encode(key.sign(&epoch.signed_bytes()).to_bytes());
        epoch
    }

    /// Checks the signature against the ledger's key; the key in the epoch itself proves nothing.
    ///
    /// # Errors
    /// [`EpochError::Forged`].
    pub fn verify(&self, key: &VerifyingKey) -> Result<(), EpochError> {
        let forged = || EpochError::Forged { epoch: self.epoch };
        let bytes = hex::decode(&self.signature).map_err(|_| forged())?;
        let signature = Signature::from_slice(&bytes).map_err(|_| forged())?;
        if self.format != FORMAT {
            return Err(forged());
        }
        key.verify_strict(&self.signed_bytes(), &signature).map_err(|_| forged())
    }

    /// Whether a head of an anchor lies in the tail this epoch left behind: anchored before it began, beyond where it
    /// began from.
    #[must_use]
    pub fn abandons(&self, anchor: &Anchor, head: &AnchoredHead) -> bool {
        let from = self.from.iter().find(|from| from.partition == head.partition);
        self.log_id == anchor.log_id
            && anchor.anchored_at < self.started_at
            && from.is_some_and(|from| head.position > from.position)
    }

    /// The encoding's name, then each part: numbers big-endian, texts and lists behind their length.
    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256 + (self.from.len() + self.abandoned.len()) * 80);
        put_text(&mut bytes, &self.format);
        bytes.extend_from_slice(self.log_id.as_bytes());
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.started_at.micros().to_be_bytes());
        for heads in [&self.from, &self.abandoned] {
            bytes.extend_from_slice(&u32::try_from(heads.len()).unwrap_or(u32::MAX).to_be_bytes());
            for head in heads {
                bytes.extend_from_slice(&head.partition.to_be_bytes());
                bytes.extend_from_slice(&head.position.to_be_bytes());
                put_text(&mut bytes, &head.hash);
            }
        }
        put_text(&mut bytes, &self.by);
        put_text(&mut bytes, &self.reason);
        bytes
    }
}

/// Notes an epoch in the database, in the caller's transaction.
///
/// # Errors
/// The database's; an epoch of that number that is there already is one.
pub async fn note(connection: &mut PgConnection, epoch: &Epoch) -> Result<(), EpochError> {
    let text = text_of(epoch)?;
    sqlx::query("INSERT INTO log_epochs (epoch, started_at, signed) VALUES ($1, $2, $3::json)")
        .bind(epoch.epoch)
        .bind(Timestamptz(epoch.started_at))
        .bind(text)
        .execute(connection)
        .await?;
    Ok(())
}

/// Keeps an epoch beside the anchors: appended to the file and synced.
///
/// # Errors
/// The file's.
pub fn keep(directory: &Path, epoch: &Epoch) -> Result<(), EpochError> {
    let (path, line) = (directory.join(EPOCH_FILE), text_of(epoch)?);
    append_line(directory, &path, &line).map_err(|source| EpochError::File { path, source })
}

fn text_of(epoch: &Epoch) -> Result<String, EpochError> {
    let place = || "a new epoch".to_owned();
    serde_json::to_string(epoch).map_err(|source| EpochError::Unreadable { place: place(), source })
}

/// The epochs in the file, line by line; none when there is no file. Signatures are not checked yet. A line that a crash
/// cut short says nothing and is left out: the database has the same epoch.
///
/// # Errors
/// The file's, or [`EpochError::Unreadable`].
pub fn read_file(directory: &Path) -> Result<Vec<Epoch>, EpochError> {
    read_lines(&directory.join(EPOCH_FILE)).map_err(|error| match error {
        LinesError::File { path, source } => EpochError::File { path, source },
        LinesError::Unreadable { place, source } => EpochError::Unreadable { place, source },
    })
}

/// The epochs noted in the database, oldest first. Signatures are not checked yet.
///
/// # Errors
/// The database's, or [`EpochError::Unreadable`].
pub async fn read_table(pool: &PgPool) -> Result<Vec<Epoch>, EpochError> {
    read_rows(&mut *pool.acquire().await?).await
}

/// As [`read_table`], within a transaction.
///
/// # Errors
/// As [`read_table`].
pub async fn read_rows(connection: &mut PgConnection) -> Result<Vec<Epoch>, EpochError> {
    let rows: Vec<(i32, String)> =
        sqlx::query_as("SELECT epoch, signed::text FROM log_epochs ORDER BY epoch").fetch_all(connection).await?;
    let read = |(epoch, text): (i32, String)| {
        let place = || format!("log_epochs row {epoch}");
        serde_json::from_str(&text).map_err(|source| EpochError::Unreadable { place: place(), source })
    };
    rows.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(position: i64) -> AnchoredHead {
        AnchoredHead { partition: 0, position, hash: "ab".repeat(32) }
    }

    fn epoch(key: &SigningKey) -> Epoch {
        let facts = EpochFacts {
            log_id: Uuid::nil(),
            epoch: 1,
            started_at: Timestamp::from_micros(100),
            from: vec![head(5)],
            abandoned: vec![head(9)],
            by: "olga".to_owned(),
            reason: "the disk broke".to_owned(),
        };
        Epoch::sign(key, facts)
    }

    #[test]
    fn an_epoch_holds_under_its_own_key_only_and_every_part_of_it_is_signed() {
        let (ours, theirs) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let original = epoch(&ours);
        assert!(original.verify(&ours.verifying_key()).is_ok());
        assert!(epoch(&theirs).verify(&ours.verifying_key()).is_err());
        let changed = [
            Epoch { log_id: Uuid::max(), ..original.clone() },
            Epoch { epoch: 2, ..original.clone() },
            Epoch { started_at: Timestamp::from_micros(101), ..original.clone() },
            Epoch { from: vec![head(4)], ..original.clone() },
            Epoch { abandoned: Vec::new(), ..original.clone() },
            Epoch { from: Vec::new(), abandoned: vec![head(5), head(9)], ..original.clone() },
            Epoch { by: "nobody".to_owned(), ..original.clone() },
            Epoch { reason: String::new(), ..original },
        ];
        for changed in changed {
            assert!(changed.verify(&ours.verifying_key()).is_err(), "{changed:?}");
        }
    }

    #[test]
    fn only_what_was_anchored_before_and_lies_beyond_is_abandoned() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let anchored =
            |log_id, at, position| Anchor::sign(&key, log_id, Timestamp::from_micros(at), vec![head(position)]);
        let abandons = |anchor: &Anchor| epoch(&key).abandons(anchor, &anchor.heads[0]);
        assert!(abandons(&anchored(Uuid::nil(), 99, 6)));
        for kept in [(Uuid::nil(), 99, 5), (Uuid::nil(), 100, 6), (Uuid::max(), 99, 6)] {
            assert!(!abandons(&anchored(kept.0, kept.1, kept.2)), "{kept:?}");
        }
    }

    #[test]
    fn epochs_are_read_back_from_their_file_and_a_torn_line_spoils_none() {
        let (folder, key) = (tempfile::tempdir().unwrap(), SigningKey::from_bytes(&[1; 32]));
        assert_eq!(read_file(folder.path()).unwrap(), []);
        keep(folder.path(), &epoch(&key)).unwrap();
        let path = folder.path().join(EPOCH_FILE);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], &whole[..30]].concat()).unwrap();
        keep(folder.path(), &epoch(&key)).unwrap();
        assert_eq!(read_file(folder.path()).unwrap(), [epoch(&key), epoch(&key)]);
        std::fs::write(&path, "{\"epoch\": 7}\n").unwrap();
        assert!(matches!(read_file(folder.path()), Err(EpochError::Unreadable { .. })));
    }
}
