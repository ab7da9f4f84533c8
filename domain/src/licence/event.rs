//! What can happen to a licence.

use serde::{Deserialize, Serialize};

use crate::tiers::Tier;
use crate::{TenantId, Timestamp, UsageId};

/// Everything that happens to a licence. Stored as `{"<name>": {…}}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LicenceEvent {
    /// The tenant has a licence.
    LicenceIssued(LicenceIssued),
    /// Its terms changed.
    TierChanged(TierChanged),
    /// Tokens of a period were used.
    TokensUsed(TokensUsed),
}

crate::facts!(LicenceEvent {
    LicenceIssued => "licence_issued" v "1",
    TierChanged => "tier_changed" v "1",
    TokensUsed => "tokens_used" v "1",
});

/// Whether a licence may be used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LicenceStatus {
    /// It may.
    Active,
    /// Not for now: a payment is missing.
    Suspended,
    /// Not any more.
    Cancelled,
}

/// See [`LicenceEvent::LicenceIssued`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LicenceIssued {
    /// Whose.
    pub tenant_id: TenantId,
    /// The tier.
    pub tier: Tier,
    /// What CALOS adds to a provider's price, in percent.
    pub markup_percent: u32,
    /// Tokens one period allows; none for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_limit: Option<u64>,
    /// Beginning of the first period.
    pub period_start: Timestamp,
    /// Its end, and the beginning of the next one: periods repeat with this length.
    pub period_end: Timestamp,
    /// Whether it may be used.
    pub status: LicenceStatus,
}

/// See [`LicenceEvent::TierChanged`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TierChanged {
    /// The tier before.
    pub from: Tier,
    /// The tier from now on.
    pub to: Tier,
    /// What CALOS adds to a provider's price from now on, in percent.
    pub markup_percent: u32,
    /// Tokens one period allows from now on; none for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_limit: Option<u64>,
    /// When.
    pub changed_at: Timestamp,
}

/// See [`LicenceEvent::TokensUsed`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokensUsed {
    /// The use.
    pub usage_id: UsageId,
    /// Tokens in and out.
    pub tokens: u64,
    /// Beginning of the period they count in; a later one than before begins a new count.
    pub period_start: Timestamp,
    /// Tokens used in that period, these included.
    pub used_after: u64,
}
