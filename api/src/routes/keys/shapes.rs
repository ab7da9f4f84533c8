//! What requests about keys say, and what is shown of a key.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use calos_domain::api_key::{KeyBudgets, KeyChange, KeyLimits, KeySettings, Patch};
use calos_domain::wallet::Spending;
use calos_domain::{MicroUsd, TenantId};
use calos_projections::api_keys::ApiKey;

use crate::error::ApiError;
use crate::moment::{parse_rfc3339, rfc3339};

/// How long a rotated key goes on beside the new one when nothing is said: a day.
const OVERLAP_DEFAULT_SECONDS: i64 = 86_400;

/// How often a key may call; what is left out is as every key begins.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Limits {
    /// Calls within any 60 seconds; 60 when left out.
    per_minute: Option<u32>,
    /// Calls within any 3,600 seconds; 1,000 when left out.
    per_hour: Option<u32>,
    /// Calls within any 86,400 seconds; 10,000 when left out.
    per_day: Option<u32>,
}

/// What a key may spend.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Budgets {
    /// Micro-dollars from midnight to midnight, UTC; no budget when left out.
    per_day_micros: Option<i64>,
    /// Micro-dollars from the first of a month to the next, UTC; no budget when left out.
    per_month_micros: Option<i64>,
}

/// A key to be. Unknown fields are refused: a restriction that is spelt wrong must not be taken for none.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct KeyBody {
    /// What people call it, 1 to 100 characters.
    name: Option<String>,
    /// The only paths it may call, such as `/v1/chat/completions`.
    endpoints: Option<Vec<String>>,
    /// The only models it may name.
    models: Option<Vec<String>>,
    /// The only networks it may call from, in CIDR.
    ip_allowlist: Option<Vec<String>>,
    /// How often it may call.
    limits: Option<Limits>,
    /// What it may spend.
    budgets: Option<Budgets>,
    /// Until when, RFC 3339; for ever when left out.
    expires_at: Option<String>,
}

/// An endpoint that could never be called is a mistake.
fn check_paths(endpoints: Option<&Vec<String>>) -> Result<(), ApiError> {
    match endpoints.into_iter().flatten().find(|path| !path.starts_with('/')) {
        Some(path) => {
            Err(ApiError::field("endpoints", format!("{path} is no path; one looks like /v1/chat/completions")))
        }
        None => Ok(()),
    }
}

impl KeyBody {
    pub(super) fn settings(self) -> Result<KeySettings, ApiError> {
        check_paths(self.endpoints.as_ref())?;
        let usual = KeyLimits::default();
        let limits = self.limits.map_or(usual, |limits| KeyLimits {
            per_minute: limits.per_minute.unwrap_or(usual.per_minute),
            per_hour: limits.per_hour.unwrap_or(usual.per_hour),
            per_day: limits.per_day.unwrap_or(usual.per_day),
        });
        let budgets = self.budgets.unwrap_or_default();
        Ok(KeySettings {
            name: self.name.map(|name| name.trim().to_owned()),
            endpoints: self.endpoints,
            models: self.models,
            ip_allowlist: self.ip_allowlist,
            limits,
            budgets: KeyBudgets {
                per_day: budgets.per_day_micros.map(MicroUsd::new),
                per_month: budgets.per_month_micros.map(MicroUsd::new),
            },
            expires_at: self.expires_at.map(|text| parse_rfc3339("expiresAt", &text)).transpose()?,
        })
    }
}

/// Tells a field that is null from one that is not there.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

fn patch<T>(field: Option<Option<T>>) -> Patch<T> {
    match field {
        None => Patch::Keep,
        Some(None) => Patch::Clear,
        Some(Some(value)) => Patch::Set(value),
    }
}

/// What is to change about what a key may spend.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct BudgetsChange {
    /// Micro-dollars from midnight to midnight, UTC; null for no budget.
    #[serde(default, deserialize_with = "given")]
    per_day_micros: Option<Option<i64>>,
    /// Micro-dollars from the first of a month to the next, UTC; null for no budget.
    #[serde(default, deserialize_with = "given")]
    per_month_micros: Option<Option<i64>>,
}

