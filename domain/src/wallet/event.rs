//! What can happen to a wallet: how credit comes in, is held and spent. `causes` holds the words the events use, and
//! `corrections` what takes back, restores and settles.

mod causes;
mod corrections;

use serde::{Deserialize, Serialize};

use crate::{Asset, GrantId, HoldId, KeyId, MicroUsd, TenantId, Timestamp, Units, UsageId, UserId};

pub use causes::*;
pub use corrections::*;

/// Everything that moves a wallet. Stored as `{"<name>": {…}}`.
///
/// `available_after` on each movement is what the asset's available balance was once the event had been folded in:
/// a running balance that a reader can show and an auditor can check without summing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalletEvent {
    /// The wallet exists.
    WalletOpened(WalletOpened),
    /// Credit came in.
    CreditsGranted(CreditsGranted),
    /// Credit was reserved for one use.
    HoldPlaced(HoldPlaced),
    /// A use was metered; in the same append as its deduction.
    UsageRecorded(UsageRecorded),
    /// Credit was spent.
    CreditsDeducted(CreditsDeducted),
    /// A reservation ended without being spent.
    HoldReleased(HoldReleased),
    /// A deduction was undone, in whole or in part.
    DeductionReversed(DeductionReversed),
    /// What was left of a grant ran out of time.
    GrantExpired(GrantExpired),
    /// What was left of a grant was taken back.
    GrantVoided(GrantVoided),
    /// A claim on a grant came to nothing: what it took comes back.
    GrantRestored(GrantRestored),
    /// An approved correction took credit.
    CreditsTaken(CreditsTaken),
    /// The tenant owes more than it holds.
    DebtIncurred(DebtIncurred),
    /// A grant paid debt before anything else.
    DebtRepaid(DebtRepaid),
    /// Nothing may be spent until thawed.
    WalletFrozen(WalletFrozen),
    /// One reason to freeze is gone; spending is allowed again once none is left.
    WalletThawed(WalletThawed),
}

crate::facts!(WalletEvent {
    WalletOpened => "wallet_opened" v "1",
    CreditsGranted => "credits_granted" v "1",
    HoldPlaced => "hold_placed" v "1",
    UsageRecorded => "usage_recorded" v "1",
    CreditsDeducted => "credits_deducted" v "1",
    HoldReleased => "hold_released" v "1",
    DeductionReversed => "deduction_reversed" v "1",
    GrantExpired => "grant_expired" v "1",
    GrantVoided => "grant_voided" v "1",
    GrantRestored => "grant_restored" v "1",
    CreditsTaken => "credits_taken" v "1",
    DebtIncurred => "debt_incurred" v "1",
    DebtRepaid => "debt_repaid" v "1",
    WalletFrozen => "wallet_frozen" v "1",
    WalletThawed => "wallet_thawed" v "1",
});

/// See [`WalletEvent::WalletOpened`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WalletOpened {
    /// Whose wallet.
    pub tenant_id: TenantId,
    /// When.
    pub opened_at: Timestamp,
}

/// See [`WalletEvent::CreditsGranted`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CreditsGranted {
    /// The grant's id: the same id twice grants once.
    pub grant_id: GrantId,
    /// In which asset.
    pub asset: Asset,
    /// Why.
    pub kind: GrantKind,
    /// How much.
    pub amount: Units,
    /// Lower burns first.
    pub priority: i16,
    /// From when it counts.
    pub effective_at: Timestamp,
    /// Until when, if not for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What was really paid for it.
    pub cost_basis: MicroUsd,
    /// Where it comes from: `registration:<user>`, an invoice id, an adjustment id.
    pub source_ref: String,
    /// What it corrects, when it is an approved adjustment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<AdjustmentReason>,
    /// Available balance of the asset afterwards.
    pub available_after: Units,
}

/// See [`WalletEvent::HoldPlaced`]. The rate-limit read model counts these.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HoldPlaced {
    /// The hold's id, UUIDv7.
    pub hold_id: HoldId,
    /// In which asset.
    pub asset: Asset,
    /// How much; may be zero for a free route, which is still counted.
    pub amount: Units,
    /// From which grants, in burn order.
    pub allocations: Vec<Allocation>,
    /// For what.
    pub meter: Meter,
    /// The key that called, when a key called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_id: Option<KeyId>,
    /// The key under which the call counts, when that is another: the first of the line of rotated keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<KeyId>,
    /// The person who called, when one did in a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The use this pays for.
    pub usage_id: UsageId,
    /// When the request was let in; for one caller it never goes back by a difference of clocks.
    pub admitted_at: Timestamp,
    /// When the hold returns by itself.
    pub expires_at: Timestamp,
    /// Available balance of the asset afterwards.
    pub available_after: Units,
}

