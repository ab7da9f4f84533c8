//! What can happen to a wallet.

use serde::{Deserialize, Serialize};

use crate::{Asset, GrantId, HoldId, KeyId, MicroUsd, TenantId, Timestamp, Units, UsageId, UserId};

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
    DebtIncurred => "debt_incurred" v "1",
    DebtRepaid => "debt_repaid" v "1",
    WalletFrozen => "wallet_frozen" v "1",
    WalletThawed => "wallet_thawed" v "1",
});

/// How much of one grant a hold or a deduction takes, in burn order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Allocation {
    /// The grant it comes from.
    pub grant_id: GrantId,
    /// How much.
    pub amount: Units,
}

/// Why credit was granted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantKind {
    /// The free start, once.
    Trial,
    /// For bringing or being brought.
    Referral,
    /// Included in a paid period.
    Subscription,
    /// Bought.
    Purchase,
    /// A kindness.
    Goodwill,
    /// An approved correction.
    Adjustment,
}

impl GrantKind {
    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trial => "trial",
            Self::Referral => "referral",
            Self::Subscription => "subscription",
            Self::Purchase => "purchase",
            Self::Goodwill => "goodwill",
            Self::Adjustment => "adjustment",
        }
    }
}

/// What a hold or a deduction is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meter {
    /// A model call.
    Chat,
    /// An embedding call.
    Embeddings,
    /// A message out.
    SmsOutbound,
    /// A message in.
    SmsInbound,
    /// A call forwarded, per started minute.
    Voice,
}

/// Why a hold ended unspent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseCause {
    /// The request was given up before it began.
    Voided,
    /// Its owner died; time ran out.
    Expired,
    /// The provider gave nothing.
    ProviderFailed,
    /// The client left before anything was produced.
    ClientGone,
    /// The receiver does not want messages.
    OptedOut,
}

/// Why a tenant owes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DebtCause {
    /// A settled use cost more than was held and available.
    Overrun,
    /// A refund of credit that was already spent.
    Refund,
    /// A dispute over credit that was already spent.
    Dispute,
    /// Something arrived that had to be taken in without credit.
    InboundWithoutCredit,
}

/// Why a wallet is frozen or thawed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FreezeCause {
    /// A card dispute is open, or was closed.
    Dispute,
    /// Fraud is suspected, or was ruled out.
    Fraud,
    /// An operator's decision.
    Operator,
}

/// How a metered use ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageOutcome {
    /// To its end.
    Completed,
    /// The client left midway; what was produced is charged.
    ClientGone,
    /// The provider broke off midway; what was produced is charged.
    ProviderFailed,
}

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
    /// Why.
    pub cause: ReleaseCause,
    /// Available balance of the asset afterwards.
    pub available_after: Units,
}

/// See [`WalletEvent::DeductionReversed`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeductionReversed {
    /// The use whose deduction is undone.
    pub usage_id: UsageId,
    /// In which asset.
    pub asset: Asset,
    /// How much came back.
    pub amount: Units,
    /// The suffix of the deduction's allocations, last burnt first.
    pub allocations: Vec<Allocation>,
    /// Why, in words an auditor can read.
    pub reason: String,
    /// Available balance of the asset afterwards.
    pub available_after: Units,
}

/// See [`WalletEvent::GrantExpired`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GrantExpired {
    /// The grant.
    pub grant_id: GrantId,
    /// In which asset.
    pub asset: Asset,
    /// How much was left unheld and unspent.
    pub amount: Units,
    /// Available balance of the asset afterwards.
    pub available_after: Units,
}

/// See [`WalletEvent::GrantVoided`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GrantVoided {
    /// The grant.
    pub grant_id: GrantId,
    /// In which asset.
    pub asset: Asset,
    /// How much the refund, dispute or decision claims; what was already spent or is held of it becomes debt.
    pub claimed: Units,
    /// How much was unspent and is taken back; may be zero.
    pub amount: Units,
    /// The refund, dispute or decision behind it: the same reference twice takes once.
    pub source_ref: String,
    /// Available balance of the asset afterwards.
    pub available_after: Units,
}

/// See [`WalletEvent::DebtIncurred`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DebtIncurred {
    /// In which asset.
    pub asset: Asset,
    /// How much more is owed.
    pub amount: Units,
    /// Why.
    pub cause: DebtCause,
    /// The use, refund or dispute behind it.
    pub source_ref: String,
    /// What is owed altogether afterwards.
    pub debt_after: Units,
}

/// See [`WalletEvent::DebtRepaid`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DebtRepaid {
    /// In which asset.
    pub asset: Asset,
    /// How much less is owed.
    pub amount: Units,
    /// The grant that paid; the amount counts as spent from it.
    pub grant_id: GrantId,
    /// What is owed altogether afterwards.
    pub debt_after: Units,
    /// Available balance of the asset afterwards.
    pub available_after: Units,
}

/// See [`WalletEvent::WalletFrozen`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WalletFrozen {
    /// Why.
    pub cause: FreezeCause,
}

/// See [`WalletEvent::WalletThawed`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WalletThawed {
    /// Why.
    pub cause: FreezeCause,
}

/// For fields that are left out while they say nothing.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}
