//! Which partition a stream lives in.

use sha2::{Digest, Sha256};

use calos_domain::stream::partition_key;

/// The partition of a stream id in a log of `partitions` partitions: the first eight bytes of SHA-256 over the part of
/// the id before the first `/`, big-endian, modulo the number of partitions.
///
/// This can never change for a log that holds events.
#[must_use]
pub fn partition_of(stream_id: &str, partitions: u16) -> i32 {
    let digest: [u8; 32] = Sha256::digest(partition_key(stream_id).as_bytes()).into();
    let mut head = [0u8; 8];
    head.copy_from_slice(&digest[..8]);
    let partition = u64::from_be_bytes(head) % u64::from(partitions.max(1));
    i32::try_from(partition).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::partition_of;

    #[test]
    fn the_partition_of_a_stream_never_changes() {
        for (id, partitions, expected) in [
            ("0193a5c8-0000-7000-8000-000000000001", 16, 12),
            ("0193a5c8-0000-7000-8000-000000000002", 16, 15),
            ("evt_1", 16, 1),
            ("evt_1", 256, 193),
            ("evt_1", 1, 0),
        ] {
            assert_eq!(partition_of(id, partitions), expected, "{id} in {partitions}");
        }
    }

    #[test]
    fn everything_under_a_key_shares_its_partition() {
        assert_eq!(partition_of("tenant/key", 16), partition_of("tenant", 16));
        assert_eq!(partition_of("tenant/key/more", 16), partition_of("tenant", 16));
    }
}