/// See [`WalletEvent::UsageRecorded`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UsageRecorded {
    /// The use.
    pub usage_id: UsageId,
    /// For what.
    pub meter: Meter,
    /// The key that called, when a key called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_id: Option<KeyId>,
    /// Who served it: `openai`, `ollama`, `twilio`, ….
    pub provider: String,
    /// The model that answered, by the provider's name for it; empty where there is none.
    pub model: String,
    /// Tokens in, cached ones included.
    pub prompt_tokens: u64,
    /// Tokens out, reasoning included.
    pub completion_tokens: u64,
    /// Of the tokens in: read from the provider's cache.
    pub cached_tokens: u64,
    /// Of the tokens in: written to the provider's cache, where that has a price of its own.
    #[serde(default)]
    pub cache_write_tokens: u64,
    /// Of the tokens in: written to the provider's cache for an hour, beside those above.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_write_hour_tokens: u64,
    /// Of the tokens out: spent on reasoning.
    pub reasoning_tokens: u64,
    /// What the provider charges CALOS.
    pub provider_cost: MicroUsd,
    /// What CALOS adds.
    pub markup: MicroUsd,
    /// What the tenant pays: `provider_cost + markup`.
    pub total: MicroUsd,
    /// Whether the tenant's own provider key was used; then the total is the fee alone.
    pub byok: bool,
    /// Whether the token counts are our own count because the provider reported none.
    pub estimated: bool,
    /// The price book the figures follow.
    pub price_book_version: String,
    /// From admission to the last byte.
    pub latency_ms: u64,
    /// The task the router was asked for: `chat`, `code`, `summarization`, ….
    pub task_type: String,
    /// How it ended.
    pub outcome: UsageOutcome,
    /// What was tried in vain before this model answered, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_attempts: Vec<FailedAttempt>,
}

/// A model that was tried and did not answer; it costs the tenant nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FailedAttempt {
    /// Who was asked.
    pub provider: String,
    /// For which model.
    pub model: String,
    /// Why there was no answer: `unreachable`, `timeout`, `status_503`, `circuit_open`, ….
    pub failure: String,
}

/// See [`WalletEvent::CreditsDeducted`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CreditsDeducted {
    /// The use this pays for.
    pub usage_id: UsageId,
    /// The hold it settles; none for a use that could not be held for beforehand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_id: Option<HoldId>,
    /// For what.
    #[serde(default, skip_serializing_if = "Meter::is_chat")]
    pub meter: Meter,
    /// In which asset.
    pub asset: Asset,
    /// How much was spent.
    pub amount: Units,
    /// From which grants, in burn order.
    pub allocations: Vec<Allocation>,
    /// What the hold kept that this ends; zero when it ends no open hold. What was spent beyond it came from available.
    pub held: Units,
    /// How much of the hold went back to available.
    pub returned: Units,
    /// To which grants it went back; sums to `returned`. Events written before this was recorded have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub returned_to: Vec<Allocation>,
    /// What was paid for the credit that was spent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub released: Vec<CostReleased>,
    /// Available balance of the asset afterwards.
    pub available_after: Units,
}

/// See [`WalletEvent::HoldReleased`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HoldReleased {
    /// The hold.
    pub hold_id: HoldId,
    /// The use it was for.
    pub usage_id: UsageId,
    /// In which asset.
    pub asset: Asset,
    /// How much went back.
    pub amount: Units,
    /// To which grants it went back; sums to `amount`. Events written before this was recorded have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub returned_to: Vec<Allocation>,
    /// Why.
    pub cause: ReleaseCause,
    /// Available balance of the asset afterwards.
    pub available_after: Units,
}

/// See [`WalletEvent::WalletFrozen`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WalletFrozen {
    /// Why.
    pub cause: FreezeCause,
    /// The dispute or case behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ref: Option<String>,
}

/// See [`WalletEvent::WalletThawed`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WalletThawed {
    /// Why.
    pub cause: FreezeCause,
    /// The dispute or case that ended; none ends the cause with all that stands behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ref: Option<String>,
}

/// For fields that are left out while they say nothing.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}
