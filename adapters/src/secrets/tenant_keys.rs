//! Tenant keys: `sk-tenant-<tenant uuid>-<key id><secret>`.
//!
//! The key id is for looking a key up, so that one call costs one comparison and never one for each key of the tenant.
//! The secret half stands nowhere: the log keeps its bcrypt hash.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use zeroize::Zeroizing;

use calos_commands::ports::{ForgedKey, HashError, KeySmith, SecretText};
use calos_domain::{KEY_ID_CHARACTERS, KeyId, TenantId};

use super::BCRYPT_COST_DEFAULT;
use super::bcrypt_pool::{BcryptPool, HashingCores};
use super::master_key::DerivedKey;
use super::system::letters;

/// What every tenant key begins with.
pub const PREFIX: &str = "sk-tenant-";

/// Characters of the secret half, each of 62 equally likely: 190 bits.
pub const SECRET_CHARACTERS: usize = 32;

/// Characters of the secret that people may see, to tell keys apart by.
const LAST_CHARACTERS: usize = 4;

const UUID_CHARACTERS: usize = 36;

/// A text that is no tenant key; it does not say in which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a tenant key looks like sk-tenant-<tenant id>-<{KEY_ID_CHARACTERS} and {SECRET_CHARACTERS} letters and digits>"
)]
pub struct NoTenantKey;

/// A key as a caller presented it: of the right shape, not yet believed.
#[derive(Clone)]
pub struct PresentedKey {
    /// Whose it claims to be.
    pub tenant_id: TenantId,
    /// Which one it claims to be.
    pub key_id: KeyId,
    secret: Zeroizing<String>,
}

impl fmt::Debug for PresentedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresentedKey")
            .field("tenant_id", &self.tenant_id)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl FromStr for PresentedKey {
    type Err = NoTenantKey;

    fn from_str(text: &str) -> Result<Self, NoTenantKey> {
        let rest = text.strip_prefix(PREFIX).ok_or(NoTenantKey)?;
        let (tenant, rest) = rest.split_at_checked(UUID_CHARACTERS).ok_or(NoTenantKey)?;
        let rest = rest.strip_prefix('-').ok_or(NoTenantKey)?;
        let (key_id, secret) = rest.split_at_checked(KEY_ID_CHARACTERS).ok_or(NoTenantKey)?;
        let tenant_id: TenantId = tenant.parse().map_err(|_| NoTenantKey)?;
        // One key has one spelling: an upper-case or braced id would be another text for the same key.
        let canonical = tenant_id.to_string() == tenant;
        let letters = secret.len() == SECRET_CHARACTERS && secret.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !canonical || !letters {
            return Err(NoTenantKey);
        }
        let key_id = key_id.parse().map_err(|_| NoTenantKey)?;
        Ok(Self { tenant_id, key_id, secret: Zeroizing::new(secret.to_owned()) })
    }
}

/// A presented key's name in memory: a keyed hash of all of it, from which the key cannot be had back.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyFingerprint(pub [u8; 32]);

impl fmt::Debug for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyFingerprint(..)")
    }
}

/// Forges and checks tenant keys.
#[derive(Debug)]
pub struct TenantKeys {
    cache_key: DerivedKey,
    pool: BcryptPool,
}

impl TenantKeys {
    /// Names presented keys under this key, and hashes on these cores.
    #[must_use]
    pub fn new(cache_key: DerivedKey, cores: &HashingCores) -> Self {
        Self { cache_key, pool: BcryptPool::new(BCRYPT_COST_DEFAULT, cores) }
    }

    /// A presented key's name in memory.
    #[must_use]
    pub fn fingerprint(&self, key: &PresentedKey) -> KeyFingerprint {
        let parts = [key.tenant_id.0.as_bytes().as_slice(), key.key_id.as_str().as_bytes(), key.secret.as_bytes()];
        KeyFingerprint(self.cache_key.hash(&parts))
    }

    /// Whether the secret half is the one behind the hash. Costs a tenth of a second of a core.
    ///
    /// # Errors
    /// [`HashError::Busy`] when too many wait; [`HashError::Failed`] for a hash that is none.
    pub async fn verify(&self, key: &PresentedKey, secret_hash: &str) -> Result<bool, HashError> {
        self.pool.verify(Secret(key.secret.clone()), secret_hash.to_owned()).await
    }
}

