//! Four eyes once more: who may approve what, and that nothing is applied twice.

use std::collections::BTreeMap;

use calos_domain::adjustment::Proposal;
use calos_domain::wallet::{AdjustmentReason, GrantKind, WalletCommand};
use calos_domain::{AdjustmentId, Asset, GrantId, MicroUsd, TenantId, Timestamp, Units, UserId};
use uuid::Uuid;

use super::chance::Chance;
use super::model::{Verdict, Why};

/// Seven days, in microseconds.
const LAPSE_MICROS: i64 = 7 * 86_400 * 1_000_000;
/// Credit that is given burns first.
const GIVEN_PRIORITY: i16 = 10;
/// People who propose and approve.
const STAFF_COUNT: usize = 4;

/// What is asked about an adjustment.
#[derive(Clone, PartialEq, Debug)]
pub enum Asking {
    /// It is proposed.
    Propose(Proposal),
    /// It is approved.
    Approve(AdjustmentId),
    /// It is turned down.
    Reject(AdjustmentId),
}

impl Asking {
    /// The adjustment it is about.
    pub const fn adjustment(&self) -> AdjustmentId {
        match self {
            Self::Propose(proposal) => proposal.adjustment_id,
            Self::Approve(id) | Self::Reject(id) => *id,
        }
    }
}

#[derive(Clone, Debug)]
struct Known {
    proposal: Proposal,
    by: UserId,
    lapses: i64,
    approvals: Vec<UserId>,
    ended: bool,
}

/// A tenant's adjustments.
#[derive(Clone, Default, Debug)]
pub struct Adjustments(BTreeMap<AdjustmentId, Known>);

/// How many have to approve an amount: one up to $50 or 500 credits, two up to $1,000 or 10,000 credits, beyond it nobody can.
fn needed(asset: Asset, amount: Units) -> Option<usize> {
    let (one, two) = match asset {
        Asset::Usd => (50_000_000, 1_000_000_000),
        Asset::Credit => (500, 10_000),
    };
    let size = amount.get().unsigned_abs();
    if size <= one { Some(1) } else { (size <= two).then_some(2) }
}

impl Adjustments {
    /// What asking comes to; for the last approval, whether it is the wallet's turn is told by [`Self::meaning`].
    pub fn judge(&self, asking: &Asking, by: UserId, at: Timestamp) -> Verdict {
        let id = match asking {
            Asking::Propose(proposal) => {
                return match self.0.get(&proposal.adjustment_id) {
                    Some(known) if known.proposal == *proposal && known.by == by => Verdict::Nothing,
                    Some(_) => Verdict::Refused(Why::IdReused),
                    None if proposal.amount.is_zero() => Verdict::Refused(Why::TooSmall),
                    None if needed(proposal.asset, proposal.amount).is_none() => Verdict::Refused(Why::OverLimit),
                    None => Verdict::Changes,
                };
            }
            Asking::Approve(id) | Asking::Reject(id) => id,
        };
        let Some(known) = self.0.get(id) else { return Verdict::Refused(Why::NotProposed) };
        if known.ended || at.micros() >= known.lapses {
            return Verdict::Refused(Why::Ended);
        }
        match asking {
            Asking::Approve(_) if known.by == by => Verdict::Refused(Why::OwnProposal),
            Asking::Approve(_) if known.approvals.contains(&by) => Verdict::Refused(Why::ApprovedBefore),
            Asking::Approve(_) | Asking::Reject(_) | Asking::Propose(_) => Verdict::Changes,
        }
    }

    /// What the wallet has to do when this is the approval that was missing.
    pub fn meaning(&self, asking: &Asking, at: Timestamp) -> Option<WalletCommand> {
        let Asking::Approve(id) = asking else { return None };
        let Known { proposal, approvals, .. } = self.0.get(id)?;
        if approvals.len() + 1 < needed(proposal.asset, proposal.amount)? {
            return None;
        }
        let Proposal { adjustment_id, asset, amount, reason, effective_at, .. } = proposal.clone();
        if amount.get() < 0 {
            let amount = Units::new(-amount.get());
            return Some(WalletCommand::TakeCredits { adjustment_id, asset, amount, reason, effective_at, at });
        }
        Some(WalletCommand::GrantCredits {
            grant_id: GrantId(adjustment_id.0),
            asset,
            kind: GrantKind::Adjustment,
            amount,
            priority: GIVEN_PRIORITY,
            effective_at,
            expires_at: None,
            cost_basis: MicroUsd::ZERO,
            source_ref: format!("adjustment:{adjustment_id}"),
            reason: Some(reason),
            at,
        })
    }

    /// Takes in what was asked.
    pub fn perform(&mut self, asking: &Asking, by: UserId, at: Timestamp) {
        let applied = self.meaning(asking, at).is_some();
        match asking {
            Asking::Propose(proposal) => {
                let lapses = at.micros() + LAPSE_MICROS;
                let known = Known { proposal: proposal.clone(), by, lapses, approvals: Vec::new(), ended: false };
                self.0.insert(proposal.adjustment_id, known);
            }
            Asking::Approve(id) => {
                if let Some(known) = self.0.get_mut(id) {
                    known.approvals.push(by);
                    known.ended = applied;
                }
            }
            Asking::Reject(id) => {
                if let Some(known) = self.0.get_mut(id) {
                    known.ended = true;
                }
            }
        }
    }

    /// Anything one of the staff may ask.
    pub fn any(&self, chance: &mut Chance, tenant_id: TenantId, now: Timestamp) -> (Asking, UserId) {
        let by = UserId(Uuid::from_u128(1 + chance.below(STAFF_COUNT) as u128));
        let open: Vec<AdjustmentId> = self.0.iter().filter(|(_, known)| !known.ended).map(|(id, _)| *id).collect();
        let place = chance.below(self.0.len());
        let some = if chance.one_in(4) { self.0.keys().nth(place).copied() } else { chance.pick(&open).copied() };
        let asking = match (some, chance.below(10)) {
            (Some(id), 0..=5) => Asking::Approve(id),
            (Some(id), 6) => Asking::Reject(id),
            (_, _) => Asking::Propose(proposal(chance, tenant_id, now)),
        };
        (asking, by)
    }
}

fn proposal(chance: &mut Chance, tenant_id: TenantId, now: Timestamp) -> Proposal {
    let asset = if chance.one_in(2) { Asset::Credit } else { Asset::Usd };
    let most = match chance.below(10) {
        0 => 12_000,
        1 => 1_000,
        _ => 400,
    };
    Proposal {
        adjustment_id: AdjustmentId(chance.id(now)),
        tenant_id,
        asset,
        amount: Units::new(chance.between(-most, most)),
        reason: AdjustmentReason::ALL[chance.below(AdjustmentReason::ALL.len())],
        evidence: "case:1".to_owned(),
        effective_at: now.plus_seconds(-chance.between(0, 86_400)),
    }
}
