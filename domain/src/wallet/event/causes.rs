//! The words a wallet's events use: kinds, meters, causes.

use serde::{Deserialize, Serialize};

use crate::{GrantId, MicroUsd, Units};

/// How much of one grant a hold or a deduction takes, in burn order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Allocation {
    /// The grant it comes from.
    pub grant_id: GrantId,
    /// How much.
    pub amount: Units,
}

/// How much of what was paid for credit stops being owed as credit; summed per kind of grant.
///
/// After `gone` of a grant's `amount` units are spent, expired, claimed back or taken, `cost_basis - floor(cost_basis *
/// gone / amount)` is still owed: the last unit releases what is left of it, whatever the way there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CostReleased {
    /// Of which grants.
    pub kind: GrantKind,
    /// How much; negative when credit comes back.
    pub amount: MicroUsd,
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
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Trial, Self::Referral, Self::Subscription, Self::Purchase, Self::Goodwill, Self::Adjustment];

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

/// Why an approved adjustment grants or takes credit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdjustmentReason {
    /// Something was charged wrongly, or not at all.
    BillingError,
    /// For a service that was not what it should have been.
    ServiceCredit,
    /// A kindness.
    Goodwill,
    /// A balance brought over from elsewhere.
    Migration,
    /// Credit that was come by dishonestly.
    Fraud,
    /// A debt that will not be paid.
    WriteOff,
    /// What the evidence explains.
    Other,
}

impl AdjustmentReason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::BillingError,
        Self::ServiceCredit,
        Self::Goodwill,
        Self::Migration,
        Self::Fraud,
        Self::WriteOff,
        Self::Other,
    ];

    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BillingError => "billing_error",
            Self::ServiceCredit => "service_credit",
            Self::Goodwill => "goodwill",
            Self::Migration => "migration",
            Self::Fraud => "fraud",
            Self::WriteOff => "write_off",
            Self::Other => "other",
        }
    }
}

/// What a hold or a deduction is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meter {
    /// A model call; what events that do not say are about.
    #[default]
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

impl Meter {
    /// Every meter.
    pub const ALL: [Self; 5] = [Self::Chat, Self::Embeddings, Self::SmsOutbound, Self::SmsInbound, Self::Voice];

    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embeddings => "embeddings",
            Self::SmsOutbound => "sms_outbound",
            Self::SmsInbound => "sms_inbound",
            Self::Voice => "voice",
        }
    }

    /// Whether events leave it out.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    pub(super) const fn is_chat(&self) -> bool {
        matches!(self, Self::Chat)
    }
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
