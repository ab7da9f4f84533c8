//! Receipts: one event of the log, for a customer to keep and to check without CALOS.
//!
//! A receipt has the whole envelope as it was sealed, the hash before it, its own hash, and the ledger's signature. Whoever
//! holds it can show that CALOS recorded exactly this, at this place, after everything the hash before it commits to; no
//! later log without it can be the one that was signed.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

use calos_domain::{Record, Timestamp};

use crate::postgres::{self, Timestamptz};
use crate::seal::{GENESIS_HASH, HASH_BYTES, chain, put_text};

/// Names the encoding that is signed; another encoding gets another name.
pub const RECEIPT_FORMAT: &str = "calos.receipt.v1";

/// One event with its seal and the ledger's signature. Numbers are integers; hashes, key and signature are hexadecimal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// [`RECEIPT_FORMAT`].
    pub format: String,
    /// Which log.
    pub log_id: Uuid,
    /// The partition.
    pub partition: i32,
    /// The position in it.
    pub position: i64,
    /// What kind of aggregate it happened to.
    pub aggregate_type: String,
    /// Which one: for a wallet, the tenant.
    pub aggregate_id: String,
    /// Position within its stream.
    pub sequence: i64,
    /// The event's name.
    pub event_type: String,
    /// Its version.
    pub event_version: String,
    /// When the log accepted it, in microseconds since the Unix epoch.
    pub recorded_at: Timestamp,
    /// What happened: JSON as text, because the hash is over the very bytes.
    pub payload: String,
    /// Who did it and why: JSON as text.
    pub metadata: String,
    /// The hash of the event before it in the partition; zeroes for the first.
    pub previous_hash: String,
    /// The event's own hash.
    pub hash: String,
    /// The Ed25519 key that signed, which proves nothing by standing here: compare it with the one CALOS publishes.
    pub public_key: String,
    /// The Ed25519 signature over format, log, both hashes and key.
    pub signature: String,
}

/// Why there is no receipt, or which part of one is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// The database.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The log has no such event.
    #[error("the log has no event at partition {partition} position {position}")]
    NoEvent {
        /// The partition.
        partition: i32,
        /// The position.
        position: i64,
    },
    /// The stored event is not the one that was sealed, so nobody signs it.
    #[error("partition {partition} position {position}: the stored event is not the one that was sealed")]
    Tampered {
        /// The partition.
        partition: i32,
        /// The position.
        position: i64,
    },
    /// Another encoding than this program knows.
    #[error("format: {0:?} is not {RECEIPT_FORMAT:?}")]
    Format(String),
    /// A part that is not hexadecimal of the right length.
    #[error("{field}: not {expected} bytes in hexadecimal")]
    Hex {
        /// Which.
        field: &'static str,
        /// How many bytes it has.
        expected: usize,
    },
    /// Signed by somebody else.
    #[error("public_key: signed by {found}, not by {expected}")]
    OtherKey {
        /// The key of the receipt.
        found: String,
        /// The key that was asked for.
        expected: String,
    },
    /// The key of the receipt is no point of the curve.
    #[error("public_key: not an Ed25519 key")]
    NoKey,
    /// The hashes are signed, but the envelope is another.
    #[error("envelope: partition, position, stream, name, time, payload or metadata is not what was sealed and signed")]
    Envelope,
    /// The envelope fits its hashes, but they are not what was signed.
    #[error("signature: it does not hold for this log, these hashes and this key")]
    Signature,
    /// Neither holds.
    #[error("hash or previous_hash: neither follow from the envelope, nor are they what was signed")]
    Hashes,
}

type StoredEvent = (Uuid, String, String, i64, String, String, String, String, Timestamptz, Vec<u8>, Option<Vec<u8>>);

