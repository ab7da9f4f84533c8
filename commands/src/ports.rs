//! What the use cases need of the world, as roles; vendors and stores stand in `adapters`.
//!
//! The event log has a file of its own ([`crate::log`]), the model providers too ([`crate::provider`]).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;
use zeroize::Zeroizing;

use calos_domain::email_claim::EmailAddress;
use calos_domain::sealed::Sealed;
use calos_domain::{DeviceId, KeyId, SessionId, SubjectId, TenantId, Timestamp, UserId};

/// What a piece of personal data is. Sealed under one label, it does not open under another.
pub mod label {
    /// An account's address.
    pub const EMAIL: &str = "email";
    /// What a person wants to be called.
    pub const DISPLAY_NAME: &str = "display_name";
    /// The bcrypt hash of a password.
    pub const PASSWORD_HASH: &str = "password_hash";
    /// What a person calls a device.
    pub const NICKNAME: &str = "nickname";
    /// A client's network address.
    pub const ADDRESS: &str = "address";
    /// What a client says it is.
    pub const USER_AGENT: &str = "user_agent";
}

/// A text that opens something. It shows itself to whoever asks for it by name, and to no formatter; its memory is wiped
/// when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

/// Why personal data could not be sealed or opened. Never carries any of it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SealError {
    /// The subject was erased: the log says so, and what was sealed for it opens for nobody any more.
    #[error("the data of {0:?} was erased")]
    Erased(SubjectId),
    /// The subject has no key, and nothing says that it was erased: the key was lost, or there never was one.
    #[error("the key of {0:?} is missing, and nothing says that its data was erased")]
    Missing(SubjectId),
    /// The ciphertext is not what was sealed under this label for this subject.
    #[error("the {label} of {subject:?} does not open: it was tampered with, or belongs elsewhere")]
    Tampered {
        /// Whose.
        subject: SubjectId,
        /// What.
        label: &'static str,
    },
    /// The subject's key was wrapped by a master key this process does not have.
    #[error("the key of {0:?} was wrapped by another master key; set CALOS_MASTER_KEY_PREVIOUS while rotating")]
    AnotherMasterKey(SubjectId),
    /// The key store cannot be reached.
    #[error("the key store cannot be reached: {0}")]
    Unavailable(String),
}

/// Seals personal data for events, each subject under a key of its own.
#[async_trait]
pub trait PersonalData: Send + Sync {
    /// Makes the subject's key; durable before it answers. A subject that has one keeps it, and one that was erased gets
    /// none.
    async fn create_key(&self, subject: SubjectId) -> Result<(), SealError>;

    /// Destroys the subject's key: everything sealed under it is unreadable from then on.
    async fn destroy_key(&self, subject: SubjectId) -> Result<(), SealError>;

    /// Seals a text.
    async fn seal(&self, subject: SubjectId, label: &'static str, text: &str) -> Result<Sealed, SealError>;

    /// Opens what was sealed under this label.
    async fn open(&self, sealed: &Sealed, label: &'static str) -> Result<String, SealError>;
}

/// The shortest password, in characters.
pub const PASSWORD_MIN_CHARACTERS: usize = 8;

/// The longest password, in characters.
pub const PASSWORD_MAX_CHARACTERS: usize = 256;

/// Why a password is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WeakPassword {
    /// Guessed too soon.
    #[error("a password has {PASSWORD_MIN_CHARACTERS} characters at least, this one has {characters}")]
    TooShort {
        /// How long it is.
        characters: usize,
    },
    /// Longer than anybody types.
    #[error("a password has {PASSWORD_MAX_CHARACTERS} characters at most, this one has {characters}")]
    TooLong {
        /// How long it is.
        characters: usize,
    },
    /// On every list of guesses.
    #[error("this password is one of the first that anybody tries; choose another")]
    Common,
}

/// Why a secret could not be hashed or compared.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HashError {
    /// More are waiting to be hashed than may wait.
    #[error("too many passwords and keys are being checked; try again in a moment")]
    Busy,
    /// Hashing itself failed; the text says why and holds no secret.
    #[error("hashing failed: {0}")]
    Failed(String),
}

/// Turns passwords into hashes that are slow to guess, without slowing anything else down.
#[async_trait]
pub trait PasswordHasher: Send + Sync {
    /// Whether a new password is good enough.
    fn check(&self, password: &str) -> Result<(), WeakPassword>;

    /// The hash to keep.
    async fn hash(&self, password: &str) -> Result<SecretText, HashError>;

    /// Whether a password is the one behind the hash. Without a hash it costs the same and answers no, so that an
    /// unknown account cannot be told from a wrong password by the clock.
    async fn verify(&self, password: &str, hash: Option<&SecretText>) -> Result<bool, HashError>;
}

/// What a session token says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionClaims {
    /// Who.
    pub user_id: UserId,
    /// For which tenant.
    pub tenant_id: TenantId,
    /// Which session; the token is worth nothing once that has ended.
    pub session_id: SessionId,
    /// Until when, in whole seconds.
    pub expires_at: Timestamp,
}

/// A session token that cannot be made or believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this is no valid session token")]
pub struct NoToken;

/// Signs session tokens and checks their signatures.
pub trait TokenSigner: Send + Sync {
    /// The token that says this.
    fn sign(&self, claims: &SessionClaims) -> Result<SecretText, NoToken>;

    /// What a token says, if its signature, audience, issuer and end hold.
    fn verify(&self, token: &str) -> Result<SessionClaims, NoToken>;
}

/// A tenant key at the one moment its secret exists.
#[derive(Clone, Debug)]
pub struct ForgedKey {
    /// The half it is looked up by.
    pub key_id: KeyId,
    /// The whole key, shown once.
    pub key: SecretText,
    /// The hash of the secret half, to keep.
    pub secret_hash: String,
    /// Its last four characters, to tell keys apart by.
    pub last_four: String,
}

/// Makes tenant keys.
#[async_trait]
pub trait KeySmith: Send + Sync {
    /// A new key under this id.
    async fn forge(&self, tenant_id: TenantId, key_id: KeyId) -> Result<ForgedKey, HashError>;
}

/// Names that follow from something that must not stand in the log.
pub trait Digests: Send + Sync {
    /// The stream key of the claim on an address: a keyed hash, the same for every spelling, in hex.
    fn email(&self, address: &EmailAddress) -> String;

    /// A device's id for one user, and its fingerprint in hex, from the secret the device keeps.
    fn device(&self, user_id: UserId, secret: &SecretText) -> (DeviceId, String);
}

/// What time it is.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// What nobody can guess.
pub trait Randomness: Send + Sync {
    /// A random id (UUIDv4).
    fn id(&self) -> Uuid;

    /// An id ordered by its time (UUIDv7).
    fn ordered_id(&self) -> Uuid;

    /// The look-up half of a new tenant key.
    fn key_id(&self) -> KeyId;

    /// 256 random bits, as text.
    fn secret(&self) -> SecretText;
}

/// Every role the identity use cases need, in one place.
#[derive(Clone)]
pub struct World {
    /// Seals personal data.
    pub personal_data: Arc<dyn PersonalData>,
    /// Hashes passwords.
    pub passwords: Arc<dyn PasswordHasher>,
    /// Signs session tokens.
    pub tokens: Arc<dyn TokenSigner>,
    /// Makes tenant keys.
    pub keys: Arc<dyn KeySmith>,
    /// Names claims and devices.
    pub digests: Arc<dyn Digests>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Draws ids and secrets.
    pub randomness: Arc<dyn Randomness>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World(..)")
    }
}
