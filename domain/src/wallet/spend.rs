//! Holds, settlements and charges: how credit leaves a wallet.

use crate::{Asset, HoldId, MicroUsd, Timestamp, Units, UsageId};

use super::decide::{Decision, at_least, fresh, not_forgotten, repeated};
use super::draft::Draft;
use super::uses::Known;
use super::{
    Allocation, CallTerms, Caller, CreditsDeducted, DebtCause, EndedUse, Ending, HOLDS_OPEN_MAX_COUNT, HoldPlaced,
    HoldReleased, Meter, OpenHold, ReleaseCause, UsageRecorded, Wallet, WalletEvent, WalletRefusal, prints,
};

/// What a hold is asked for.
pub(super) struct Wanted {
    pub(super) asset: Asset,
    pub(super) amount: Units,
    pub(super) meter: Meter,
    pub(super) caller: Option<Caller>,
    pub(super) terms: CallTerms,
    pub(super) usage_id: UsageId,
    pub(super) expires_at: Timestamp,
}

/// How much a charge may leave owing.
#[derive(Clone, Copy)]
pub(super) struct DebtAllowed {
    pub(super) limit: Units,
    pub(super) cause: DebtCause,
}

pub(super) fn place(wallet: &Wallet, hold_id: HoldId, wanted: Wanted, admitted_at: Timestamp) -> Decision {
    let Wanted { asset, amount, meter, caller, terms, usage_id, expires_at } = wanted;
    let (key, user) = match &caller {
        Some(Caller::Key(key)) => (Some(key), None),
        Some(Caller::User(user)) => (None, Some(*user)),
        None => (None, None),
    };
    let print = prints::of_placement(asset, amount, meter, key, user, usage_id);
    match wallet.uses.get(hold_id.0) {
        Some(Known::Open(id, hold)) => return repeated(id == hold_id && hold.print == print, hold_id.0),
        Some(Known::Ended(ended)) => {
            return repeated(ended.hold_id == Some(hold_id) && ended.placed == print, hold_id.0);
        }
        None => {}
    }
    if wallet.uses.get(usage_id.0).is_some() {
        return Err(WalletRefusal::IdReused { id: usage_id.0 });
    }
    fresh(wallet, hold_id.0, admitted_at)?;
    fresh(wallet, usage_id.0, admitted_at)?;
    if wallet.is_frozen() {
        return Err(WalletRefusal::Frozen);
    }
    at_least(amount, 0)?;
    let counted = caller.as_ref().map(|caller| terms.counted(caller));
    let admitted_at = wallet.callers.admission(counted.as_ref(), admitted_at);
    if expires_at <= admitted_at {
        return Err(WalletRefusal::ImpossibleHold { admitted_at, expires_at });
    }
    let open = wallet.uses.open().len();
    if open >= HOLDS_OPEN_MAX_COUNT {
        return Err(WalletRefusal::TooManyHolds { open, limit: HOLDS_OPEN_MAX_COUNT });
    }
    if let Some(caller) = &caller {
        let needed = match asset {
            Asset::Usd => MicroUsd::new(amount.get()),
            Asset::Credit => MicroUsd::ZERO,
        };
        wallet.callers.check(caller, &terms, needed, admitted_at)?;
    }
    let mut draft = Draft::begin(wallet, asset, admitted_at);
    if amount > draft.available {
        return Err(draft.insufficient(amount, draft.available));
    }
    let allocations = draft.allocate(amount);
    draft.push(WalletEvent::HoldPlaced(HoldPlaced {
        hold_id,
        asset,
        amount,
        allocations,
        meter,
        api_key_id: key.cloned(),
        line: key.and_then(|key| terms.line.clone().filter(|line| line != key)),
        user_id: user,
        usage_id,
        admitted_at,
        expires_at,
        available_after: draft.available.minus(amount)?,
    }));
    Ok(draft.finish())
}

