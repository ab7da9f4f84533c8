//! Which events a command on an adjustment leads to, or why it is refused.

use crate::text::{BadText, check_text};
use crate::wallet::{AdjustmentReason, ordered};
use crate::{AdjustmentId, Asset, GrantId, TenantId, Timestamp, Units, UserId};

use super::{
    Adjustment, AdjustmentApplied, AdjustmentApproved, AdjustmentEvent, AdjustmentLapsed, AdjustmentProposed,
    AdjustmentRejected, AdjustmentStatus, LAPSE_SECONDS, approvals_needed,
};

/// The longest reference to evidence, in bytes.
pub const EVIDENCE_MAX_BYTES: usize = 1_000;

/// The longest reason to reject, in bytes.
pub const REJECTION_MAX_BYTES: usize = 500;

/// What somebody wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// The adjustment's id, UUIDv7.
    pub adjustment_id: AdjustmentId,
    /// Whose wallet.
    pub tenant_id: TenantId,
    /// In which asset.
    pub asset: Asset,
    /// How much is given; below zero, how much is taken.
    pub amount: Units,
    /// Why.
    pub reason: AdjustmentReason,
    /// Where the evidence is found, 1 to 1,000 bytes.
    pub evidence: String,
    /// From when it counts; not a moment to come.
    pub effective_at: Timestamp,
}

/// What can be asked of an adjustment. Who may ask at all is decided before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdjustmentCommand {
    /// Propose it. The same proposal twice is recorded once.
    Propose {
        /// What is wanted.
        proposal: Proposal,
        /// Who wants it.
        by: UserId,
        /// Now.
        at: Timestamp,
    },
    /// Agree to it.
    Approve {
        /// Who agrees: neither its author nor anybody who did before.
        by: UserId,
        /// Now.
        at: Timestamp,
    },
    /// Turn it down, or withdraw it.
    Reject {
        /// Who.
        by: UserId,
        /// Why, 1 to 500 bytes.
        reason: String,
        /// Now.
        at: Timestamp,
    },
    /// Record that the wallet was put right. Only for what appends the wallet's own event beside it.
    Apply {
        /// The grant it became; none where credit is taken.
        grant_id: Option<GrantId>,
        /// Now.
        at: Timestamp,
    },
    /// Record that nobody decided in time. Changes nothing once it has ended.
    Lapse {
        /// Now.
        at: Timestamp,
    },
}

/// Why a command on an adjustment is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AdjustmentRefusal {
    /// Nothing of this id was proposed for the tenant.
    #[error("there is no such adjustment")]
    NotProposed,
    /// The id already stands for another proposal.
    #[error("the adjustment {0} was proposed before with other content")]
    IdReused(AdjustmentId),
    /// The id does not carry its time, or carries one to come: the wallet would not take it.
    #[error("the id {id} is no UUIDv7 of {at:?}")]
    BadId {
        /// The id.
        id: AdjustmentId,
        /// Now.
        at: Timestamp,
    },
    /// An adjustment of nothing.
    #[error("an adjustment gives or takes something, this one is of 0")]
    Nothing,
    /// No number of approvals is enough for it.
    #[error("an adjustment of {amount} {asset} is over the limit of {limit} {asset}, given or taken")]
    OverLimit {
        /// In which asset.
        asset: Asset,
        /// How much was wanted.
        amount: Units,
        /// How much can be.
        limit: Units,
    },
    /// A text is missing or too long.
    #[error("{field} must have 1 to {limit} bytes, it has {bytes}")]
    BadText {
        /// Which.
        field: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// It would count from a moment to come.
    #[error("an adjustment counts from now or before: it is effective at {effective_at:?}, proposed at {at:?}")]
    NotYetEffective {
        /// From when it would count.
        effective_at: Timestamp,
        /// Now.
        at: Timestamp,
    },
    /// Its author cannot approve it.
    #[error("an adjustment is approved by somebody other than its author")]
    OwnProposal,
    /// The same person approved it before.
    #[error("this person has approved it already; {approvals} of {needed} approvals are there")]
    ApprovedBefore {
        /// Approvals so far.
        approvals: usize,
        /// How many it takes.
        needed: u8,
    },
    /// It was applied before.
    #[error("the adjustment was applied at {at:?}")]
    Applied {
        /// When.
        at: Timestamp,
    },
    /// It was turned down or withdrawn.
    #[error("the adjustment was rejected at {at:?}")]
    Rejected {
        /// When.
        at: Timestamp,
    },
    /// Its time has run out.
    #[error("the adjustment lapsed at {lapsed_at:?}; propose it again")]
    Lapsed {
        /// When.
        lapsed_at: Timestamp,
    },
    /// Its time has not run out.
    #[error("the adjustment lapses at {lapses_at:?}, it is {at:?}")]
    NotDue {
        /// When it will have.
        lapses_at: Timestamp,
        /// Now.
        at: Timestamp,
    },
    /// It takes more people.
    #[error("{approvals} of {needed} approvals are there")]
    NotApproved {
        /// Approvals so far.
        approvals: usize,
        /// How many it takes.
        needed: u8,
    },
}