impl Receipt {
    /// A receipt for what stands in the log, signed with the ledger's key.
    ///
    /// # Errors
    /// [`ReceiptError::NoEvent`], [`ReceiptError::Tampered`] when the stored event does not follow from the hash before it,
    /// and the database's.
    pub async fn issue(pool: &PgPool, key: &SigningKey, partition: i32, position: i64) -> Result<Self, ReceiptError> {
        let row: Option<StoredEvent> = sqlx::query_as(
            "SELECT l.log_id, e.aggregate_type, e.aggregate_id, e.sequence, e.event_type, e.event_version, \
             e.payload::text, e.metadata::text, e.recorded_at, e.hash, b.hash FROM log l CROSS JOIN events e \
             LEFT JOIN events b ON b.partition = e.partition AND b.position = e.position - 1 \
             WHERE e.partition = $1 AND e.position = $2",
        )
        .bind(partition)
        .bind(position)
        .fetch_optional(pool)
        .await?;
        let row = row.ok_or(ReceiptError::NoEvent { partition, position })?;
        postgres::flush_seen(pool).await?;
        let (log_id, aggregate_type, aggregate_id, sequence, event_type, event_version, ..) = row;
        let (payload, metadata, recorded_at, hash, previous) = (row.6, row.7, row.8, row.9, row.10);
        let previous = if position == 1 { Some(GENESIS_HASH.to_vec()) } else { previous };
        let previous = previous.ok_or(ReceiptError::Tampered { partition, position })?;
        let mut receipt = Self {
            format: RECEIPT_FORMAT.to_owned(),
            log_id,
            partition,
            position,
            aggregate_type,
            aggregate_id,
            sequence,
            event_type,
            event_version,
            recorded_at: recorded_at.0,
            payload,
            metadata,
            previous_hash: hex::encode(previous),
            hash: hex::encode(hash),
            public_key: String::new(),
            signature: String::new(),
        };
        receipt.sign(key);
        match receipt.check(Some(&key.verifying_key())) {
            Ok(()) => Ok(receipt),
            Err(_) => Err(ReceiptError::Tampered { partition, position }),
        }
    }

    fn sign(&mut self, key: &SigningKey) {
        self.public_key = hex::encode(key.verifying_key().to_bytes());
        self.signature = hex::encode(key.sign(&self.signed_bytes()).to_bytes());
    }

    /// Checks a receipt against the ledger's key. Without a key the receipt's own is taken, which shows that nothing was
    /// changed since it was signed, and not by whom.
    ///
    /// # Errors
    /// The part that is wrong: any of [`ReceiptError`] from [`ReceiptError::Format`] on.
    pub fn check(&self, key: Option<&VerifyingKey>) -> Result<(), ReceiptError> {
        if self.format != RECEIPT_FORMAT {
            return Err(ReceiptError::Format(self.format.clone()));
        }
        let previous: [u8; HASH_BYTES] = bytes("previous_hash", &self.previous_hash)?;
        let hash: [u8; HASH_BYTES] = bytes("hash", &self.hash)?;
        let signature = Signature::from_bytes(&bytes("signature", &self.signature)?);
        let own = VerifyingKey::from_bytes(&bytes("public_key", &self.public_key)?).map_err(|_| ReceiptError::NoKey)?;
        if let Some(key) = key.filter(|key| **key != own) {
            let expected = hex::encode(key.to_bytes());
            return Err(ReceiptError::OtherKey { found: self.public_key.clone(), expected });
        }
        let follows = chain(&previous, &self.record()) == hash;
        let signed = own.verify_strict(&self.signed_bytes(), &signature).is_ok();
        match (follows, signed) {
            (true, true) => Ok(()),
            (false, true) => Err(ReceiptError::Envelope),
            (true, false) => Err(ReceiptError::Signature),
            (false, false) => Err(ReceiptError::Hashes),
        }
    }

    fn record(&self) -> Record<'_> {
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

    /// The encoding's name, then each part, texts behind their length (u32, big-endian). The envelope itself is in its hash.
    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        for text in [&self.format, &self.log_id.hyphenated().to_string()] {
            put_text(&mut bytes, text);
        }
        for text in [&self.previous_hash, &self.hash, &self.public_key] {
            put_text(&mut bytes, text);
        }
        bytes
    }
}

fn bytes<const N: usize>(field: &'static str, text: &str) -> Result<[u8; N], ReceiptError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| ReceiptError::Hex { field, expected: N })?;
    Ok(bytes)
}