pub(super) fn settle(wallet: &Wallet, hold_id: HoldId, usage: UsageRecorded, amount: Units, at: Timestamp) -> Decision {
    if let Some(hold) = wallet.hold(&hold_id) {
        check_figures(&usage, hold.asset, amount)?;
        same_use(hold.usage_id, &usage)?;
        return settle_open(wallet, hold_id, hold, usage, amount, at);
    }
    let Some(ended) = wallet.ended(&hold_id) else {
        not_forgotten(wallet, hold_id.0)?;
        return Err(WalletRefusal::NoSuchHold(hold_id));
    };
    match ended.ending {
        Ending::Deducted(_) => repeated(settles(ended, &usage, amount), hold_id.0),
        Ending::Released(ReleaseCause::Expired) => {
            check_figures(&usage, ended.asset, amount)?;
            same_use(ended.usage_id, &usage)?;
            let draft = Draft::begin(wallet, ended.asset, at);
            // The use took place: what available does not cover is owed, whatever the sum.
            deduct(draft, Some(hold_id), usage, amount, DebtCause::Overrun)
        }
        Ending::Released(
            ReleaseCause::Voided | ReleaseCause::ProviderFailed | ReleaseCause::ClientGone | ReleaseCause::OptedOut,
        ) => Err(WalletRefusal::HoldEnded(hold_id)),
    }
}

fn settle_open(
    wallet: &Wallet,
    hold_id: HoldId,
    hold: &OpenHold,
    usage: UsageRecorded,
    amount: Units,
    at: Timestamp,
) -> Decision {
    let mut draft = Draft::begin(wallet, hold.asset, at);
    let (mut allocations, returned) = split(&hold.allocations, amount);
    let beyond = amount.minus(hold.amount.min(amount))?;
    for extra in draft.allocate(beyond) {
        match allocations.last_mut() {
            Some(last) if last.grant_id == extra.grant_id => last.amount = last.amount.plus(extra.amount)?,
            Some(_) | None => allocations.push(extra),
        }
    }
    let from_available = beyond.min(draft.available);
    let back = hold.amount.minus(hold.amount.min(amount))?;
    let deducted = amount.minus(beyond.minus(from_available)?)?;
    draft.available = draft.available.plus(back)?.minus(from_available)?;
    let source_ref = usage.usage_id.to_string();
    let (usage_id, meter) = (usage.usage_id, usage.meter);
    let unsettled = draft.unsettled(&returned);
    draft.push(WalletEvent::UsageRecorded(usage));
    draft.push(WalletEvent::CreditsDeducted(CreditsDeducted {
        usage_id,
        hold_id: Some(hold_id),
        meter,
        asset: hold.asset,
        amount: deducted,
        allocations,
        held: hold.amount,
        returned: back,
        returned_to: returned,
        released: Vec::new(),
        available_after: draft.available,
    }));
    draft.incur(amount.minus(deducted)?, DebtCause::Overrun, Some(meter), source_ref)?;
    draft.settle_returned(unsettled);
    Ok(draft.finish())
}

pub(super) fn release(wallet: &Wallet, hold_id: HoldId, cause: ReleaseCause, at: Timestamp) -> Decision {
    let Some(hold) = wallet.hold(&hold_id) else {
        let Some(ended) = wallet.ended(&hold_id) else {
            not_forgotten(wallet, hold_id.0)?;
            return Err(WalletRefusal::NoSuchHold(hold_id));
        };
        return match ended.ending {
            Ending::Released(known) if known == cause => Ok(Vec::new()),
            Ending::Released(_) | Ending::Deducted(_) => Err(WalletRefusal::HoldEnded(hold_id)),
        };
    };
    if cause == ReleaseCause::Expired && at < hold.expires_at {
        return Err(WalletRefusal::NotDue { at, due: Some(hold.expires_at) });
    }
    let mut draft = Draft::begin(wallet, hold.asset, at);
    draft.available = draft.available.plus(hold.amount)?;
    draft.push(WalletEvent::HoldReleased(HoldReleased {
        hold_id,
        usage_id: hold.usage_id,
        asset: hold.asset,
        amount: hold.amount,
        returned_to: hold.allocations.clone(),
        cause,
        available_after: draft.available,
    }));
    draft.settle_returned(draft.unsettled(&hold.allocations));
    Ok(draft.finish())
}

