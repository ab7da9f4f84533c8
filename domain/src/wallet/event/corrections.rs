//! What takes credit back, restores it, and settles what is owed.

use serde::{Deserialize, Serialize};

use crate::{AdjustmentId, Asset, GrantId, Timestamp, Units, UsageId};

use super::{AdjustmentReason, Allocation, CostReleased, DebtCause, Meter};

/// See [`WalletEvent::DeductionReversed`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeductionReversed {
    /// The use whose deduction is undone.
    pub usage_id: UsageId,
    /// For what it was.
    #[serde(default, skip_serializing_if = "Meter::is_chat")]
    pub meter: Meter,
    /// In which asset.
    pub asset: Asset,
    /// How much came back.
    pub amount: Units,
    /// The suffix of the deduction's allocations, last burnt first.
    pub allocations: Vec<Allocation>,
    /// Why, in words an auditor can read.
    pub reason: String,
    /// What was paid for the credit that came back, negative.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub released: Vec<CostReleased>,
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
    /// How much was left unheld and unspent; zero when that much was only to be put on record.
    pub amount: Units,
    /// The grant's own end. None for what came back only after it and ran out as it did: that counts from when it was
    /// recorded. Events written before this was recorded have none either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired_at: Option<Timestamp>,
    /// What was paid for what ran out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub released: Vec<CostReleased>,
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
    /// What was paid for what was taken back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub released: Vec<CostReleased>,
    /// Available balance of the asset afterwards.
    pub available_after: Units,
}

/// See [`WalletEvent::GrantRestored`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GrantRestored {
    /// The grant.
    pub grant_id: GrantId,
    /// In which asset.
    pub asset: Asset,
    /// How much comes back to available, all of it on this grant: what the claim took unspent, and what other credit
    /// has repaid of its debt since.
    pub amount: Units,
    /// How much of the claim's debt still stood and is owed no more.
    pub debt_cancelled: Units,
    /// The reference of the claim.
    pub source_ref: String,
    /// What was paid for the credit that came back, negative.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub released: Vec<CostReleased>,
    /// Available balance of the asset afterwards.
    pub available_after: Units,
    /// What is owed altogether afterwards.
    pub debt_after: Units,
}

/// See [`WalletEvent::CreditsTaken`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CreditsTaken {
    /// The adjustment: the same id twice takes once.
    pub adjustment_id: AdjustmentId,
    /// In which asset.
    pub asset: Asset,
    /// How much.
    pub amount: Units,
    /// From which grants, in burn order.
    pub allocations: Vec<Allocation>,
    /// Why.
    pub reason: AdjustmentReason,
    /// What was paid for the credit that was taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub released: Vec<CostReleased>,
    /// From when it counts.
    pub effective_at: Timestamp,
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
    /// For what, when a use led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meter: Option<Meter>,
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
    /// What was paid for the credit that paid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub released: Vec<CostReleased>,
    /// What is owed altogether afterwards.
    pub debt_after: Units,
    /// Available balance of the asset afterwards.
    pub available_after: Units,
}
