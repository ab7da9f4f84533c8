//! Who asked, on whose behalf, and what it belongs to: the envelope around every event.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use calos_domain::{KeyId, TenantId, UserId};

/// Who caused a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Actor {
    /// A signed-in person.
    User(UserId),
    /// A tenant's API key.
    Key(TenantId, KeyId),
    /// CALOS itself: a process manager, a sweep; by name.
    System(&'static str),
    /// Somebody at the console of the machine, by login name.
    Console(String),
    /// A sender of webhooks, by name.
    Webhook(&'static str),
    /// Nobody known yet: a registration.
    Anonymous,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user:{id}"),
            Self::Key(tenant, key) => write!(f, "key:{tenant}/{key}"),
            Self::System(name) => write!(f, "system:{name}"),
            Self::Console(login) => write!(f, "console:{login}"),
            Self::Webhook(name) => write!(f, "webhook:{name}"),
            Self::Anonymous => f.write_str("anonymous"),
        }
    }
}

/// What every event of one command carries beside its payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metadata {
    /// The command; shared by all its events.
    pub command_id: Uuid,
    /// The conversation it belongs to: the same from the HTTP request through every follow-up.
    pub correlation_id: Uuid,
    /// The event that led to it, when an event did: its `event_id`.
    pub causation_id: Option<Uuid>,
    /// Who asked.
    pub actor: Actor,
    /// For whom, when that is somebody else.
    pub on_behalf_of: Option<String>,
    /// Why, where a person has to say so.
    pub reason: Option<String>,
    /// The HTTP request, when there was one.
    pub request_id: Option<String>,
}

impl Metadata {
    /// A first command of a conversation.
    #[must_use]
    pub fn new(actor: Actor) -> Self {
        let id = Uuid::now_v7();
        Self {
            command_id: id,
            correlation_id: id,
            causation_id: None,
            actor,
            on_behalf_of: None,
            reason: None,
            request_id: None,
        }
    }
}

/// The stored form: a JSON object of strings, absent rather than null, as `postgres-es` reads it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredMetadata {
    /// This event.
    pub event_id: Uuid,
    /// See [`Metadata::command_id`].
    pub command_id: Uuid,
    /// See [`Metadata::correlation_id`].
    pub correlation_id: Uuid,
    /// See [`Metadata::causation_id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Uuid>,
    /// See [`Metadata::actor`], in its text form.
    pub actor: String,
    /// See [`Metadata::on_behalf_of`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    /// See [`Metadata::reason`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// See [`Metadata::request_id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}
