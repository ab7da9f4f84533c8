//! The events of one decision while they are being drawn up, with the running figures each of them carries.

use crate::{Asset, Timestamp, Units};

use super::{
    Allocation, CreditsGranted, DebtCause, DebtIncurred, DebtRepaid, GrantExpired, Meter, Purse, Wallet, WalletEvent,
    WalletRefusal, costs,
};

/// A decision on one purse in the making.
pub(super) struct Draft<'a> {
    pub(super) wallet: &'a Wallet,
    pub(super) purse: &'a Purse,
    pub(super) asset: Asset,
    pub(super) at: Timestamp,
    pub(super) available: Units,
    pub(super) debt: Units,
    events: Vec<WalletEvent>,
}

impl<'a> Draft<'a> {
    /// Begins with what the clock has brought since the last decision: grants whose time has run out are recorded as
    /// expired first, so that `available` is what can really be spent and every running balance is right.
    pub(super) fn begin(wallet: &'a Wallet, asset: Asset, at: Timestamp) -> Self {
        let purse = wallet.purse(asset);
        let mut draft = Self {
            wallet,
            purse,
            asset,
            at,
            available: purse.available,
            debt: purse.debt,
            events: Vec::with_capacity(2),
        };
        for grant in &purse.grants {
            let lapsing = grant.lapsing(at);
            if !lapsing.is_zero() {
                draft.expire(Allocation { grant_id: grant.grant_id, amount: lapsing }, grant.expires_at);
            }
        }
        draft
    }

    pub(super) fn push(&mut self, event: WalletEvent) {
        self.events.push(event);
    }

    /// The events, each with what was paid for the credit it moves.
    pub(super) fn finish(mut self) -> Vec<WalletEvent> {
        costs::release(self.wallet, &mut self.events);
        self.events
    }

    /// Which grants pay `amount`, in burn order. What is not covered is simply missing from the sum.
    pub(super) fn allocate(&self, amount: Units) -> Vec<Allocation> {
        let mut allocations = Vec::with_capacity(1);
        let mut needed = amount;
        for grant in &self.purse.grants {
            if needed.is_zero() {
                break;
            }
            let part = grant.spendable(self.at).min(needed);
            if part.is_zero() {
                continue;
            }
            allocations.push(Allocation { grant_id: grant.grant_id, amount: part });
            needed = needed.saturating_minus(part);
        }
        allocations
    }

    /// Refuses what available does not cover.
    pub(super) fn insufficient(&self, needed: Units, available: Units) -> WalletRefusal {
        WalletRefusal::InsufficientCredit { asset: self.asset, needed, available, held: self.purse.held }
    }

    /// Records more debt, if there is any.
    pub(super) fn incur(
        &mut self,
        amount: Units,
        cause: DebtCause,
        meter: Option<Meter>,
        source_ref: String,
    ) -> Result<(), WalletRefusal> {
        if amount.is_zero() {
            return Ok(());
        }
        self.debt = self.debt.plus(amount)?;
        self.push(WalletEvent::DebtIncurred(DebtIncurred {
            asset: self.asset,
            amount,
            cause,
            meter,
            source_ref,
            debt_after: self.debt,
        }));
        Ok(())
    }

    /// What comes back from a hold or a deduction, when [`Self::settle_returned`] has anything to do with it. Mostly
    /// nothing is owed and nothing has run out of time, and then this takes no memory.
    pub(super) fn unsettled(&self, returned: &[Allocation]) -> Vec<Allocation> {
        let lapsed = |part: &Allocation| self.wallet.grant(&part.grant_id).is_some_and(|grant| grant.lapsed(self.at));
        if self.debt.is_zero() && !returned.iter().any(lapsed) { Vec::new() } else { returned.to_vec() }
    }

    /// What comes back repays debt first; what is left of it lapses when its grant's time has run out.
    pub(super) fn settle_returned(&mut self, mut returned: Vec<Allocation>) {
        self.repay(&mut returned);
        for (place, part) in returned.iter().enumerate() {
            let Some(grant) = self.wallet.grant(&part.grant_id).filter(|grant| grant.lapsed(self.at)) else { continue };
            // What came back in place of other credit does not lapse: as much of this part fills its place up again.
            let same = returned.iter().take(place).filter(|other| other.grant_id == part.grant_id);
            let free = same.fold(grant.spendable(self.at), |free, other| free.saturating_plus(other.amount));
            let kept = grant.restored.saturating_minus(free).max(Units::ZERO).min(part.amount);
            let amount = part.amount.saturating_minus(kept);
            if !amount.is_zero() {
                self.lapse_returned(Allocation { amount, ..*part });
            }
        }
    }

    /// Records that what has just come back ran out of time there and then: until now it was held or spent, and dated at
    /// the grant's end it would be gone before it came back.
    pub(super) fn lapse_returned(&mut self, part: Allocation) {
        self.expire(part, None);
    }

    /// The same for a grant that is only now being made.
    pub(super) fn settle_granted(&mut self, granted: CreditsGranted) {
        let mut part = Allocation { grant_id: granted.grant_id, amount: granted.amount };
        let expires_at = granted.expires_at;
        self.push(WalletEvent::CreditsGranted(granted));
        self.repay(std::slice::from_mut(&mut part));
        if expires_at.is_some_and(|end| end <= self.at) && !part.amount.is_zero() {
            self.expire(part, expires_at);
        }
    }

    /// Debt that was just incurred is repaid at once by whatever is free, in burn order, so that nobody who owes could
    /// spend. `taken` is what this decision has already taken.
    pub(super) fn repay_from_available(&mut self, taken: Allocation) {
        if self.debt.is_zero() {
            return;
        }
        let free = self.purse.grants.iter().map(|grant| {
            let gone = if grant.grant_id == taken.grant_id { taken.amount } else { Units::ZERO };
            Allocation { grant_id: grant.grant_id, amount: grant.spendable(self.at).saturating_minus(gone) }
        });
        let mut free: Vec<_> = free.collect();
        self.repay(&mut free);
    }

    /// Repays debt from these parts, in order, and leaves in them what is not needed.
    pub(super) fn repay(&mut self, parts: &mut [Allocation]) {
        for part in parts {
            let repaid = part.amount.min(self.debt);
            if repaid.is_zero() {
                continue;
            }
            part.amount = part.amount.saturating_minus(repaid);
            self.debt = self.debt.saturating_minus(repaid);
            self.available = self.available.saturating_minus(repaid);
            self.push(WalletEvent::DebtRepaid(DebtRepaid {
                asset: self.asset,
                amount: repaid,
                grant_id: part.grant_id,
                released: Vec::new(),
                debt_after: self.debt,
                available_after: self.available,
            }));
        }
    }

    /// Records that this part of a grant ran out of time: at the grant's own end, or now where that is none.
    pub(super) fn expire(&mut self, part: Allocation, expired_at: Option<Timestamp>) {
        self.available = self.available.saturating_minus(part.amount);
        self.push(WalletEvent::GrantExpired(GrantExpired {
            grant_id: part.grant_id,
            asset: self.asset,
            amount: part.amount,
            expired_at,
            released: Vec::new(),
            available_after: self.available,
        }));
    }
}
