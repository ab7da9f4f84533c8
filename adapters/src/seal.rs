//! The seal over the log: each event's hash takes in the whole envelope and the hash before it.
//!
//! A receipt for one event is its envelope, the hash before it and a signature over its own hash: constant in size, and
//! whoever holds it holds a commitment to everything before it in the partition. That is why the chain is per event
//! and not per batch.

use sha2::{Digest, Sha256};

use calos_domain::Record;

/// Bytes in a hash.
pub const HASH_BYTES: usize = 32;

/// What the first event of a partition is chained to.
pub const GENESIS_HASH: [u8; HASH_BYTES] = [0; HASH_BYTES];

/// Names the encoding; another encoding gets another name, so no two encodings can ever be confused.
const ENCODING: &[u8] = b"calos.event.v1\0";

/// The hash of one event: SHA-256 over the encoding's name, the hash before it, and each part of the envelope, numbers
/// big-endian and texts behind their length in bytes (u32). Nothing is joined by a separator, so no two envelopes encode alike.
#[must_use]
pub fn chain(previous: &[u8; HASH_BYTES], record: &Record<'_>) -> [u8; HASH_BYTES] {
    let mut hasher = Sha256::new();
    hasher.update(ENCODING);
    hasher.update(previous);
    let mut numbers = [0u8; 28];
    numbers[..4].copy_from_slice(&record.partition.to_be_bytes());
    numbers[4..12].copy_from_slice(&record.position.to_be_bytes());
    numbers[12..20].copy_from_slice(&record.sequence.to_be_bytes());
    numbers[20..].copy_from_slice(&record.recorded_at.micros().to_be_bytes());
    hasher.update(numbers);
    for text in [
        record.aggregate_type,
        record.aggregate_id,
        record.event_type,
        record.event_version,
        record.payload,
        record.metadata,
    ] {
        // A stored text is bounded far below 4 GiB; a longer one would saturate and be found by the verifier's own length.
        hasher.update(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finalize().into()
}

/// Adds a text behind its length in bytes (u32, big-endian), as everything that is signed takes it: no two lists of texts
/// encode alike.
pub(crate) fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::{GENESIS_HASH, chain};
    use calos_domain::{Record, Timestamp};

    const RECORD: Record<'_> = Record {
        partition: 3,
        position: 17,
        aggregate_type: "wallet",
        aggregate_id: "0192",
        sequence: 5,
        event_type: "wallet_opened",
        event_version: "1",
        payload: "{}",
        metadata: "{\"actor\":\"anonymous\"}",
        recorded_at: Timestamp::from_micros(1_700_000_000_000_000),
    };

    #[test]
    fn the_encoding_never_changes() {
        let golden = hex::encode(chain(&GENESIS_HASH, &RECORD));
        assert_eq!(golden, "9aea5371fd94ae5a5fdaa2bd614ba6cb5252b17a912cc23ec4d7616b7f4c1fb5");
    }

    #[test]
    fn every_part_of_the_envelope_is_sealed() {
        let sealed = chain(&GENESIS_HASH, &RECORD);
        let changed = [
            Record { partition: 4, ..RECORD },
            Record { position: 18, ..RECORD },
            Record { aggregate_type: "wallets", ..RECORD },
            Record { aggregate_id: "0193", ..RECORD },
            Record { sequence: 6, ..RECORD },
            Record { event_type: "wallet_closed", ..RECORD },
            Record { event_version: "2", ..RECORD },
            Record { payload: "{ }", ..RECORD },
            Record { metadata: "{}", ..RECORD },
            Record { recorded_at: Timestamp::from_micros(1_700_000_000_000_001), ..RECORD },
            // The same bytes, cut elsewhere.
            Record { aggregate_type: "walle", aggregate_id: "t0192", ..RECORD },
        ];
        for record in changed {
            assert_ne!(chain(&GENESIS_HASH, &record), sealed, "{record:?}");
        }
        assert_ne!(chain(&[1; 32], &RECORD), sealed);
    }
}
