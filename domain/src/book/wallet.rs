//! What the events of a wallet mean for the book.

use crate::wallet::{
    Allocation, CostReleased, CreditsDeducted, CreditsGranted, CreditsTaken, DebtCause, DebtIncurred, DebtRepaid,
    DeductionReversed, GrantExpired, GrantRestored, GrantVoided, HoldPlaced, HoldReleased, UsageRecorded, WalletEvent,
};
use crate::{Asset, GrantId, TenantId, Timestamp, Units};

use super::draft::{Leg, entries, parts_come_to};
use super::{Account, BookError, Entry};

/// How the source of a grant begins that a payment's own events book the money of.
pub const PAYMENT_SOURCE: &str = "payment:";

/// What an event of `tenant`'s wallet means for the book: at most one entry per asset, none when nothing moves.
///
/// # Errors
/// The event contradicts itself: [`BookError`] names the accounts.
pub fn wallet_entries(tenant: TenantId, event: &WalletEvent) -> Result<Vec<Entry>, BookError> {
    let wallet = Wallet { tenant };
    let legs = match event {
        WalletEvent::WalletOpened(_) | WalletEvent::WalletFrozen(_) | WalletEvent::WalletThawed(_) => Vec::new(),
        WalletEvent::CreditsGranted(granted) => wallet.granted(granted)?,
        WalletEvent::HoldPlaced(placed) => vec![wallet.placed(placed)?],
        WalletEvent::UsageRecorded(usage) => provider_cost(usage)?,
        WalletEvent::CreditsDeducted(deducted) => wallet.deducted(deducted)?,
        WalletEvent::HoldReleased(released) => vec![wallet.released(released)?],
        WalletEvent::DeductionReversed(reversed) => wallet.reversed(reversed)?,
        WalletEvent::GrantExpired(expired) => wallet.expired(expired)?,
        WalletEvent::GrantVoided(voided) => wallet.voided(voided)?,
        WalletEvent::GrantRestored(restored) => wallet.restored(restored)?,
        WalletEvent::CreditsTaken(taken) => wallet.taken(taken)?,
        WalletEvent::DebtIncurred(incurred) => vec![wallet.indebted(incurred)?],
        WalletEvent::DebtRepaid(repaid) => wallet.repaid(repaid)?,
    };
    entries(&legs)
}

/// From when an event counts: what has a date of its own counts from then, everything else from when it was recorded.
#[must_use]
pub fn effective_at(event: &WalletEvent, recorded_at: Timestamp) -> Timestamp {
    match event {
        WalletEvent::CreditsGranted(granted) => granted.effective_at,
        WalletEvent::HoldPlaced(placed) => placed.admitted_at,
        WalletEvent::GrantExpired(expired) => expired.expired_at.unwrap_or(recorded_at),
        WalletEvent::CreditsTaken(taken) => taken.effective_at,
        WalletEvent::WalletOpened(_)
        | WalletEvent::UsageRecorded(_)
        | WalletEvent::CreditsDeducted(_)
        | WalletEvent::HoldReleased(_)
        | WalletEvent::DeductionReversed(_)
        | WalletEvent::GrantVoided(_)
        | WalletEvent::GrantRestored(_)
        | WalletEvent::DebtIncurred(_)
        | WalletEvent::DebtRepaid(_)
        | WalletEvent::WalletFrozen(_)
        | WalletEvent::WalletThawed(_) => recorded_at,
    }
}

/// What a provider charges is owed to it at once and paid on other ways than through Stripe. With the tenant's own key
/// the provider charges the tenant.
fn provider_cost(usage: &UsageRecorded) -> Result<Vec<Leg>, BookError> {
    if usage.byok {
        return Ok(Vec::new());
    }
    let provider = Account::provider(&usage.provider);
    Ok(vec![Leg::of(Asset::Usd, provider, Account::OutOfBand, usage.provider_cost.into())?])
}

/// Earns what was paid for credit that is gone: in a wallet of dollars against what was given out, otherwise against
/// `income`.
fn earn(legs: &mut Vec<Leg>, asset: Asset, released: &[CostReleased], income: &Account) -> Result<(), BookError> {
    for part in released {
        let against = match asset {
            Asset::Usd => Account::Issued(part.kind),
            Asset::Credit => income.clone(),
        };
        legs.push(Leg::either_way(Asset::Usd, Account::Deferred(part.kind), against, part.amount.get())?);
    }
    Ok(())
}

/// The accounts of one tenant.
#[derive(Clone, Copy)]
struct Wallet {
    tenant: TenantId,
}

impl Wallet {
    const fn available(self, grant_id: GrantId) -> Account {
        Account::Available(self.tenant, grant_id)
    }

    fn granted(self, granted: &CreditsGranted) -> Result<Vec<Leg>, BookError> {
        let from = granted.reason.map_or(Account::Issued(granted.kind), Account::Adjustment);
        let mut legs = vec![Leg::of(granted.asset, from, self.available(granted.grant_id), granted.amount)?];
        if !granted.source_ref.starts_with(PAYMENT_SOURCE) {
            let paid = granted.cost_basis.into();
            legs.push(Leg::of(Asset::Usd, Account::OutOfBand, Account::Deferred(granted.kind), paid)?);
        }
        Ok(legs)
    }

    fn placed(self, placed: &HoldPlaced) -> Result<Leg, BookError> {
        let mut leg = Leg::new(placed.asset);
        for part in &placed.allocations {
            leg.debit(self.available(part.grant_id), part.amount)?;
        }
        leg.credit(Account::Held(self.tenant, placed.hold_id), placed.amount)?;
        Ok(leg)
    }

