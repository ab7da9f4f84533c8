//! The events of one decision while they are being drawn up, with the running figures each of them carries.

use crate::{Asset, Timestamp, Units};

use super::{
    Allocation, CreditsGranted, DebtCause, DebtIncurred, DebtRepaid, GrantExpired, Purse, Wallet, WalletEvent,
    WalletRefusal,
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
            if grant.lapsed(at) && !grant.available.is_zero() {
                draft.expire(Allocation { grant_id: grant.grant_id, amount: grant.available });
            }
        }
        draft
    }

    pub(super) fn push(&mut self, event: WalletEvent) {
        self.events.push(event);
    }

    pub(super) fn finish(self) -> Vec<WalletEvent> {
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
            let part = grant.available.min(needed);
            if part.is_zero() || grant.lapsed(self.at) {
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
    pub(super) fn incur(&mut self, amount: Units, cause: DebtCause, source_ref: String) -> Result<(), WalletRefusal> {
        if amount.is_zero() {
            return Ok(());
        }
        self.debt = self.debt.plus(amount)?;
        self.push(WalletEvent::DebtIncurred(DebtIncurred {
            asset: self.asset,
            amount,
            cause,
            source_ref,
            debt_after: self.debt,
        }));
        Ok(())
    }

    /// What comes in or comes back repays debt first; what is left of it lapses when its grant's time has run out.
    pub(super) fn settle_returned(&mut self, returned: &[Allocation]) {
        let mut left = returned.to_vec();
        for part in &mut left {
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
                debt_after: self.debt,
                available_after: self.available,
            }));
        }
        for part in left {
            let lapsed = self.wallet.grant(&part.grant_id).is_some_and(|grant| grant.lapsed(self.at));
            if lapsed && !part.amount.is_zero() {
                self.expire(part);
            }
        }
    }

    /// The same for a grant that is only now being made.
    pub(super) fn settle_granted(&mut self, granted: CreditsGranted) {
        let part = Allocation { grant_id: granted.grant_id, amount: granted.amount };
        let lapsed = granted.expires_at.is_some_and(|end| end <= self.at);
        let debt = self.debt;
        self.push(WalletEvent::CreditsGranted(granted));
        self.settle_returned(&[part]);
        let left = part.amount.saturating_minus(debt);
        if lapsed && left.get() > 0 {
            self.expire(Allocation { amount: left, ..part });
        }
    }

    fn expire(&mut self, part: Allocation) {
        self.available = self.available.saturating_minus(part.amount);
        self.push(WalletEvent::GrantExpired(GrantExpired {
            grant_id: part.grant_id,
            asset: self.asset,
            amount: part.amount,
            available_after: self.available,
        }));
    }
}