/// What is to change about a key: what is left out stays, what is null is there no more.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ChangeBody {
    /// What people call it, 1 to 100 characters.
    #[serde(default, deserialize_with = "given")]
    name: Option<Option<String>>,
    /// The only paths it may call; null for all.
    #[serde(default, deserialize_with = "given")]
    endpoints: Option<Option<Vec<String>>>,
    /// The only models it may name; null for all.
    #[serde(default, deserialize_with = "given")]
    models: Option<Option<Vec<String>>>,
    /// The only networks it may call from, in CIDR; null for all.
    #[serde(default, deserialize_with = "given")]
    ip_allowlist: Option<Option<Vec<String>>>,
    /// How often it may call; a window that is left out stays.
    limits: Option<Limits>,
    /// What it may spend; null for no budget at all.
    #[serde(default, deserialize_with = "given")]
    budgets: Option<Option<BudgetsChange>>,
    /// Until when, RFC 3339; null for ever.
    #[serde(default, deserialize_with = "given")]
    expires_at: Option<Option<String>>,
}

impl ChangeBody {
    pub(super) fn change(self) -> Result<KeyChange, ApiError> {
        check_paths(self.endpoints.as_ref().and_then(Option::as_ref))?;
        let (budget_per_day, budget_per_month) = match self.budgets {
            None => (Patch::Keep, Patch::Keep),
            Some(None) => (Patch::Clear, Patch::Clear),
            Some(Some(budgets)) => {
                let micros = |field: Option<Option<i64>>| patch(field.map(|budget| budget.map(MicroUsd::new)));
                (micros(budgets.per_day_micros), micros(budgets.per_month_micros))
            }
        };
        let expires_at = match self.expires_at {
            None => Patch::Keep,
            Some(None) => Patch::Clear,
            Some(Some(text)) => Patch::Set(parse_rfc3339("expiresAt", &text)?),
        };
        Ok(KeyChange {
            name: patch(self.name.map(|name| name.map(|name| name.trim().to_owned()))),
            endpoints: patch(self.endpoints),
            models: patch(self.models),
            ip_allowlist: patch(self.ip_allowlist),
            per_minute: self.limits.and_then(|limits| limits.per_minute),
            per_hour: self.limits.and_then(|limits| limits.per_hour),
            per_day: self.limits.and_then(|limits| limits.per_day),
            budget_per_day,
            budget_per_month,
            expires_at,
        })
    }
}

/// A rotation.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RotateBody {
    /// How long both keys open, 0 to 604,800 seconds; 86,400 when left out.
    overlap_seconds: Option<i64>,
}

impl RotateBody {
    pub(super) fn overlap_seconds(&self) -> i64 {
        self.overlap_seconds.unwrap_or(OVERLAP_DEFAULT_SECONDS)
    }
}

/// A key that was issued. `key` is shown here and never again.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct IssuedKey {
    /// The half it is looked up by.
    pub(super) key_id: String,
    /// The whole key: keep it, it is shown only once.
    pub(super) key: String,
    /// What the key begins with, up to its secret half.
    pub(super) prefix: String,
    /// Its last four characters.
    pub(super) last_four: String,
    /// When, RFC 3339.
    pub(super) created_at: String,
}

/// A key that takes another's place.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RotatedKey {
    /// The new key.
    #[serde(flatten)]
    pub(super) issued: IssuedKey,
    /// The key whose place it takes.
    pub(super) replaces: String,
    /// Until when both open, RFC 3339, unless the old one ends by itself before.
    pub(super) overlap_ends_at: String,
}

/// What a key begins with, up to its secret half: enough to find it by, useless for calling.
pub(super) fn prefix(tenant_id: TenantId, key_id: &str) -> String {
    format!("sk-tenant-{tenant_id}-{key_id}")
}

/// How often a key may call, as it is shown.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ShownLimits {
    /// Calls within any 60 seconds.
    per_minute: i64,
    /// Calls within any 3,600 seconds.
    per_hour: i64,
    /// Calls within any 86,400 seconds.
    per_day: i64,
}

