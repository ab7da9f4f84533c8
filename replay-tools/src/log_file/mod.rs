//! The log as a file: every event byte for byte, what it ended at, signed, and, where a restore needs them, the keys.
//!
//! A file is a header, the rows of small tables, the events partition by partition, and an end. The events prove themselves:
//! each hash follows from the one before, up to heads that the ledger's key signed in the header. Everything else is covered
//! by the digest in the end, which is signed too. So a bit that flipped, a line that is missing and a file that was cut are
//! all found, by whoever reads it to its end.
//!
//! What stands in which file: the log alone goes to an auditor, and has no key in it, wrapped or not; erasing somebody then
//! reaches that copy as well. A backup, and an export that asks for it, also has the keys, wrapped by the master key.
//! Read models, checkpoints, dead letters and snapshots stand in none: they are made from the log.

mod chain;
mod parquet;
mod read;
mod root;
pub(crate) mod tables;
mod write;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use uuid::Uuid;

use calos_adapters::anchors::{Anchor, AnchoredHead};
use calos_adapters::epochs::Epoch;
use calos_adapters::seal::{GENESIS_HASH, HASH_BYTES};
use calos_domain::{Record, Timestamp};

use crate::error::ToolError;

pub(crate) use chain::Tails;
pub(crate) use read::{Item, Source};
pub use root::{WrappedRoot, wrapped_root};
pub(crate) use tables::Tables;
pub(crate) use write::{Plan, write};

/// Names the encoding; another one gets another name.
const FORMAT: &str = "calos.log.v1";

/// How the log is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One object per line, compressed with zstd.
    Jsonl,
    /// One row per event, for programs that count; never with keys.
    Parquet,
}

/// Where a file stands in the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Names the encoding.
    pub format: String,
    /// How many partitions the log has.
    pub partitions: u16,
    /// Which file of a backup; 0 begins with the log.
    pub number: u32,
    /// The heads before the first event of the file: all at 0 where it begins with the log.
    pub after: Vec<AnchoredHead>,
    /// The heads it goes up to, with the log's id and the moment, signed.
    pub heads: Anchor,
    /// Each head's clock.
    pub clocks: Vec<Timestamp>,
    /// The log's epochs, each signed.
    pub epochs: Vec<Epoch>,
    /// The small tables that follow.
    pub tables: Vec<String>,
}

impl Header {
    /// Which log.
    #[must_use]
    pub const fn log_id(&self) -> Uuid {
        self.heads.log_id
    }

    /// How many events the file says it has.
    pub(crate) fn events(&self) -> u64 {
        let grown = |(head, after): (&AnchoredHead, &AnchoredHead)| head.position.abs_diff(after.position);
        self.heads.heads.iter().zip(&self.after).map(grown).sum()
    }

    /// Whether it is one, and says what it is: signed by `key`, or else by the key it names itself.
    fn check(&self, key: Option<&VerifyingKey>) -> Result<VerifyingKey, String> {
        if self.format != FORMAT {
            return Err(format!("its format is {:?}, not {FORMAT:?}", self.format));
        }
        let whole = |heads: &[AnchoredHead]| heads.iter().map(|head| head.partition).eq(0..i32::from(self.partitions));
        if self.partitions == 0
            || !whole(&self.after)
            || !whole(&self.heads.heads)
            || self.clocks.len() != usize::from(self.partitions)
        {
            return Err("it does not name a head for every partition".to_owned());
        }
        let own = || {
            let bytes: [u8; 32] = hex::decode(&self.heads.public_key).ok()?.try_into().ok()?;
            VerifyingKey::from_bytes(&bytes).ok()
        };
        let key = match key {
            Some(key) => *key,
            None => own().ok_or_else(|| "the key it names is none".to_owned())?,
        };
        self.heads.verify(&key).map_err(|_| "its heads are not signed by this ledger's key".to_owned())?;
        for epoch in &self.epochs {
            epoch.verify(&key).map_err(|error| error.to_string())?;
        }
        Ok(key)
    }
}

/// The last of a file: what it had, signed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct End {
    /// Events in the file.
    pub(crate) events: u64,
    /// Rows of small tables.
    pub(crate) rows: u64,
    /// SHA-256 over the lines of the header and of the rows, hexadecimal.
    digest: String,
    /// The Ed25519 signature over the above, hexadecimal.
    signature: String,
}

impl End {
    fn sign(key: &SigningKey, log_id: Uuid, events: u64, rows: u64, digest: Sha256) -> Self {
        let digest = hex::encode(digest.finalize());
        let mut end = Self { events, rows, digest, signature: String::new() };
        end.signature = hex::encode(key.sign(&end.signed_bytes(log_id)).to_bytes());
        end
    }

    fn verify(&self, key: &VerifyingKey, log_id: Uuid) -> Result<(), String> {
        let signature = hex::decode(&self.signature).ok().and_then(|bytes| Signature::from_slice(&bytes).ok());
        let holds =
            signature.is_some_and(|signature| key.verify_strict(&self.signed_bytes(log_id), &signature).is_ok());
        if holds { Ok(()) } else { Err("its end is not signed by the key that signed its heads".to_owned()) }
    }

