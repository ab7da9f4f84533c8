//! What can happen to a tenant's API key.

use serde::{Deserialize, Serialize};

use crate::{KeyId, MicroUsd, TenantId, Timestamp, UserId};

/// Everything that changes a key. Stored as `{"<name>": {…}}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiKeyEvent {
    /// The key exists. Its secret was shown once and stands nowhere.
    ApiKeyIssued(ApiKeyIssued),
    /// The key opens nothing any more.
    ApiKeyRevoked(ApiKeyRevoked),
    /// What the key may do is another thing from now on.
    ApiKeyChanged(ApiKeyChanged),
    /// Another key takes its place, and it ends once the overlap has passed.
    ApiKeyRotated(ApiKeyRotated),
}

crate::facts!(ApiKeyEvent {
    ApiKeyIssued => "api_key_issued" v "1",
    ApiKeyRevoked => "api_key_revoked" v "1",
    ApiKeyChanged => "api_key_changed" v "1",
    ApiKeyRotated => "api_key_rotated" v "1",
});

/// How many calls a key may make within sliding windows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyLimits {
    /// Calls within any 60 seconds.
    pub per_minute: u32,
    /// Calls within any 3,600 seconds.
    pub per_hour: u32,
    /// Calls within any 86,400 seconds.
    pub per_day: u32,
}

impl Default for KeyLimits {
    /// What the seeds give every key.
    fn default() -> Self {
        Self { per_minute: 60, per_hour: 1_000, per_day: 10_000 }
    }
}

/// What a key may spend. A call counts with what it may cost from the moment it is let in, so calls at the same time do
/// not overshoot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct KeyBudgets {
    /// From midnight to midnight, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_day: Option<MicroUsd>,
    /// From the first of a month to the next, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_month: Option<MicroUsd>,
}

impl KeyBudgets {
    /// Whether there is no budget at all.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// See [`ApiKeyEvent::ApiKeyIssued`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ApiKeyIssued {
    /// Whose key.
    pub tenant_id: TenantId,
    /// The half a key is looked up by.
    pub key_id: KeyId,
    /// The bcrypt hash of the secret half alone.
    pub secret_hash: String,
    /// The secret's last four characters, so that people can tell their keys apart.
    pub last_four: String,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The only paths it may call, when it is restricted: `/v1/chat/completions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<String>>,
    /// The only models it may name, when it is restricted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// The only networks it may call from, in CIDR, when it is restricted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_allowlist: Option<Vec<String>>,
    /// How often it may call.
    pub limits: KeyLimits,
    /// What it may spend.
    #[serde(default, skip_serializing_if = "KeyBudgets::is_unlimited")]
    pub budgets: KeyBudgets,
    /// Until when, if not for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The key whose place it takes, when it came of a rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<KeyId>,
    /// The first key of its line: the one the first rotation began with. Absent for a key that came of none, and for one
    /// that came of a rotation before lines were recorded, which begins a line of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<KeyId>,
    /// Who issued it.
    pub issued_by: UserId,
    /// When.
    pub issued_at: Timestamp,
}

/// What can be changed about a key.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct KeySettings {
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The only paths it may call, when it is restricted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<String>>,
    /// The only models it may name, when it is restricted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// The only networks it may call from, in CIDR, when it is restricted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_allowlist: Option<Vec<String>>,
    /// How often it may call.
    pub limits: KeyLimits,
    /// What it may spend.
    #[serde(default, skip_serializing_if = "KeyBudgets::is_unlimited")]
    pub budgets: KeyBudgets,
    /// Until when, if not for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// See [`ApiKeyEvent::ApiKeyChanged`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ApiKeyChanged {
    /// All of it as it is from now on, changed or not.
    pub settings: KeySettings,
    /// Who changed it.
    pub changed_by: UserId,
    /// When.
    pub changed_at: Timestamp,
}

/// See [`ApiKeyEvent::ApiKeyRotated`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ApiKeyRotated {
    /// The key that takes its place.
    pub replaced_by: KeyId,
    /// Until when both open; the key's own end comes first when it is earlier.
    pub ends_at: Timestamp,
    /// Who rotated it.
    pub rotated_by: UserId,
    /// When.
    pub rotated_at: Timestamp,
}

/// See [`ApiKeyEvent::ApiKeyRevoked`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ApiKeyRevoked {
    /// Who revoked it.
    pub revoked_by: UserId,
    /// When.
    pub revoked_at: Timestamp,
}
