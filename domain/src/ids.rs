//! Identifiers, one type each, so that a tenant can never be passed where a user is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }
    )+};
}

uuid_id! {
    /// A person.
    UserId,
    /// Whoever pays: a personal tenant is created with each account.
    TenantId,
    /// A browser or phone of one user.
    DeviceId,
    /// One login on one device.
    SessionId,
    /// One grant of credit within a wallet.
    GrantId,
    /// One reservation within a wallet. UUIDv7: its milliseconds order it.
    HoldId,
    /// One metered use: one chat call, one message. UUIDv7.
    UsageId,
    /// Whose data key seals a piece of personal data: a user, a tenant, or a raw message nobody is known for yet.
    SubjectId,
    /// One run of an operator's tool.
    OperationId,
    /// One sealed secret of a tenant's keyring; a key that takes another's place has an entry of its own.
    KeyringEntryId,
}

/// The look-up half of a tenant key: eight characters, not secret, unique within its tenant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

/// Characters in a [`KeyId`].
pub const KEY_ID_CHARACTERS: usize = 8;

/// Why a text is no [`KeyId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key id is {KEY_ID_CHARACTERS} letters or digits")]
pub struct NoKeyId;

impl KeyId {
    /// The id as stored and shown.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = NoKeyId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = text.len() == KEY_ID_CHARACTERS && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if valid { Ok(Self(text.to_owned())) } else { Err(NoKeyId) }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