/// What a key may spend, as it is shown.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ShownBudgets {
    /// Micro-dollars from midnight to midnight, UTC; null without a budget.
    per_day_micros: Option<i64>,
    /// Micro-dollars from the first of a month to the next, UTC; null without a budget.
    per_month_micros: Option<i64>,
}

/// What a key may do, as it is shown.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShownSettings {
    /// What people call it.
    name: Option<String>,
    /// The only paths it may call; null without a restriction.
    endpoints: Option<Vec<String>>,
    /// The only models it may name; null without a restriction.
    models: Option<Vec<String>>,
    /// The only networks it may call from; null without a restriction.
    ip_allowlist: Option<Vec<String>>,
    /// How often it may call.
    limits: ShownLimits,
    /// What it may spend.
    budgets: ShownBudgets,
    /// Until when, RFC 3339; null for ever.
    expires_at: Option<String>,
}

impl ShownSettings {
    pub(super) fn new(settings: KeySettings) -> Result<Self, ApiError> {
        let limits = settings.limits;
        Ok(Self {
            name: settings.name,
            endpoints: settings.endpoints,
            models: settings.models,
            ip_allowlist: settings.ip_allowlist,
            limits: ShownLimits {
                per_minute: limits.per_minute.into(),
                per_hour: limits.per_hour.into(),
                per_day: limits.per_day.into(),
            },
            budgets: ShownBudgets {
                per_day_micros: settings.budgets.per_day.map(MicroUsd::get),
                per_month_micros: settings.budgets.per_month.map(MicroUsd::get),
            },
            expires_at: settings.expires_at.map(rfc3339).transpose()?,
        })
    }
}

/// A key after a change.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChangedKey {
    /// The half it is looked up by.
    pub(super) key_id: String,
    /// What it may do from now on.
    #[serde(flatten)]
    pub(super) settings: ShownSettings,
}

/// What a key has spent. A call belongs to the day and month it was let in, in UTC.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ShownSpending {
    /// Micro-dollars today.
    today_micros: i64,
    /// Micro-dollars this month.
    this_month_micros: i64,
    /// Micro-dollars its calls in flight keep.
    held_micros: i64,
}

/// A key as people see it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyLine {
    /// The half it is looked up by.
    key_id: String,
    /// What the key begins with, up to its secret half.
    prefix: String,
    /// Its last four characters.
    last_four: String,
    /// What it may do.
    #[serde(flatten)]
    settings: ShownSettings,
    /// What it has spent.
    spending: ShownSpending,
    /// The key whose place it took.
    replaces: Option<String>,
    /// The key that took its place; it ends with their overlap.
    replaced_by: Option<String>,
    /// Who issued it.
    issued_by: Uuid,
    /// When, RFC 3339.
    created_at: String,
    /// Since when it opens nothing any more, RFC 3339.
    revoked_at: Option<String>,
}

impl KeyLine {
    pub(super) fn new(row: ApiKey, [today, this_month]: [Spending; 2]) -> Result<Self, ApiError> {
        let [per_minute, per_hour, per_day] = row.limits;
        let [per_day_micros, per_month_micros] = row.budgets;
        Ok(Self {
            prefix: prefix(row.tenant_id, &row.key_id),
            key_id: row.key_id,
            last_four: row.last_four,
            settings: ShownSettings {
                name: row.name,
                endpoints: row.endpoints,
                models: row.models,
                ip_allowlist: row.ip_allowlist,
                limits: ShownLimits { per_minute, per_hour, per_day },
                budgets: ShownBudgets { per_day_micros, per_month_micros },
                expires_at: row.expires_at.map(rfc3339).transpose()?,
            },
            spending: ShownSpending {
                today_micros: today.spent.get(),
                this_month_micros: this_month.spent.get(),
                held_micros: this_month.held.get(),
            },
            replaces: row.replaces,
            replaced_by: row.replaced_by,
            issued_by: row.issued_by.0,
            created_at: rfc3339(row.issued_at)?,
            revoked_at: row.revoked_at.map(rfc3339).transpose()?,
        })
    }
}

/// A tenant's keys, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct KeyList {
    /// The keys, revoked ones included.
    pub(super) keys: Vec<KeyLine>,
}
