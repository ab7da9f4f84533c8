//! Claims on grants (refunds, disputes, decisions), and how they are undone.

use crate::{GrantId, Timestamp, Units};

use super::decide::{Decision, at_least, repeated, short_enough};
use super::draft::Draft;
use super::{
    Allocation, DebtCause, GrantRestored, GrantVoided, VOIDS_PER_GRANT_MAX_COUNT, Wallet, WalletEvent, WalletRefusal,
};

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
    // One that was undone since is known as well: it cannot be claimed again.
    if let Some(known) = grant.claim(&source_ref) {
        return repeated(known.claimed == claimed, grant_id.0);
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
    let lapsing = grant.lapsing(at);
    let unspent = grant.available.minus(lapsing)?.min(claimed);
    draft.available = draft.available.minus(unspent)?;
    draft.push(WalletEvent::GrantVoided(GrantVoided {
        grant_id,
        asset: grant.asset,
        claimed,
        amount: unspent,
        source_ref: source_ref.clone(),
        released: Vec::new(),
        available_after: draft.available,
    }));
    // Only what was spent, or is held, is owed: what expired unspent was never used, and is not asked for twice.
    let gone = grant.voided.plus(unspent)?.plus(grant.expired)?.plus(lapsing)?.plus(grant.charged_back)?;
    let owed = claimed_before.plus(claimed)?.saturating_minus(gone).max(Units::ZERO);
    draft.incur(owed, cause, None, source_ref)?;
    draft.repay_from_available(Allocation { grant_id, amount: unspent });
    Ok(draft.finish())
}

pub(super) fn restore(wallet: &Wallet, grant_id: GrantId, source_ref: String, at: Timestamp) -> Decision {
    short_enough(&source_ref)?;
    let grant = wallet.grant(&grant_id).ok_or(WalletRefusal::NoSuchGrant(grant_id))?;
    let claim = grant.claim(&source_ref).ok_or(WalletRefusal::NoSuchClaim(grant_id))?;
    if claim.undone {
        return Ok(Vec::new());
    }
    let mut draft = Draft::begin(wallet, grant.asset, at);
    // As much of the claim's debt as still stands is owed no more; the rest was repaid with credit, which comes back.
    let debt_cancelled = claim.owed.min(draft.debt);
    let repaid = claim.owed.minus(debt_cancelled)?;
    let amount = claim.voided.plus(repaid)?;
    draft.available = draft.available.plus(amount)?;
    draft.debt = draft.debt.minus(debt_cancelled)?;
    draft.push(WalletEvent::GrantRestored(GrantRestored {
        grant_id,
        asset: grant.asset,
        amount,
        debt_cancelled,
        source_ref,
        released: Vec::new(),
        available_after: draft.available,
        debt_after: draft.debt,
    }));
    // What comes back pays what else is owed. What would have run out of time by now does; what stands for the credit
    // of other grants does not, since nothing says that theirs would have.
    let mut part = Allocation { grant_id, amount };
    draft.repay(std::slice::from_mut(&mut part));
    if grant.lapsed(at) {
        let free = grant.spendable(at).plus(part.amount)?;
        let lapsing = free.saturating_minus(grant.restored.plus(repaid)?);
        if lapsing > Units::ZERO {
            draft.lapse_returned(Allocation { grant_id, amount: lapsing });
        }
    }
    Ok(draft.finish())
}