pub(super) fn charge(
    wallet: &Wallet,
    usage: UsageRecorded,
    asset: Asset,
    amount: Units,
    debt: DebtAllowed,
    at: Timestamp,
) -> Decision {
    let id = usage.usage_id.0;
    match wallet.uses.get(id) {
        Some(Known::Open(..)) => return Err(WalletRefusal::IdReused { id }),
        Some(Known::Ended(ended)) => {
            let same = ended.hold_id.is_none() && ended.asset == asset && settles(ended, &usage, amount);
            return repeated(same, id);
        }
        None => fresh(wallet, id, at)?,
    }
    if wallet.is_frozen() {
        return Err(WalletRefusal::Frozen);
    }
    check_figures(&usage, asset, amount)?;
    let draft = Draft::begin(wallet, asset, at);
    let room = debt.limit.saturating_minus(draft.debt).max(Units::ZERO);
    let reach = draft.available.saturating_plus(room);
    if amount > reach {
        return Err(draft.insufficient(amount, reach));
    }
    deduct(draft, None, usage, amount, debt.cause)
}

/// Takes from available in burn order; what it does not cover is owed.
fn deduct(
    mut draft: Draft<'_>,
    hold_id: Option<HoldId>,
    usage: UsageRecorded,
    amount: Units,
    cause: DebtCause,
) -> Decision {
    let allocations = draft.allocate(amount);
    let deducted = amount.min(draft.available);
    draft.available = draft.available.minus(deducted)?;
    let (usage_id, meter) = (usage.usage_id, usage.meter);
    draft.push(WalletEvent::UsageRecorded(usage));
    draft.push(WalletEvent::CreditsDeducted(CreditsDeducted {
        usage_id,
        hold_id,
        meter,
        asset: draft.asset,
        amount: deducted,
        allocations,
        held: Units::ZERO,
        returned: Units::ZERO,
        returned_to: Vec::new(),
        released: Vec::new(),
        available_after: draft.available,
    }));
    let owed = amount.minus(deducted)?;
    if !owed.is_zero() {
        draft.incur(owed, cause, Some(meter), usage_id.to_string())?;
    }
    Ok(draft.finish())
}

/// Whether the ended use was spent just so.
fn settles(ended: &EndedUse, usage: &UsageRecorded, amount: Units) -> bool {
    match &ended.ending {
        Ending::Released(_) => false,
        Ending::Deducted(deduction) => {
            ended.usage_id == usage.usage_id && deduction.asked == amount && deduction.usage == prints::of_usage(usage)
        }
    }
}

fn same_use(expected: UsageId, usage: &UsageRecorded) -> Result<(), WalletRefusal> {
    if usage.usage_id == expected {
        return Ok(());
    }
    Err(WalletRefusal::OtherUse { expected, given: usage.usage_id })
}

/// A usage record must add up, and dollars are deducted exactly as it says.
fn check_figures(usage: &UsageRecorded, asset: Asset, amount: Units) -> Result<(), WalletRefusal> {
    at_least(amount, 0)?;
    at_least(usage.provider_cost.into(), 0)?;
    at_least(usage.markup.into(), 0)?;
    let parts = Units::from(usage.provider_cost.plus(usage.markup)?);
    let total = Units::from(usage.total);
    let charged = match asset {
        Asset::Usd => total == amount,
        Asset::Credit => true,
    };
    if parts == total && charged { Ok(()) } else { Err(WalletRefusal::WrongTotal { parts, total, amount }) }
}

/// Cuts a hold's allocations after `amount`: what is spent, and what goes back.
fn split(allocations: &[Allocation], amount: Units) -> (Vec<Allocation>, Vec<Allocation>) {
    let (mut spent, mut returned) = (Vec::with_capacity(allocations.len()), Vec::new());
    let mut left = amount;
    for part in allocations {
        let used = part.amount.min(left);
        left = left.saturating_minus(used);
        if !used.is_zero() {
            spent.push(Allocation { amount: used, ..*part });
        }
        let back = part.amount.saturating_minus(used);
        if !back.is_zero() {
            returned.push(Allocation { amount: back, ..*part });
        }
    }
    (spent, returned)
}