pub(super) fn decide(
    adjustment: &Adjustment,
    command: AdjustmentCommand,
) -> Result<Vec<AdjustmentEvent>, AdjustmentRefusal> {
    match command {
        AdjustmentCommand::Propose { proposal, by, at } => adjustment.propose(proposal, by, at),
        AdjustmentCommand::Approve { by, at } => adjustment.approve(by, at),
        AdjustmentCommand::Reject { by, reason, at } => adjustment.reject(by, reason, at),
        AdjustmentCommand::Apply { grant_id, at } => adjustment.apply(grant_id, at),
        AdjustmentCommand::Lapse { at } => adjustment.lapse(at),
    }
}

impl Adjustment {
    fn propose(
        &self,
        proposal: Proposal,
        by: UserId,
        at: Timestamp,
    ) -> Result<Vec<AdjustmentEvent>, AdjustmentRefusal> {
        if let Some(known) = &self.proposed {
            let same = known.is_of(&proposal) && known.proposed_by == by;
            return if same { Ok(Vec::new()) } else { Err(AdjustmentRefusal::IdReused(known.adjustment_id)) };
        }
        let Proposal { adjustment_id, tenant_id, asset, amount, reason, evidence, effective_at } = proposal;
        ordered(adjustment_id.0, at).map_err(|_| AdjustmentRefusal::BadId { id: adjustment_id, at })?;
        let approvals_needed = approvals_needed(asset, amount)?;
        check_text("the evidence", &evidence, EVIDENCE_MAX_BYTES)?;
        if effective_at > at {
            return Err(AdjustmentRefusal::NotYetEffective { effective_at, at });
        }
        Ok(vec![AdjustmentEvent::AdjustmentProposed(AdjustmentProposed {
            adjustment_id,
            tenant_id,
            asset,
            amount,
            reason,
            evidence,
            effective_at,
            proposed_by: by,
            proposed_at: at,
            lapses_at: at.plus_seconds(LAPSE_SECONDS),
            approvals_needed,
        })])
    }

    fn approve(&self, by: UserId, at: Timestamp) -> Result<Vec<AdjustmentEvent>, AdjustmentRefusal> {
        let proposed = self.open(at)?;
        if proposed.proposed_by == by {
            return Err(AdjustmentRefusal::OwnProposal);
        }
        if self.approvals.contains(&by) {
            let (approvals, needed) = (self.approvals.len(), proposed.approvals_needed);
            return Err(AdjustmentRefusal::ApprovedBefore { approvals, needed });
        }
        Ok(vec![AdjustmentEvent::AdjustmentApproved(AdjustmentApproved { by, at })])
    }

    fn reject(&self, by: UserId, reason: String, at: Timestamp) -> Result<Vec<AdjustmentEvent>, AdjustmentRefusal> {
        self.open(at)?;
        check_text("the reason", &reason, REJECTION_MAX_BYTES)?;
        Ok(vec![AdjustmentEvent::AdjustmentRejected(AdjustmentRejected { by, reason, at })])
    }

    fn apply(&self, grant_id: Option<GrantId>, at: Timestamp) -> Result<Vec<AdjustmentEvent>, AdjustmentRefusal> {
        let proposed = self.open(at)?;
        if self.ready().is_none() {
            let (approvals, needed) = (self.approvals.len(), proposed.approvals_needed);
            return Err(AdjustmentRefusal::NotApproved { approvals, needed });
        }
        Ok(vec![AdjustmentEvent::AdjustmentApplied(AdjustmentApplied { at, grant_id })])
    }

    fn lapse(&self, at: Timestamp) -> Result<Vec<AdjustmentEvent>, AdjustmentRefusal> {
        let proposed = self.proposed.as_ref().ok_or(AdjustmentRefusal::NotProposed)?;
        if self.status != AdjustmentStatus::Open {
            return Ok(Vec::new());
        }
        if at < proposed.lapses_at {
            return Err(AdjustmentRefusal::NotDue { lapses_at: proposed.lapses_at, at });
        }
        Ok(vec![AdjustmentEvent::AdjustmentLapsed(AdjustmentLapsed { at })])
    }

    /// The proposal, while it can still be decided on. Its time may have run out before that is recorded.
    fn open(&self, at: Timestamp) -> Result<&AdjustmentProposed, AdjustmentRefusal> {
        let proposed = self.proposed.as_ref().ok_or(AdjustmentRefusal::NotProposed)?;
        match self.status {
            AdjustmentStatus::Applied { at, .. } => Err(AdjustmentRefusal::Applied { at }),
            AdjustmentStatus::Rejected { at, .. } => Err(AdjustmentRefusal::Rejected { at }),
            AdjustmentStatus::Lapsed { .. } => Err(AdjustmentRefusal::Lapsed { lapsed_at: proposed.lapses_at }),
            AdjustmentStatus::Open if at >= proposed.lapses_at => {
                Err(AdjustmentRefusal::Lapsed { lapsed_at: proposed.lapses_at })
            }
            AdjustmentStatus::Open => Ok(proposed),
        }
    }
}

impl AdjustmentProposed {
    /// Whether this is what the proposal wants.
    fn is_of(&self, proposal: &Proposal) -> bool {
        let Proposal { adjustment_id, tenant_id, asset, amount, reason, evidence, effective_at } = proposal;
        self.adjustment_id == *adjustment_id
            && self.tenant_id == *tenant_id
            && self.asset == *asset
            && self.amount == *amount
            && self.reason == *reason
            && self.evidence == *evidence
            && self.effective_at == *effective_at
    }
}

impl From<BadText> for AdjustmentRefusal {
    fn from(BadText { field, bytes, limit }: BadText) -> Self {
        Self::BadText { field, bytes, limit }
    }
}
