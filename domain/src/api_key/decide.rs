//! Which events a command on a key leads to.

use super::{ApiKey, ApiKeyEvent, ApiKeyIssued, ApiKeyRevoked, Network};
use crate::{Decider, Timestamp, UserId};

/// The longest name of a key, in characters.
pub const KEY_NAME_MAX_CHARACTERS: usize = 100;

/// The most entries in each list of restrictions.
pub const KEY_RESTRICTIONS_MAX: usize = 100;

/// The longest entry in a list of restrictions, in bytes.
pub const KEY_RESTRICTION_MAX_BYTES: usize = 200;

/// What can be asked of a key.
#[expect(clippy::large_enum_variant, reason = "a command is decided at once, never kept in numbers")]
#[derive(Clone, PartialEq, Debug)]
pub enum ApiKeyCommand {
    /// Issue it.
    Issue(ApiKeyIssued),
    /// Let it open nothing any more.
    Revoke {
        /// Who revokes it.
        by: UserId,
        /// When.
        at: Timestamp,
    },
}

/// Why a key refuses.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ApiKeyRefusal {
    /// The id belongs to another key.
    #[error("this key id is in use")]
    AlreadyIssued,
    /// There is no such key.
    #[error("there is no such API key")]
    NotIssued,
    /// The name is empty or too long.
    #[error("a key's name has 1 to {KEY_NAME_MAX_CHARACTERS} characters, this one has {characters}")]
    NameLength {
        /// How long it is.
        characters: usize,
    },
    /// A list of restrictions is empty, which would lock everybody out, or too long, or has an unusable entry.
    #[error(
        "{list} takes 1 to {KEY_RESTRICTIONS_MAX} entries of 1 to {KEY_RESTRICTION_MAX_BYTES} bytes; leave it out for \
         no restriction"
    )]
    Restrictions {
        /// Which list.
        list: &'static str,
    },
    /// An entry of the allow-list is no network.
    #[error("{entry} is no network; one looks like 203.0.113.0/24, 2001:db8::/32 or a single address")]
    NotANetwork {
        /// The entry.
        entry: String,
    },
    /// A limit of zero, or one that a longer window makes unreachable.
    #[error("limits must be at least 1 and may not shrink: {per_minute} a minute, {per_hour} an hour, {per_day} a day")]
    Limits {
        /// As asked.
        per_minute: u32,
        /// As asked.
        per_hour: u32,
        /// As asked.
        per_day: u32,
    },
    /// It would have expired before it was issued.
    #[error("a key cannot expire before it is issued")]
    ExpiresInThePast,
}

impl ApiKeyIssued {
    /// Whether a key like this makes sense; part of the decision, and asked beforehand where hashing comes between.
    ///
    /// # Errors
    /// [`ApiKeyRefusal`], naming what does not.
    pub fn check(&self) -> Result<(), ApiKeyRefusal> {
        if let Some(name) = &self.name {
            let characters = name.chars().count();
            if name.trim().is_empty() || characters > KEY_NAME_MAX_CHARACTERS {
                return Err(ApiKeyRefusal::NameLength { characters });
            }
        }
        let lists = [("endpoints", &self.endpoints), ("models", &self.models), ("ipAllowlist", &self.ip_allowlist)];
        for (list, entries) in lists {
            let Some(entries) = entries else { continue };
            let usable = |entry: &String| !entry.is_empty() && entry.len() <= KEY_RESTRICTION_MAX_BYTES;
            if entries.is_empty() || entries.len() > KEY_RESTRICTIONS_MAX || !entries.iter().all(usable) {
                return Err(ApiKeyRefusal::Restrictions { list });
            }
        }
        let mut networks = self.ip_allowlist.iter().flatten();
        if let Some(entry) = networks.find(|entry| entry.parse::<Network>().is_err()) {
            return Err(ApiKeyRefusal::NotANetwork { entry: entry.clone() });
        }
        let limits = self.limits;
        if limits.per_minute == 0 || limits.per_hour < limits.per_minute || limits.per_day < limits.per_hour {
            return Err(ApiKeyRefusal::Limits {
                per_minute: limits.per_minute,
                per_hour: limits.per_hour,
                per_day: limits.per_day,
            });
        }
        if self.expires_at.is_some_and(|expires_at| expires_at <= self.issued_at) {
            return Err(ApiKeyRefusal::ExpiresInThePast);
        }
        Ok(())
    }
}

impl Decider for ApiKey {
    const KIND: &'static str = "api_key";
    const SNAPSHOT_VERSION: i32 = 1;
    type Command = ApiKeyCommand;
    type Event = ApiKeyEvent;
    type Refusal = ApiKeyRefusal;

    fn decide(&self, command: ApiKeyCommand) -> Result<Vec<ApiKeyEvent>, ApiKeyRefusal> {
        match (command, &self.issued) {
            (ApiKeyCommand::Issue(issue), None) => {
                issue.check()?;
                Ok(vec![ApiKeyEvent::ApiKeyIssued(issue)])
            }
            (ApiKeyCommand::Issue(issue), Some(known)) if issue == *known => Ok(Vec::new()),
            (ApiKeyCommand::Issue(_), Some(_)) => Err(ApiKeyRefusal::AlreadyIssued),
            (ApiKeyCommand::Revoke { .. }, None) => Err(ApiKeyRefusal::NotIssued),
            (ApiKeyCommand::Revoke { .. }, Some(_)) if self.revoked_at.is_some() => Ok(Vec::new()),
            (ApiKeyCommand::Revoke { by, at }, Some(_)) => {
                Ok(vec![ApiKeyEvent::ApiKeyRevoked(ApiKeyRevoked { revoked_by: by, revoked_at: at })])
            }
        }
    }

    fn evolve(&mut self, event: &ApiKeyEvent) {
        self.fold(event);
    }

    fn weight_bytes(&self) -> usize {
        let list = |entries: &Option<Vec<String>>| {
            entries.iter().flatten().map(|entry| std::mem::size_of::<String>() + entry.len()).sum::<usize>()
        };
        let issued = self.issued.as_ref().map_or(0, |issued| {
            issued.secret_hash.len()
                + issued.name.as_ref().map_or(0, String::len)
                + list(&issued.endpoints)
                + list(&issued.models)
                + list(&issued.ip_allowlist)
        });
        std::mem::size_of::<Self>() + issued
    }
}
