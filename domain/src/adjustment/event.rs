//! What can have happened to an adjustment.

use serde::{Deserialize, Serialize};

use crate::wallet::AdjustmentReason;
use crate::{AdjustmentId, Asset, GrantId, TenantId, Timestamp, Units, UserId};

/// Everything that happens to an adjustment. Stored as `{"<name>": {…}}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdjustmentEvent {
    /// Somebody wants a wallet to be put right.
    AdjustmentProposed(AdjustmentProposed),
    /// Somebody else agrees.
    AdjustmentApproved(AdjustmentApproved),
    /// Somebody does not, or the author withdrew it.
    AdjustmentRejected(AdjustmentRejected),
    /// The wallet was put right; in the same append as the last approval and the wallet's own event.
    AdjustmentApplied(AdjustmentApplied),
    /// Nobody decided in time.
    AdjustmentLapsed(AdjustmentLapsed),
}

crate::facts!(AdjustmentEvent {
    AdjustmentProposed => "adjustment_proposed" v "1",
    AdjustmentApproved => "adjustment_approved" v "1",
    AdjustmentRejected => "adjustment_rejected" v "1",
    AdjustmentApplied => "adjustment_applied" v "1",
    AdjustmentLapsed => "adjustment_lapsed" v "1",
});

/// See [`AdjustmentEvent::AdjustmentProposed`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AdjustmentProposed {
    /// The adjustment's id.
    pub adjustment_id: AdjustmentId,
    /// Whose wallet.
    pub tenant_id: TenantId,
    /// In which asset.
    pub asset: Asset,
    /// How much is given; below zero, how much is taken.
    pub amount: Units,
    /// Why, as the books know it.
    pub reason: AdjustmentReason,
    /// Where the evidence is found: a ticket, an invoice. A reference, never personal data.
    pub evidence: String,
    /// From when it counts.
    pub effective_at: Timestamp,
    /// Who proposes it.
    pub proposed_by: UserId,
    /// When it was proposed.
    pub proposed_at: Timestamp,
    /// From when on it can no longer be approved.
    pub lapses_at: Timestamp,
    /// How many people other than the author have to approve it.
    pub approvals_needed: u8,
}

/// See [`AdjustmentEvent::AdjustmentApproved`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AdjustmentApproved {
    /// Who approved it.
    pub by: UserId,
    /// When.
    pub at: Timestamp,
}

/// See [`AdjustmentEvent::AdjustmentRejected`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AdjustmentRejected {
    /// Who rejected it; its author, when it was withdrawn.
    pub by: UserId,
    /// Why, in words an auditor can read.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// See [`AdjustmentEvent::AdjustmentApplied`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AdjustmentApplied {
    /// When.
    pub at: Timestamp,
    /// The grant it became; none where credit was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_id: Option<GrantId>,
}

/// See [`AdjustmentEvent::AdjustmentLapsed`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AdjustmentLapsed {
    /// When that was recorded.
    pub at: Timestamp,
}
