//! AES-256-GCM with a random nonce in front: `nonce (12) | ciphertext | tag (16)`.

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use rand::TryRngCore;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

const NONCE_BYTES: usize = 12;

/// Something sealed that does not open, or cannot be sealed; it says no more, so that nothing can be learned from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("what was sealed does not open")]
pub struct Unopenable;

/// Fills bytes from the operating system.
pub(super) fn fill(bytes: &mut [u8]) -> Result<(), Unopenable> {
    OsRng.try_fill_bytes(bytes).map_err(|_| Unopenable)
}

/// Seals bytes under a key; `bound_to` has to be given again to open them.
pub(super) fn seal(key: &[u8; 32], plain: &[u8], bound_to: &[u8]) -> Result<Vec<u8>, Unopenable> {
    let mut nonce = [0_u8; NONCE_BYTES];
    fill(&mut nonce)?;
    let cipher = Aes256Gcm::new(key.into());
    let sealed = cipher.encrypt(&nonce.into(), Payload { msg: plain, aad: bound_to }).map_err(|_| Unopenable)?;
    let mut bytes = Vec::with_capacity(NONCE_BYTES + sealed.len());
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(&sealed);
    Ok(bytes)
}

/// Opens what [`seal`] sealed under the same key and bound to the same bytes.
pub(super) fn open(key: &[u8; 32], sealed: &[u8], bound_to: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unopenable> {
    let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(Unopenable)?;
    let cipher = Aes256Gcm::new(key.into());
    let plain = cipher.decrypt(&(*nonce).into(), Payload { msg: ciphertext, aad: bound_to });
    plain.map(Zeroizing::new).map_err(|_| Unopenable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    #[test]
    fn what_is_sealed_opens_again() {
        let sealed = seal(&KEY, b"a secret", b"row 1").unwrap();
        assert_eq!(open(&KEY, &sealed, b"row 1").unwrap().as_slice(), b"a secret");
        assert!(!sealed.windows(8).any(|window| window == b"a secret"));
    }

    #[test]
    fn the_same_text_never_looks_the_same_twice() {
        assert_ne!(seal(&KEY, b"a secret", b"").unwrap(), seal(&KEY, b"a secret", b"").unwrap());
    }

    #[test]
    fn another_key_another_row_a_flipped_bit_and_a_cut_end_do_not_open() {
        let sealed = seal(&KEY, b"a secret", b"row 1").unwrap();
        assert_eq!(open(&[8; 32], &sealed, b"row 1").unwrap_err(), Unopenable);
        assert_eq!(open(&KEY, &sealed, b"row 2").unwrap_err(), Unopenable);
        for index in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[index] ^= 1;
            assert_eq!(open(&KEY, &flipped, b"row 1").unwrap_err(), Unopenable);
        }
        for length in 0..sealed.len() {
            assert_eq!(open(&KEY, &sealed[..length], b"row 1").unwrap_err(), Unopenable);
        }
    }
}
