//! Identifiers, one type each, so that a tenant can never be passed where a user is meant.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
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
    /// One correction of a wallet, proposed by one person and approved by others. UUIDv7: its milliseconds order it.
    AdjustmentId,
    /// One comparison of the books with what whoever keeps an account says.
    ReconciliationId,
    /// One sealed secret of a tenant's keyring; a key that takes another's place has an entry of its own.
    KeyringEntryId,
}

/// Characters in a [`KeyId`].
pub const KEY_ID_CHARACTERS: usize = 8;

/// The look-up half of a tenant key: eight characters, not secret, unique within its tenant. Held in place, so that
/// copying one along with every hold costs no allocation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; KEY_ID_CHARACTERS]);

/// Why a text is no [`KeyId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key id is {KEY_ID_CHARACTERS} letters or digits")]
pub struct NoKeyId;

impl KeyId {
    /// The id as stored and shown.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Letters and digits alone come in, so this never falls back.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for KeyId {
    type Err = NoKeyId;
    fn from_str(text: &str) -> Result<Self, NoKeyId> {
        let bytes: [u8; KEY_ID_CHARACTERS] = text.as_bytes().try_into().map_err(|_| NoKeyId)?;
        if bytes.iter().all(u8::is_ascii_alphanumeric) { Ok(Self(bytes)) } else { Err(NoKeyId) }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({})", self.as_str())
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