    fn signed_bytes(&self, log_id: Uuid) -> Vec<u8> {
        let mut bytes = FORMAT.as_bytes().to_vec();
        bytes.push(0);
        bytes.extend_from_slice(log_id.as_bytes());
        bytes.extend_from_slice(&self.events.to_be_bytes());
        bytes.extend_from_slice(&self.rows.to_be_bytes());
        bytes.extend_from_slice(self.digest.as_bytes());
        bytes
    }
}

/// One line of a file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line<'a> {
    /// The first.
    Log(Box<Header>),
    /// A row of a small table.
    Row {
        /// Which table.
        table: Cow<'a, str>,
        /// Its columns.
        #[serde(borrow)]
        row: &'a RawValue,
    },
    /// An event.
    #[serde(borrow)]
    Event(EventLine<'a>),
    /// The last.
    End(End),
}

/// An event as a line has it. Payload and metadata are texts, because the hash is over their very bytes.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventLine<'a> {
    partition: i32,
    position: i64,
    #[serde(borrow)]
    aggregate_type: Cow<'a, str>,
    #[serde(borrow)]
    aggregate_id: Cow<'a, str>,
    sequence: i64,
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    event_version: Cow<'a, str>,
    #[serde(borrow)]
    payload: Cow<'a, str>,
    #[serde(borrow)]
    metadata: Cow<'a, str>,
    recorded_at: Timestamp,
    #[serde(borrow)]
    hash: Cow<'a, str>,
}

/// One event with its hash, as it lies in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    pub(crate) partition: i32,
    pub(crate) position: i64,
    pub(crate) aggregate_type: String,
    pub(crate) aggregate_id: String,
    pub(crate) sequence: i64,
    pub(crate) event_type: String,
    pub(crate) event_version: String,
    pub(crate) payload: String,
    pub(crate) metadata: String,
    pub(crate) recorded_at: Timestamp,
    pub(crate) hash: [u8; HASH_BYTES],
}

impl Stored {
    pub(crate) fn of(record: &Record<'_>, hash: &[u8]) -> Result<Self, ToolError> {
        let (partition, position) = (record.partition, record.position);
        let hash = hash.try_into();
        let hash = hash.map_err(|_| ToolError::Corrupt(format!("{partition}:{position} has no whole hash")))?;
        Ok(Self {
            partition,
            position,
            aggregate_type: record.aggregate_type.to_owned(),
            aggregate_id: record.aggregate_id.to_owned(),
            sequence: record.sequence,
            event_type: record.event_type.to_owned(),
            event_version: record.event_version.to_owned(),
            payload: record.payload.to_owned(),
            metadata: record.metadata.to_owned(),
            recorded_at: record.recorded_at,
            hash,
        })
    }

    pub(crate) fn record(&self) -> Record<'_> {
        Record {
            partition: self.partition,
            position: self.position,
            aggregate_type: &self.aggregate_type,
            aggregate_id: &self.aggregate_id,
            sequence: self.sequence,
            event_type: &self.event_type,
            event_version: &self.event_version,
            payload: &self.payload,
            metadata: &self.metadata,
            recorded_at: self.recorded_at,
        }
    }

    fn line(&self) -> Line<'_> {
        Line::Event(EventLine {
            partition: self.partition,
            position: self.position,
            aggregate_type: Cow::Borrowed(&self.aggregate_type),
            aggregate_id: Cow::Borrowed(&self.aggregate_id),
            sequence: self.sequence,
            event_type: Cow::Borrowed(&self.event_type),
            event_version: Cow::Borrowed(&self.event_version),
            payload: Cow::Borrowed(&self.payload),
            metadata: Cow::Borrowed(&self.metadata),
            recorded_at: self.recorded_at,
            hash: Cow::Owned(hex::encode(self.hash)),
        })
    }
}

impl TryFrom<EventLine<'_>> for Stored {
    type Error = String;

    fn try_from(line: EventLine<'_>) -> Result<Self, String> {
        let hash = hex::decode(line.hash.as_bytes()).ok().and_then(|hash| hash.try_into().ok());
        Ok(Self {
            partition: line.partition,
            position: line.position,
            aggregate_type: line.aggregate_type.into_owned(),
            aggregate_id: line.aggregate_id.into_owned(),
            sequence: line.sequence,
            event_type: line.event_type.into_owned(),
            event_version: line.event_version.into_owned(),
            payload: line.payload.into_owned(),
            metadata: line.metadata.into_owned(),
            recorded_at: line.recorded_at,
            hash: hash.ok_or_else(|| "its hash is none".to_owned())?,
        })
    }
}

/// The heads of a log without events.
pub(crate) fn beginning(partitions: u16) -> Vec<AnchoredHead> {
    let hash = hex::encode(GENESIS_HASH);
    (0..i32::from(partitions)).map(|partition| AnchoredHead { partition, position: 0, hash: hash.clone() }).collect()
}

/// A line as it is written, with its end.
fn line_bytes(line: &Line<'_>) -> Result<Vec<u8>, ToolError> {
    let mut bytes = serde_json::to_vec(line).map_err(std::io::Error::from)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Runs what computes or waits for a disk where it holds up nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ToolError> + Send + 'static,
) -> Result<T, ToolError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| ToolError::Corrupt(format!("a worker ended abnormally: {error}")))?
}
