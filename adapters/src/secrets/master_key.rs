//! Keys derived from a secret of 32 bytes, one for each purpose, so that no two purposes ever share a key.
//!
//! The master key wraps; what lasts longer than a master key is derived from the root secret it wraps.

use std::fmt;

use ed25519_dalek::SigningKey;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::root::RootSecret;
use crate::config::MasterKey;

/// What a derived key is for. The label is part of the derivation and never changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyLabel {
    /// Mixed into passwords before they are hashed.
    Pepper,
    /// Names the claim on an email address.
    EmailIndex,
    /// Signs the ledger.
    LedgerSigning,
    /// Hashes requests and seals answers that are kept for repetitions.
    Idempotency,
    /// Names verified tenant keys in memory.
    KeyCache,
    /// Wraps subjects' data keys.
    Wrapping,
    /// Wraps the root secret.
    RootWrapping,
    /// Wraps the keyring's keys.
    KeyringWrapping,
    /// Recognises the master key without revealing it.
    Version,
}

impl KeyLabel {
    const fn info(self) -> &'static [u8] {
        match self {
            Self::Pepper => b"calos/v1/password-pepper",
            Self::EmailIndex => b"calos/v1/email-index",
            Self::LedgerSigning => b"calos/v1/ledger-signing-ed25519",
            Self::Idempotency => b"calos/v1/idempotency",
            Self::KeyCache => b"calos/v1/key-cache",
            Self::Wrapping => b"calos/v1/subject-key-wrapping",
            Self::RootWrapping => b"calos/v1/root-wrapping",
            Self::KeyringWrapping => b"calos/v1/keyring-wrapping",
            Self::Version => b"calos/v1/master-key-version",
        }
    }
}

/// 32 bytes for one purpose; wiped when dropped, never shown.
#[derive(Clone)]
pub struct DerivedKey(Zeroizing<[u8; 32]>);

impl DerivedKey {
    /// The bytes, for whoever encrypts with them.
    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// HMAC-SHA256 over parts, each behind its length, so that parts cannot be shifted into each other.
    #[must_use]
    pub fn hash(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.mac();
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    fn mac(&self) -> Hmac<Sha256> {
        // HMAC fills a key shorter than its block of 64 bytes with zeroes; done here, no length can be wrong.
        let mut block = Zeroizing::new([0_u8; 64]);
        block[..32].copy_from_slice(self.0.as_slice());
        Hmac::new((&*block).into())
    }
}

impl fmt::Debug for DerivedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DerivedKey(..)")
    }
}

/// The key for one purpose: HKDF-SHA256 of the secret with the purpose's label.
#[must_use]
pub fn derive(secret: &[u8; 32], label: KeyLabel) -> DerivedKey {
    let mut key = Zeroizing::new([0_u8; 32]);
    // 32 bytes are one block of HKDF-SHA256, which can always be expanded.
    let expanded = Hkdf::<Sha256>::new(Some(b"calos"), secret).expand(label.info(), key.as_mut_slice());
    debug_assert!(expanded.is_ok(), "one block always expands");
    DerivedKey(key)
}

/// The Ed25519 key that signs the ledger's heads and receipts.
#[must_use]
pub fn ledger_signing_key(root: &RootSecret) -> SigningKey {
    SigningKey::from_bytes(derive(root.expose(), KeyLabel::LedgerSigning).bytes())
}

/// A number that recognises a master key, for the `master_version` column: different keys have different numbers but
/// for one chance in two thousand million, and the number tells nothing about the key.
pub(super) fn version(master: &MasterKey) -> i32 {
    let key = derive(master.expose(), KeyLabel::Version);
    let [a, b, c, d, ..] = *key.bytes();
    i32::from_be_bytes([a & 0x7f, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(byte: u8) -> [u8; 32] {
        [byte; 32]
    }

    #[test]
    fn every_purpose_and_every_master_key_has_a_key_of_its_own() {
        let labels = [
            KeyLabel::Pepper,
            KeyLabel::EmailIndex,
            KeyLabel::LedgerSigning,
            KeyLabel::Idempotency,
            KeyLabel::KeyCache,
            KeyLabel::Wrapping,
            KeyLabel::RootWrapping,
            KeyLabel::KeyringWrapping,
            KeyLabel::Version,
        ];
        let mut seen = std::collections::HashSet::new();
        for byte in [1, 2] {
            for label in labels {
                assert!(seen.insert(*derive(&master(byte), label).bytes()), "{label:?}");
            }
        }
    }

    #[test]
    fn a_derived_key_never_changes() {
        let key = derive(&master(1), KeyLabel::EmailIndex);
        assert_eq!(hex::encode(key.bytes()), GOLDEN_EMAIL_INDEX_KEY);
        assert_eq!(hex::encode(key.hash(&[b"a", b"bc"])), GOLDEN_HASH);
    }

    // Computed with another implementation of HKDF and HMAC.
    const GOLDEN_EMAIL_INDEX_KEY: &str = "c3f95142f68be7517da2ad4e1df125ca7e74e051f3ff300844b95d2fbc8d0d09";
    const GOLDEN_HASH: &str = "3874fad7a90bbbb5c04e81d9ce53abb7b2d1b711de8428f08c8dceeb3d0a1fc6";

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        let key = derive(&master(1), KeyLabel::Idempotency);
        assert_ne!(key.hash(&[b"a", b"bc"]), key.hash(&[b"ab", b"c"]));
        assert_ne!(key.hash(&[b"abc"]), key.hash(&[b"abc", b""]));
    }

    #[test]
    fn a_key_does_not_show_itself() {
        let key = derive(&master(1), KeyLabel::Pepper);
        assert_eq!(format!("{key:?}"), "DerivedKey(..)");
    }
}
