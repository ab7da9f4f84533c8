//! What can happen to one login.

use serde::{Deserialize, Serialize};

use crate::sealed::Sealed;
use crate::{DeviceId, SessionId, TenantId, Timestamp, UserId};

/// Everything that changes a session. Stored as `{"<name>": {…}}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionEvent {
    /// Somebody is signed in.
    SessionStarted(SessionStarted),
    /// They no longer are. A session that runs out of time ends without an event: its end stands in its start.
    SessionEnded(SessionEnded),
}

crate::facts!(SessionEvent {
    SessionStarted => "session_started" v "1",
    SessionEnded => "session_ended" v "1",
});

/// Why a session ended before its time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionEndCause {
    /// Its own user signed out of it.
    LoggedOut,
    /// Its user ended it from another session.
    Revoked,
    /// A new login on the same device took its place.
    Replaced,
    /// The password changed.
    PasswordChanged,
    /// Its user was erased.
    Erased,
}

/// See [`SessionEvent::SessionStarted`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionStarted {
    /// The session.
    pub session_id: SessionId,
    /// Who.
    pub user_id: UserId,
    /// For which tenant they act unless they say otherwise.
    pub tenant_id: TenantId,
    /// On which device.
    pub device_id: DeviceId,
    /// When.
    pub started_at: Timestamp,
    /// Until when, at the latest.
    pub expires_at: Timestamp,
    /// The client's network address, label `address`, under the user's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Sealed>,
    /// What the client says it is, label `user_agent`, under the user's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<Sealed>,
}

/// See [`SessionEvent::SessionEnded`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionEnded {
    /// Why.
    pub cause: SessionEndCause,
    /// When.
    pub ended_at: Timestamp,
}
