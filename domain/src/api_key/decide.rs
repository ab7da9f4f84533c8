//! Which events a command on a key leads to.

use super::{
    ApiKey, ApiKeyChanged, ApiKeyEvent, ApiKeyIssued, ApiKeyRevoked, ApiKeyRotated, KEY_NAME_MAX_CHARACTERS,
    KEY_RESTRICTION_MAX_BYTES, KEY_RESTRICTIONS_MAX, KEY_RESTRICTIONS_MAX_BYTES, KeyChange, KeyDenial,
};
use crate::time::MICROS_PER_SECOND;
use crate::{Decider, KeyId, MicroUsd, Timestamp, UserId};

/// How long a rotated key may go on beside the one that takes its place: a week.
pub const ROTATION_OVERLAP_MAX_SECONDS: i64 = 604_800;

/// What can be asked of a key.
#[derive(Clone, PartialEq, Debug)]
pub enum ApiKeyCommand {
    /// Issue it.
    Issue(ApiKeyIssued),
    /// Let it do other things.
    Change {
        /// What is to change.
        change: KeyChange,
        /// Who changes it.
        by: UserId,
        /// When.
        at: Timestamp,
    },
    /// Let another key take its place.
    Rotate(ApiKeyRotated),
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
    /// The lists of restrictions are too long together.
    #[error("a key's lists take {KEY_RESTRICTIONS_MAX_BYTES} bytes together, these have {bytes}; shorten one")]
    RestrictionsTooLarge {
        /// How long they are.
        bytes: usize,
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
    /// A budget below zero.
    #[error("a budget of {budget} micro-dollars is below zero; leave it out for none")]
    Budget {
        /// As asked.
        budget: MicroUsd,
    },
    /// It would have expired already.
    #[error("a key cannot expire in the past")]
    ExpiresInThePast,
    /// The key opens nothing any more, so there is nothing to change about it.
    #[error(transparent)]
    Ended(KeyDenial),
    /// Another key has taken its place already.
    #[error("the key {0} has taken this key's place already; rotate that one")]
    AlreadyRotated(KeyId),
    /// Another key has taken its place, so it cannot last longer than their overlap.
    #[error("another key has taken this key's place, so it ends with their overlap at the latest")]
    Replaced {
        /// The end of the overlap.
        ends_at: Timestamp,
    },
    /// An overlap that is too long, or ends before it begins.
    #[error("two keys overlap for 0 to {ROTATION_OVERLAP_MAX_SECONDS} seconds")]
    Overlap,
}

impl ApiKey {
    /// What it is now, for a command that needs it to open something still.
    fn standing_for_command(&self, at: Timestamp) -> Result<&ApiKeyIssued, ApiKeyRefusal> {
        self.standing(at).map_err(|denial| match denial {
            KeyDenial::Unknown => ApiKeyRefusal::NotIssued,
            KeyDenial::Revoked | KeyDenial::Expired { .. } | KeyDenial::Endpoint { .. } | KeyDenial::Address { .. } => {
                ApiKeyRefusal::Ended(denial)
            }
        })
    }

    fn change(&self, change: KeyChange, by: UserId, at: Timestamp) -> Result<Vec<ApiKeyEvent>, ApiKeyRefusal> {
        let before = self.standing_for_command(at)?.settings();
        let settings = change.of(before.clone());
        if settings == before {
            return Ok(Vec::new());
        }
        settings.check(at)?;
        if !settings.restricts_as(&before) {
            settings.check_size()?;
        }
        if let Some(rotated) = &self.rotated
            && settings.expires_at.is_none_or(|expires_at| expires_at > rotated.ends_at)
        {
            return Err(ApiKeyRefusal::Replaced { ends_at: rotated.ends_at });
        }
        Ok(vec![ApiKeyEvent::ApiKeyChanged(ApiKeyChanged { settings, changed_by: by, changed_at: at })])
    }

    fn rotate(&self, rotated: ApiKeyRotated) -> Result<Vec<ApiKeyEvent>, ApiKeyRefusal> {
        if let Some(known) = &self.rotated {
            let same = known.replaced_by == rotated.replaced_by;
            return if same { Ok(Vec::new()) } else { Err(ApiKeyRefusal::AlreadyRotated(known.replaced_by.clone())) };
        }
        self.standing_for_command(rotated.rotated_at)?;
        let overlap_micros = rotated.ends_at.micros().saturating_sub(rotated.rotated_at.micros());
        if !(0..=ROTATION_OVERLAP_MAX_SECONDS * MICROS_PER_SECOND).contains(&overlap_micros) {
            return Err(ApiKeyRefusal::Overlap);
        }
        Ok(vec![ApiKeyEvent::ApiKeyRotated(rotated)])
    }
}

impl Decider for ApiKey {
    const KIND: &'static str = "api_key";
    const SNAPSHOT_VERSION: i32 = 3;
    type Command = ApiKeyCommand;
    type Event = ApiKeyEvent;
    type Refusal = ApiKeyRefusal;

    fn decide(&self, command: ApiKeyCommand) -> Result<Vec<ApiKeyEvent>, ApiKeyRefusal> {
        match (command, &self.current) {
            (ApiKeyCommand::Issue(issue), None) => {
                issue.check()?;
                if issue.replaces.is_none() {
                    issue.settings().check_size()?;
                }
                Ok(vec![ApiKeyEvent::ApiKeyIssued(issue)])
            }
            // A hash is salted, so no other key has the same, whatever was changed about this one since.
            (ApiKeyCommand::Issue(issue), Some(known)) if issue.secret_hash == known.secret_hash => Ok(Vec::new()),
            (ApiKeyCommand::Issue(_), Some(_)) => Err(ApiKeyRefusal::AlreadyIssued),
            (ApiKeyCommand::Change { change, by, at }, _) => self.change(change, by, at),
            (ApiKeyCommand::Rotate(rotated), _) => self.rotate(rotated),
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
        let issued = self.current.as_ref().map_or(0, |issued| {
            issued.secret_hash.len()
                + issued.name.as_ref().map_or(0, String::len)
                + list(&issued.endpoints)
                + list(&issued.models)
                + list(&issued.ip_allowlist)
        });
        std::mem::size_of::<Self>() + issued
    }
}
