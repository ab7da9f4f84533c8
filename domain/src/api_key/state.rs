//! What a decision about a key needs to remember.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{ApiKeyEvent, ApiKeyIssued, ApiKeyRotated, Network};
use crate::{KeyId, Timestamp};

/// A key, folded from its events.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ApiKey {
    /// What it was issued as, with every change since; none while it was not issued. A rotation brings its end forward.
    pub current: Option<ApiKeyIssued>,
    /// The rotation that put another key in its place, if one did.
    pub rotated: Option<ApiKeyRotated>,
    /// When it was revoked, once it was.
    pub revoked_at: Option<Timestamp>,
}

/// Why a key that was presented, with the right secret, opens nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyDenial {
    /// Never issued.
    #[error("there is no such API key")]
    Unknown,
    /// Revoked.
    #[error("this API key was revoked; issue another one")]
    Revoked,
    /// Out of time.
    #[error("this API key has expired; issue another one")]
    Expired {
        /// Since when.
        expired_at: Timestamp,
    },
    /// Restricted to other paths.
    #[error("this API key may not call {endpoint}")]
    Endpoint {
        /// The path it tried.
        endpoint: String,
    },
    /// Restricted to other networks.
    #[error("this API key may not be used from {address}")]
    Address {
        /// Where it came from.
        address: IpAddr,
    },
}

impl ApiKey {
    /// What the key is now, if it still opens anything at `now`.
    ///
    /// # Errors
    /// [`KeyDenial::Unknown`], [`KeyDenial::Revoked`] or [`KeyDenial::Expired`].
    pub fn standing(&self, now: Timestamp) -> Result<&ApiKeyIssued, KeyDenial> {
        let current = self.current.as_ref().ok_or(KeyDenial::Unknown)?;
        if self.revoked_at.is_some() {
            return Err(KeyDenial::Revoked);
        }
        match current.expires_at {
            Some(expired_at) if now >= expired_at => Err(KeyDenial::Expired { expired_at }),
            Some(_) | None => Ok(current),
        }
    }

    pub(super) fn fold(&mut self, event: &ApiKeyEvent) {
        match event {
            ApiKeyEvent::ApiKeyIssued(issued) => self.current = Some(issued.clone()),
            ApiKeyEvent::ApiKeyRevoked(revoked) => self.revoked_at = Some(revoked.revoked_at),
            ApiKeyEvent::ApiKeyChanged(changed) => {
                if let Some(current) = &mut self.current {
                    current.set(changed.settings.clone());
                }
            }
            ApiKeyEvent::ApiKeyRotated(rotated) => {
                if let Some(current) = &mut self.current {
                    let own_end = current.expires_at.unwrap_or(rotated.ends_at);
                    current.expires_at = Some(own_end.min(rotated.ends_at));
                }
                self.rotated = Some(rotated.clone());
            }
        }
    }
}

impl ApiKeyIssued {
    /// Under which key its calls count: the first of its line, so that a rotation hands out no fresh limits and budgets.
    #[must_use]
    pub fn counted_as(&self) -> &KeyId {
        self.line.as_ref().unwrap_or(&self.key_id)
    }

    /// Whether the key may call this path from this address. A restriction that cannot be read admits nobody.
    ///
    /// # Errors
    /// [`KeyDenial::Endpoint`] or [`KeyDenial::Address`].
    pub fn admits(&self, endpoint: &str, address: IpAddr) -> Result<(), KeyDenial> {
        let listed = |allowed: &Vec<String>| allowed.iter().any(|path| path == endpoint);
        if self.endpoints.as_ref().is_some_and(|allowed| !listed(allowed)) {
            return Err(KeyDenial::Endpoint { endpoint: endpoint.to_owned() });
        }
        let inside = |network: &String| network.parse::<Network>().is_ok_and(|network| network.contains(address));
        if self.ip_allowlist.as_ref().is_some_and(|allowed| !allowed.iter().any(inside)) {
            return Err(KeyDenial::Address { address });
        }
        Ok(())
    }

    /// Whether the key may name this model.
    #[must_use]
    pub fn admits_model(&self, model: &str) -> bool {
        self.models.as_ref().is_none_or(|allowed| lists_model(allowed, model))
    }
}

/// Whether a list of models names this one. A local model's name means its tag `latest` unless it says another.
#[must_use]
pub fn lists_model(listed: &[String], model: &str) -> bool {
    let model = model.strip_suffix(":latest").unwrap_or(model);
    listed.iter().any(|known| known.strip_suffix(":latest").unwrap_or(known) == model)
}