/// The secret half on its way through the hashing thread.
struct Secret(Zeroizing<String>);

impl AsRef<[u8]> for Secret {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[async_trait]
impl KeySmith for TenantKeys {
    async fn forge(&self, tenant_id: TenantId, key_id: KeyId) -> Result<ForgedKey, HashError> {
        let secret = Zeroizing::new(letters(SECRET_CHARACTERS));
        let last_four = secret[SECRET_CHARACTERS - LAST_CHARACTERS..].to_owned();
        let key = SecretText::new(format!("{PREFIX}{tenant_id}-{key_id}{}", secret.as_str()));
        let secret_hash = self.pool.hash(Secret(secret)).await?;
        Ok(ForgedKey { key_id, key, secret_hash, last_four })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::{KeyLabel, derive};
    use uuid::Uuid;

    const TENANT: TenantId = TenantId(Uuid::from_u128(0xa1b2_c3d4));

    fn keys() -> TenantKeys {
        TenantKeys::new(derive(&[1; 32], KeyLabel::KeyCache), &HashingCores::of_machine())
    }

    async fn forged() -> ForgedKey {
        keys().forge(TENANT, "abcd1234".parse().unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_forged_key_is_read_back_and_recognised() {
        let forged = forged().await;
        let presented: PresentedKey = forged.key.expose().parse().unwrap();
        assert_eq!((presented.tenant_id, &presented.key_id), (TENANT, &forged.key_id));
        assert!(forged.key.expose().ends_with(&forged.last_four));
        assert!(forged.secret_hash.starts_with("$2b$10$"));
        assert!(keys().verify(&presented, &forged.secret_hash).await.unwrap());
    }

    #[tokio::test]
    async fn a_key_with_another_secret_is_not_recognised() {
        let other: PresentedKey =
            format!("{PREFIX}{TENANT}-abcd1234{}", "x".repeat(SECRET_CHARACTERS)).parse().unwrap();
        assert!(!keys().verify(&other, &forged().await.secret_hash).await.unwrap());
    }

    #[test]
    fn every_other_spelling_is_refused() {
        let secret = "x".repeat(SECRET_CHARACTERS);
        let upper = TENANT.to_string().to_uppercase();
        for bad in [
            String::new(),
            "sk-tenant-".to_owned(),
            format!("sk-{TENANT}-abcd1234{secret}"),
            format!("{PREFIX}{upper}-abcd1234{secret}"),
            format!("{PREFIX}{}-abcd1234{secret}", TENANT.0.simple()),
            format!("{PREFIX}{TENANT}-abcd1234{secret}x"),
            format!("{PREFIX}{TENANT}-abcd1234{}", &secret[1..]),
            format!("{PREFIX}{TENANT}-abcd-234{secret}"),
            format!("{PREFIX}{TENANT}_abcd1234{secret}"),
            format!(" {PREFIX}{TENANT}-abcd1234{secret}"),
            format!("{PREFIX}{TENANT}-abcd1234{}ü", &secret[2..]),
            format!("{PREFIX}{}", "ü".repeat(60)),
        ] {
            assert_eq!(bad.parse::<PresentedKey>().unwrap_err(), NoTenantKey, "{bad}");
        }
    }

    #[test]
    fn a_fingerprint_tells_keys_apart() {
        let key = |text: &str| {
            let text = format!("{PREFIX}{TENANT}-{text}{}", "x".repeat(SECRET_CHARACTERS));
            keys().fingerprint(&text.parse().unwrap())
        };
        assert_eq!(key("abcd1234"), key("abcd1234"));
        assert_ne!(key("abcd1234"), key("abcd1235"));
    }

    #[tokio::test]
    async fn no_part_of_a_key_shows_its_secret() {
        let forged = forged().await;
        let presented: PresentedKey = forged.key.expose().parse().unwrap();
        let secret = &forged.key.expose()[forged.key.expose().len() - SECRET_CHARACTERS..];
        let shown = format!("{forged:?} {presented:?} {:?} {:?}", keys(), keys().fingerprint(&presented));
        assert!(!shown.contains(secret));
        assert!(!format!("{NoTenantKey}").contains(secret));
    }
}
