//! Reversals, expiries and claims back: corrections are events of their own, never edits.

use crate::{GrantId, Timestamp, Units, UsageId};

use super::decide::{Decision, at_least, not_forgotten, repeated, short_enough};
use super::draft::Draft;
use super::{
    Allocation, DebtCause, Deduction, DeductionReversed, Ending, GrantVoided, VOIDS_PER_GRANT_MAX_COUNT, Wallet,
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
    draft.push(WalletEvent::DeductionReversed(DeductionReversed {
        usage_id,
        asset: ended.asset,
        amount: more,
        allocations: allocations.clone(),
        reason,
        available_after: draft.available,
    }));
    draft.settle_returned(&allocations);
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
    // The draft begins by recording every grant of the asset whose time has run out, this one among them. What is held
    // of it stays held: the hold wins.
    Ok(Draft::begin(wallet, grant.asset, at).finish())
}

pub(super) fn void(
    wallet: &Wallet,
    grant_id: GrantId,
    claimed: Units,
    cause: DebtCause,
    source_ref: String,
    at: Timestamp,
) -> Decision {
    at_least(claimed, 1)?;
    short_enough(&source_ref)?;
    let grant = wallet.grant(&grant_id).ok_or(WalletRefusal::NoSuchGrant(grant_id))?;
    let reference = prints::of_reference(&source_ref);
    if let Some((_, known)) = grant.claims.iter().find(|(print, _)| *print == reference) {
        return repeated(*known == claimed, grant_id.0);
    }
    let claimed_before = grant.claimed();
    let left = grant.amount.minus(claimed_before)?;
    if claimed > left {
        return Err(WalletRefusal::ClaimTooLarge { claimed, left });
    }
    if grant.claims.len() >= VOIDS_PER_GRANT_MAX_COUNT {
        return Err(WalletRefusal::TooManyClaims(grant.claims.len()));
    }
    let mut draft = Draft::begin(wallet, grant.asset, at);
    let lapsing = if grant.lapsed(at) { grant.available } else { Units::ZERO };
    let unspent = grant.available.minus(lapsing)?.min(claimed);
    draft.available = draft.available.minus(unspent)?;
    draft.push(WalletEvent::GrantVoided(GrantVoided {
        grant_id,
        asset: grant.asset,
        claimed,
        amount: unspent,
        source_ref: source_ref.clone(),
        available_after: draft.available,
    }));
    // Only what was spent, or is held, is owed: what expired unspent was never used, and is not asked for twice.
    let gone = grant.voided.plus(unspent)?.plus(grant.expired)?.plus(lapsing)?.plus(grant.charged_back)?;
    let owed = claimed_before.plus(claimed)?.saturating_minus(gone).max(Units::ZERO);
    draft.incur(owed, cause, source_ref)?;
    Ok(draft.finish())
}
