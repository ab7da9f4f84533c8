//! Reversals, expiries and takings: corrections are events of their own, never edits.

use crate::{AdjustmentId, Asset, GrantId, Timestamp, Units, UsageId};

use super::decide::{Decision, at_least, not_forgotten, ordered, repeated, short_enough};
use super::draft::Draft;
use super::uses::id_millis;
use super::{
    AdjustmentReason, Allocation, CLOCK_SKEW_MAX_SECONDS, CreditsTaken, Deduction, DeductionReversed, Ending, Wallet,
    WalletEvent, WalletRefusal, prints,
};

pub(super) fn reverse(wallet: &Wallet, usage_id: UsageId, amount: Units, reason: String, at: Timestamp) -> Decision {
    at_least(amount, 1)?;
    short_enough(&reason)?;
    let Some(ended) = wallet.ended_use(&usage_id) else {
        if wallet.uses.get(usage_id.0).is_none() {
            not_forgotten(wallet, usage_id.0)?;
        }
        return Err(WalletRefusal::NoSuchUse(usage_id));
    };
    let deduction = match &ended.ending {
        Ending::Deducted(deduction) => deduction,
        Ending::Released(_) => return Err(WalletRefusal::NoSuchUse(usage_id)),
    };
    let (deducted, reversed) = (deduction.deducted(), deduction.reversed);
    if amount > deducted || amount < reversed {
        return Err(WalletRefusal::ReversalOutOfBounds { asked: amount, deducted, reversed });
    }
    let more = amount.minus(reversed)?;
    if more.is_zero() {
        return Ok(Vec::new());
    }
    let allocations = suffix(wallet, deduction, more)?;
    let mut draft = Draft::begin(wallet, ended.asset, at);
    draft.available = draft.available.plus(more)?;
    let unsettled = draft.unsettled(&allocations);
    draft.push(WalletEvent::DeductionReversed(DeductionReversed {
        usage_id,
        meter: deduction.meter,
        asset: ended.asset,
        amount: more,
        allocations,
        reason,
        released: Vec::new(),
        available_after: draft.available,
    }));
    draft.settle_returned(unsettled);
    Ok(draft.finish())
}

/// The last `amount` of a deduction that is not undone yet, last burnt first.
fn suffix(wallet: &Wallet, deduction: &Deduction, amount: Units) -> Result<Vec<Allocation>, WalletRefusal> {
    let mut allocations = Vec::with_capacity(1);
    let (mut skip, mut left) = (deduction.reversed, amount);
    for drawn in deduction.drawn.iter().rev() {
        let undone = drawn.1.min(skip);
        skip = skip.minus(undone)?;
        let part = drawn.1.minus(undone)?.min(left);
        if part.is_zero() {
            continue;
        }
        left = left.minus(part)?;
        let grant = wallet.grant_numbered(drawn.0).ok_or(WalletRefusal::GrantForgotten { number: drawn.0 })?;
        allocations.push(Allocation { grant_id: grant.grant_id, amount: part });
    }
    Ok(allocations)
}

pub(super) fn expire(wallet: &Wallet, grant_id: GrantId, at: Timestamp) -> Decision {
    let grant = wallet.grant(&grant_id).ok_or(WalletRefusal::NoSuchGrant(grant_id))?;
    if !grant.lapsed(at) {
        return Err(WalletRefusal::NotDue { at, due: grant.expires_at });
    }
    // The draft begins by recording every grant of the asset whose time has run out, this one among them if anything of
    // it is free. What is held of it stays held: the hold wins.
    let mut draft = Draft::begin(wallet, grant.asset, at);
    if !grant.expiry_recorded && grant.lapsing(at).is_zero() {
        draft.expire(Allocation { grant_id, amount: Units::ZERO }, grant.expires_at);
    }
    Ok(draft.finish())
}

/// What an approved adjustment takes.
pub(super) struct Taking {
    pub(super) adjustment_id: AdjustmentId,
    pub(super) asset: Asset,
    pub(super) amount: Units,
    pub(super) reason: AdjustmentReason,
    pub(super) effective_at: Timestamp,
}

pub(super) fn take(wallet: &Wallet, taking: &Taking, at: Timestamp) -> Decision {
    let Taking { adjustment_id, asset, amount, reason, effective_at } = *taking;
    let id = adjustment_id.0;
    if let Some(known) = wallet.takings.get(adjustment_id) {
        return repeated(known == prints::of_taking(asset, amount, reason, effective_at), id);
    }
    ordered(id, at)?;
    let forgotten_ms = wallet.takings.forgotten_ms();
    if id_millis(id) <= forgotten_ms {
        return Err(WalletRefusal::IdTooOld { id, forgotten_ms });
    }
    at_least(amount, 1)?;
    if effective_at > at.plus_seconds(CLOCK_SKEW_MAX_SECONDS) {
        return Err(WalletRefusal::EffectiveAhead { effective_at, at });
    }
    let mut draft = Draft::begin(wallet, asset, at);
    if amount > draft.available {
        return Err(draft.insufficient(amount, draft.available));
    }
    let allocations = draft.allocate(amount);
    draft.available = draft.available.minus(amount)?;
    draft.push(WalletEvent::CreditsTaken(CreditsTaken {
        adjustment_id,
        asset,
        amount,
        allocations,
        reason,
        released: Vec::new(),
        effective_at,
        available_after: draft.available,
    }));
    Ok(draft.finish())
}
