//! What a key may do: whether it makes sense, and how a change makes another of it.

use super::{ApiKeyIssued, ApiKeyRefusal, KeySettings, Network};
use crate::{MicroUsd, Timestamp};

/// The longest name of a key, in characters.
pub const KEY_NAME_MAX_CHARACTERS: usize = 100;

/// The most entries in each list of restrictions.
pub const KEY_RESTRICTIONS_MAX: usize = 100;

/// The longest entry in a list of restrictions, in bytes.
pub const KEY_RESTRICTION_MAX_BYTES: usize = 200;

/// The most bytes all entries of a key's lists have together: a key is held in memory and told whole in a list.
pub const KEY_RESTRICTIONS_MAX_BYTES: usize = 8 * 1024;

/// What becomes of one setting.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Patch<T> {
    /// It stays as it is.
    #[default]
    Keep,
    /// It is there no more.
    Clear,
    /// It is this.
    Set(T),
}

impl<T> Patch<T> {
    fn apply(self, to: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Clear => *to = None,
            Self::Set(value) => *to = Some(value),
        }
    }
}

/// What is to change about a key; the default is nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeyChange {
    /// What people call it.
    pub name: Patch<String>,
    /// The only paths it may call.
    pub endpoints: Patch<Vec<String>>,
    /// The only models it may name.
    pub models: Patch<Vec<String>>,
    /// The only networks it may call from.
    pub ip_allowlist: Patch<Vec<String>>,
    /// Calls within any 60 seconds.
    pub per_minute: Option<u32>,
    /// Calls within any 3,600 seconds.
    pub per_hour: Option<u32>,
    /// Calls within any 86,400 seconds.
    pub per_day: Option<u32>,
    /// What it may spend in a day.
    pub budget_per_day: Patch<MicroUsd>,
    /// What it may spend in a month.
    pub budget_per_month: Patch<MicroUsd>,
    /// Until when.
    pub expires_at: Patch<Timestamp>,
}

impl KeyChange {
    /// The settings once it has taken place.
    pub(super) fn of(self, mut settings: KeySettings) -> KeySettings {
        self.name.apply(&mut settings.name);
        self.endpoints.apply(&mut settings.endpoints);
        self.models.apply(&mut settings.models);
        self.ip_allowlist.apply(&mut settings.ip_allowlist);
        self.budget_per_day.apply(&mut settings.budgets.per_day);
        self.budget_per_month.apply(&mut settings.budgets.per_month);
        self.expires_at.apply(&mut settings.expires_at);
        let limits = &mut settings.limits;
        limits.per_minute = self.per_minute.unwrap_or(limits.per_minute);
        limits.per_hour = self.per_hour.unwrap_or(limits.per_hour);
        limits.per_day = self.per_day.unwrap_or(limits.per_day);
        settings
    }
}

impl KeySettings {
    fn lists(&self) -> [&Option<Vec<String>>; 3] {
        [&self.endpoints, &self.models, &self.ip_allowlist]
    }

    /// Whether a key that did not have these lists may have them. One that has them from before keeps them, and so does
    /// the key that takes its place.
    ///
    /// # Errors
    /// [`ApiKeyRefusal::RestrictionsTooLarge`].
    pub fn check_size(&self) -> Result<(), ApiKeyRefusal> {
        let bytes = self.lists().into_iter().flatten().flatten().map(String::len).sum();
        if bytes > KEY_RESTRICTIONS_MAX_BYTES { Err(ApiKeyRefusal::RestrictionsTooLarge { bytes }) } else { Ok(()) }
    }

    pub(super) fn restricts_as(&self, other: &Self) -> bool {
        self.lists() == other.lists()
    }

    /// Whether a key like this makes sense at `at`.
    ///
    /// # Errors
    /// [`ApiKeyRefusal`], naming what does not.
    pub fn check(&self, at: Timestamp) -> Result<(), ApiKeyRefusal> {
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
        let budgets = [self.budgets.per_day, self.budgets.per_month];
        if let Some(budget) = budgets.into_iter().flatten().find(|budget| *budget < MicroUsd::ZERO) {
            return Err(ApiKeyRefusal::Budget { budget });
        }
        if self.expires_at.is_some_and(|expires_at| expires_at <= at) {
            return Err(ApiKeyRefusal::ExpiresInThePast);
        }
        Ok(())
    }
}

impl ApiKeyIssued {
    /// What of it can be changed.
    #[must_use]
    pub fn settings(&self) -> KeySettings {
        KeySettings {
            name: self.name.clone(),
            endpoints: self.endpoints.clone(),
            models: self.models.clone(),
            ip_allowlist: self.ip_allowlist.clone(),
            limits: self.limits,
            budgets: self.budgets,
            expires_at: self.expires_at,
        }
    }

    /// The same key with these settings.
    pub fn set(&mut self, settings: KeySettings) {
        let KeySettings { name, endpoints, models, ip_allowlist, limits, budgets, expires_at } = settings;
        self.name = name;
        self.endpoints = endpoints;
        self.models = models;
        self.ip_allowlist = ip_allowlist;
        self.limits = limits;
        self.budgets = budgets;
        self.expires_at = expires_at;
    }

    /// Whether a key like this makes sense; part of the decision, and asked beforehand where hashing comes between.
    ///
    /// # Errors
    /// [`ApiKeyRefusal`], naming what does not.
    pub fn check(&self) -> Result<(), ApiKeyRefusal> {
        self.settings().check(self.issued_at)
    }
}
