//! Names that follow from personal data without showing it: the claim on an address, a device's id and fingerprint.

use sha2::{Digest, Sha256};

use calos_commands::ports::{Digests, SecretText};
use calos_domain::email_claim::EmailAddress;
use calos_domain::{DeviceId, UserId};

use super::master_key::DerivedKey;

/// Hashes addresses under a key, so that a stolen log cannot be searched for known addresses.
#[derive(Debug)]
pub struct EmailIndex {
    key: DerivedKey,
}

impl EmailIndex {
    /// An index under this key.
    #[must_use]
    pub fn new(key: DerivedKey) -> Self {
        Self { key }
    }
}

impl Digests for EmailIndex {
    fn email(&self, address: &EmailAddress) -> String {
        hex::encode(self.key.hash(&[address.normalised().as_bytes()]))
    }

    fn device(&self, user_id: UserId, secret: &SecretText) -> (DeviceId, String) {
        let fingerprint = Sha256::digest(secret.expose().as_bytes());
        let mut id = Sha256::new();
        id.update(b"calos device\0");
        id.update(user_id.0.as_bytes());
        id.update(fingerprint);
        let mut bytes = [0_u8; 16];
        bytes.copy_from_slice(&id.finalize()[..16]);
        (DeviceId(uuid::Builder::from_custom_bytes(bytes).into_uuid()), hex::encode(fingerprint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::{KeyLabel, derive};
    use uuid::Uuid;

    const ANNA: UserId = UserId(Uuid::from_u128(1));

    fn index(byte: u8) -> EmailIndex {
        EmailIndex::new(derive(&[byte; 32], KeyLabel::EmailIndex))
    }

    fn address(text: &str) -> EmailAddress {
        text.parse().unwrap()
    }

    #[test]
    fn every_spelling_of_an_address_has_one_name() {
        let name = index(1).email(&address("user@example.com"));
        assert_eq!(name, index(1).email(&address(" USER@Example.COM ")));
        assert_ne!(name, index(1).email(&address("user2@example.com")));
        assert_ne!(name, index(2).email(&address("user@example.com")));
        assert_eq!(name.len(), 64);
    }

    #[test]
    fn a_device_has_another_id_for_each_user_and_one_fingerprint() {
        let secret = SecretText::new("a secret");
        let (id, fingerprint) = index(1).device(ANNA, &secret);
        assert_eq!((id, fingerprint.clone()), index(2).device(ANNA, &secret));
        let (other, same) = index(1).device(UserId(Uuid::from_u128(2)), &secret);
        assert_ne!(id, other);
        assert_eq!(fingerprint, same);
        assert_ne!(id, index(1).device(ANNA, &SecretText::new("another")).0);
    }
}
