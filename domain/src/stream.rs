//! Names of streams, and what decides a stream's partition.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest stream id, in bytes.
pub const STREAM_ID_MAX_BYTES: usize = 200;

/// The id of one aggregate's stream: `<key>` or `<key>/<rest>`.
///
/// The key alone decides the partition, so everything that must stay in order together shares its key: the tenant for
/// wallets, keys and licences; the user for accounts, devices and sessions.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(String);

impl StreamId {
    /// A stream that is its own key.
    #[must_use]
    pub fn key(key: impl fmt::Display) -> Self {
        Self(key.to_string())
    }

    /// A stream beside others of the same key.
    #[must_use]
    pub fn under(key: impl fmt::Display, rest: impl fmt::Display) -> Self {
        Self(format!("{key}/{rest}"))
    }

    /// The id as stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part that decides the partition.
    #[must_use]
    pub fn partition_key(&self) -> &str {
        partition_key(&self.0)
    }
}

/// The part of a stored stream id that decides its partition: everything before the first `/`.
#[must_use]
pub fn partition_key(id: &str) -> &str {
    id.split_once('/').map_or(id, |(key, _)| key)
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for StreamId {
    fn from(id: String) -> Self {
        Self(id)
    }
}