    /// What the hold kept pays first, and only what it does not cover comes from available.
    fn deducted(self, deducted: &CreditsDeducted) -> Result<Vec<Leg>, BookError> {
        let usage = Account::Usage(deducted.meter);
        let grant = |part: &Allocation| self.available(part.grant_id);
        parts_come_to(deducted.asset, &deducted.allocations, deducted.amount, grant, usage.clone())?;
        let mut leg = Leg::new(deducted.asset);
        if let Some(hold_id) = deducted.hold_id {
            leg.debit(Account::Held(self.tenant, hold_id), deducted.held)?;
        }
        let mut from_hold = deducted.held.saturating_minus(deducted.returned).max(Units::ZERO);
        for part in &deducted.allocations {
            let kept = part.amount.min(from_hold);
            from_hold = from_hold.saturating_minus(kept);
            leg.debit(grant(part), part.amount.saturating_minus(kept))?;
        }
        leg.credit(usage.clone(), deducted.amount)?;
        self.give_back(&mut leg, deducted.asset, &deducted.returned_to, deducted.returned)?;
        let mut legs = vec![leg];
        earn(&mut legs, deducted.asset, &deducted.released, &usage)?;
        Ok(legs)
    }

    fn released(self, released: &HoldReleased) -> Result<Leg, BookError> {
        let mut leg = Leg::new(released.asset);
        leg.debit(Account::Held(self.tenant, released.hold_id), released.amount)?;
        self.give_back(&mut leg, released.asset, &released.returned_to, released.amount)?;
        Ok(leg)
    }

    /// What a hold gives back; events written before they said to which grants leave it with no grant.
    fn give_back(self, leg: &mut Leg, asset: Asset, parts: &[Allocation], amount: Units) -> Result<(), BookError> {
        let unallocated = Account::Unallocated(self.tenant);
        if parts.is_empty() {
            return leg.credit(unallocated, amount);
        }
        parts_come_to(asset, parts, amount, |part| self.available(part.grant_id), unallocated)?;
        for part in parts {
            leg.credit(self.available(part.grant_id), part.amount)?;
        }
        Ok(())
    }

    fn reversed(self, reversed: &DeductionReversed) -> Result<Vec<Leg>, BookError> {
        let usage = Account::Usage(reversed.meter);
        let mut leg = Leg::new(reversed.asset);
        leg.debit(usage.clone(), reversed.amount)?;
        for part in &reversed.allocations {
            leg.credit(self.available(part.grant_id), part.amount)?;
        }
        let mut legs = vec![leg];
        earn(&mut legs, reversed.asset, &reversed.released, &usage)?;
        Ok(legs)
    }

    fn expired(self, expired: &GrantExpired) -> Result<Vec<Leg>, BookError> {
        let grant = self.available(expired.grant_id);
        let mut legs = vec![Leg::of(expired.asset, grant, Account::Breakage, expired.amount)?];
        earn(&mut legs, expired.asset, &expired.released, &Account::Breakage)?;
        Ok(legs)
    }

    fn voided(self, voided: &GrantVoided) -> Result<Vec<Leg>, BookError> {
        let grant = self.available(voided.grant_id);
        let mut legs = vec![Leg::of(voided.asset, grant, Account::Voided, voided.amount)?];
        earn(&mut legs, voided.asset, &voided.released, &Account::Voided)?;
        Ok(legs)
    }

    fn restored(self, restored: &GrantRestored) -> Result<Vec<Leg>, BookError> {
        let grant = self.available(restored.grant_id);
        let mut legs = vec![
            Leg::of(restored.asset, Account::Voided, grant, restored.amount)?,
            Leg::of(restored.asset, Account::Voided, Account::Debt(self.tenant), restored.debt_cancelled)?,
        ];
        earn(&mut legs, restored.asset, &restored.released, &Account::Voided)?;
        Ok(legs)
    }

    fn taken(self, taken: &CreditsTaken) -> Result<Vec<Leg>, BookError> {
        let mut leg = Leg::new(taken.asset);
        for part in &taken.allocations {
            leg.debit(self.available(part.grant_id), part.amount)?;
        }
        leg.credit(Account::Adjustment(taken.reason), taken.amount)?;
        let mut legs = vec![leg];
        earn(&mut legs, taken.asset, &taken.released, &Account::Voided)?;
        Ok(legs)
    }

    fn indebted(self, incurred: &DebtIncurred) -> Result<Leg, BookError> {
        let against = match incurred.cause {
            DebtCause::Overrun | DebtCause::InboundWithoutCredit => Account::Usage(incurred.meter.unwrap_or_default()),
            DebtCause::Refund | DebtCause::Dispute => Account::Voided,
        };
        Leg::of(incurred.asset, Account::Debt(self.tenant), against, incurred.amount)
    }

    /// Phone credits that pay debt are earned against what was claimed back: there, and not in income, the loss stands
    /// that a refund of used credits leaves.
    fn repaid(self, repaid: &DebtRepaid) -> Result<Vec<Leg>, BookError> {
        let (grant, debt) = (self.available(repaid.grant_id), Account::Debt(self.tenant));
        let mut legs = vec![Leg::of(repaid.asset, grant, debt, repaid.amount)?];
        earn(&mut legs, repaid.asset, &repaid.released, &Account::Voided)?;
        Ok(legs)
    }
}