/// A public key from its hexadecimal text.
///
/// # Errors
/// [`ReceiptError::Hex`] or [`ReceiptError::NoKey`].
pub fn verifying_key(text: &str) -> Result<VerifyingKey, ReceiptError> {
    VerifyingKey::from_bytes(&bytes("key", text)?).map_err(|_| ReceiptError::NoKey)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Kept for ever: a receipt that a customer holds has to hold.
    const GOLDEN: &str = include_str!("../golden/receipt.v1.json");

    fn receipt() -> Receipt {
        let key = SigningKey::from_bytes(&[7; 32]);
        let mut receipt = Receipt {
            format: RECEIPT_FORMAT.to_owned(),
            log_id: Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001),
            partition: 3,
            position: 42,
            aggregate_type: "wallet".to_owned(),
            aggregate_id: "01920000-0000-7000-8000-000000000002".to_owned(),
            sequence: 5,
            event_type: "wallet_frozen".to_owned(),
            event_version: "1".to_owned(),
            recorded_at: Timestamp::from_micros(1_767_225_600_123_456),
            payload: r#"{"wallet_frozen":{"cause":"operator"}}"#.to_owned(),
            metadata: r#"{"actor":"system:test"}"#.to_owned(),
            previous_hash: "ab".repeat(32),
            hash: String::new(),
            public_key: String::new(),
            signature: String::new(),
        };
        receipt.hash = hex::encode(chain(&[0xab; 32], &receipt.record()));
        receipt.sign(&key);
        receipt
    }

    #[test]
    fn a_receipt_written_once_holds_for_ever() {
        let golden: Receipt = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!(golden, receipt());
        assert_eq!(serde_json::to_string_pretty(&receipt()).unwrap(), GOLDEN.trim_end());
        golden.check(Some(&SigningKey::from_bytes(&[7; 32]).verifying_key())).unwrap();
        golden.check(None).unwrap();
    }

    #[test]
    fn whatever_is_changed_is_found_and_named() {
        let original = serde_json::to_value(receipt()).unwrap();
        let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
        let fields: Vec<String> = original.as_object().unwrap().keys().cloned().collect();
        assert_eq!(fields.len(), 16);
        for field in fields {
            let mut changed = original.clone();
            let value = &mut changed[&field];
            *value = match value {
                Value::Number(number) => (number.as_i64().unwrap() + 1).into(),
                Value::String(text) if text.ends_with('0') => format!("{}1", &text[..text.len() - 1]).into(),
                Value::String(text) => format!("{}0", &text[..text.len() - 1]).into(),
                other => panic!("{other}"),
            };
            let changed: Receipt = serde_json::from_value(changed).unwrap();
            for key in [Some(&key), None] {
                let error = changed.check(key).expect_err(&field).to_string();
                let part = match field.as_str() {
                    "format" => "format",
                    "log_id" | "signature" => "signature",
                    "previous_hash" | "hash" => "hash",
                    // Another key, no key at all, or one that did not sign: by chance of the bytes.
                    "public_key" => "",
                    _ => "envelope",
                };
                assert!(error.starts_with(part), "{field}: {error}");
            }
        }
    }

    #[test]
    fn whoever_signs_with_another_key_is_found_once_the_ledgers_is_known() {
        let mut forged = receipt();
        forged.payload = r#"{"wallet_frozen":{"cause":"fraud"}}"#.to_owned();
        forged.hash = hex::encode(chain(&[0xab; 32], &forged.record()));
        forged.sign(&SigningKey::from_bytes(&[8; 32]));
        forged.check(None).unwrap();
        let error = forged.check(Some(&SigningKey::from_bytes(&[7; 32]).verifying_key())).unwrap_err();
        assert!(matches!(error, ReceiptError::OtherKey { .. }), "{error}");
    }

    #[test]
    fn a_field_that_nobody_signed_is_refused() {
        let mut more = serde_json::to_value(receipt()).unwrap();
        more["amount"] = 5.into();
        assert!(serde_json::from_value::<Receipt>(more).is_err());
    }

    #[test]
    fn a_key_is_read_from_hexadecimal_alone() {
        let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
        assert_eq!(verifying_key(&hex::encode(key.to_bytes())).unwrap(), key);
        assert!(matches!(verifying_key("07"), Err(ReceiptError::Hex { .. })));
    }
}
