//! Everything that has to stay secret, or is made from a secret.
//!
//! [`Secrets`] is built once, from the configuration and the database. Nothing in here shows a secret to `Debug`, puts
//! one into an error, or logs one.

mod aead;
mod bcrypt_pool;
mod common_passwords;
mod email_index;
mod keyring;
mod master_key;
mod passwords;
mod root;
mod subject_keys;
mod system;
mod tenant_keys;
mod tokens;

use std::fmt;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use sqlx::PgPool;

use calos_commands::ports::World;

use crate::config::{MasterKey, Secret};

pub use aead::Unopenable;
pub use bcrypt_pool::HashingCores;
pub use email_index::EmailIndex;
pub use keyring::{Keyring, Rotated};
pub use master_key::{DerivedKey, KeyLabel, derive, ledger_signing_key};
pub use passwords::Passwords;
pub use root::RootSecret;
pub use subject_keys::{REWRAP_PAGE_MAX_KEYS, Rewrapped, SubjectKeys};
pub use system::{SystemClock, SystemRandomness};
pub use tenant_keys::{KeyFingerprint, NoTenantKey, PresentedKey, SECRET_CHARACTERS, TenantKeys};
pub use tokens::SessionTokens;

/// bcrypt's cost unless set otherwise: 2^10 rounds, as the seeds have it.
pub const BCRYPT_COST_DEFAULT: u32 = 10;

/// What [`Secrets`] are made from.
#[derive(Clone, Debug)]
pub struct SecretsOptions {
    /// `CALOS_MASTER_KEY`.
    pub master_key: MasterKey,
    /// `CALOS_MASTER_KEY_PREVIOUS`, while rotating.
    pub master_key_previous: Option<MasterKey>,
    /// `JWT_SECRET`.
    pub jwt_secret: Secret,
    /// Who signs session tokens: the host name people reach the server by.
    pub issuer: String,
    /// bcrypt's cost for passwords, 10 to 31.
    pub password_cost: u32,
}

/// Why the secrets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The database holds keys that neither master key opens.
    #[error(
        "CALOS_MASTER_KEY is not the key this database was written with; set the one it was, or that one as \
         CALOS_MASTER_KEY_PREVIOUS while rotating"
    )]
    AnotherMasterKey,
    /// The root secret cannot be drawn or wrapped.
    #[error("the root secret cannot be drawn: the system gives no random numbers")]
    Root,
    /// The cost is out of range.
    #[error("bcrypt's cost must be {BCRYPT_COST_DEFAULT} to 31, not {0}")]
    Cost(u32),
    /// The database cannot be reached.
    #[error("the keys in the database cannot be read: {0}")]
    Database(#[from] sqlx::Error),
    /// Hashing failed.
    #[error("hashing failed: {0}")]
    Hashing(String),
}

/// Everything secret, ready to use. Cloning shares it.
#[derive(Clone)]
pub struct Secrets(Arc<Inner>);

struct Inner {
    subject_keys: Arc<SubjectKeys>,
    passwords: Arc<Passwords>,
    tokens: Arc<SessionTokens>,
    tenant_keys: Arc<TenantKeys>,
    email_index: Arc<EmailIndex>,
    keyring: Arc<Keyring>,
    idempotency: DerivedKey,
    ledger: SigningKey,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

impl Secrets {
    /// Opens the database's root secret, drawing one for a new database, and derives the keys from it. Looks whether the
    /// database was written with the same master key first.
    ///
    /// # Errors
    /// [`SecretsError`], none of which holds a secret.
    pub async fn open(pool: PgPool, options: &SecretsOptions) -> Result<Self, SecretsError> {
        let master = &options.master_key;
        let previous = options.master_key_previous.as_ref();
        let subject_keys = SubjectKeys::new(pool.clone(), master, previous);
        if subject_keys.holds_unopenable().await? {
            return Err(SecretsError::AnotherMasterKey);
        }
        if !(BCRYPT_COST_DEFAULT..=31).contains(&options.password_cost) {
            return Err(SecretsError::Cost(options.password_cost));
        }
        let root = RootSecret::open(&pool, master, previous).await?;
        let keyring = Keyring::open(pool, master, previous).await?;
        let cores = HashingCores::of_machine();
        let passwords = Passwords::new(derive(root.expose(), KeyLabel::Pepper), options.password_cost, &cores)
            .map_err(|error| SecretsError::Hashing(error.to_string()))?;
        Ok(Self(Arc::new(Inner {
            subject_keys: Arc::new(subject_keys),
            passwords: Arc::new(passwords),
            tokens: Arc::new(SessionTokens::new(&options.jwt_secret, &options.issuer)),
            tenant_keys: Arc::new(TenantKeys::new(derive(root.expose(), KeyLabel::KeyCache), &cores)),
            email_index: Arc::new(EmailIndex::new(derive(root.expose(), KeyLabel::EmailIndex))),
            keyring: Arc::new(keyring),
            idempotency: derive(root.expose(), KeyLabel::Idempotency),
            ledger: ledger_signing_key(&root),
        })))
    }

    /// The roles the use cases need, played by this machine.
    #[must_use]
    pub fn world(&self) -> World {
        World {
            personal_data: Arc::clone(&self.0.subject_keys) as _,
            passwords: Arc::clone(&self.0.passwords) as _,
            tokens: Arc::clone(&self.0.tokens) as _,
            keys: Arc::clone(&self.0.tenant_keys) as _,
            digests: Arc::clone(&self.0.email_index) as _,
            clock: Arc::new(SystemClock),
            randomness: Arc::new(SystemRandomness),
        }
    }

    /// Per-subject data keys.
    #[must_use]
    pub fn subject_keys(&self) -> &SubjectKeys {
        &self.0.subject_keys
    }

    /// Tenants' own provider keys.
    #[must_use]
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.0.keyring
    }

    /// Tenant keys.
    #[must_use]
    pub fn tenant_keys(&self) -> &TenantKeys {
        &self.0.tenant_keys
    }

    /// Session tokens.
    #[must_use]
    pub fn tokens(&self) -> &SessionTokens {
        &self.0.tokens
    }

    /// The key that signs the ledger's anchors and receipts.
    #[must_use]
    pub fn ledger_signing_key(&self) -> &SigningKey {
        &self.0.ledger
    }

    /// A keyed hash of parts, each behind its length, so that no two lists of parts hash alike by their joints.
    #[must_use]
    pub fn keyed_hash(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.0.idempotency.hash(parts)
    }

    /// Seals an answer that is kept for a repeated request, bound to the row it is kept in.
    ///
    /// # Errors
    /// [`Unopenable`] when the text is too long to seal.
    pub fn seal_answer(&self, plain: &[u8], bound_to: &[u8]) -> Result<Vec<u8>, Unopenable> {
        aead::seal(self.0.idempotency.bytes(), plain, bound_to)
    }

    /// Opens what [`Self::seal_answer`] sealed for the same row.
    ///
    /// # Errors
    /// [`Unopenable`] for anything else.
    pub fn open_answer(&self, sealed: &[u8], bound_to: &[u8]) -> Result<Vec<u8>, Unopenable> {
        aead::open(self.0.idempotency.bytes(), sealed, bound_to).map(|plain| plain.to_vec())
    }
}
