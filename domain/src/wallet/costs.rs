//! What was paid for credit, as it stops being owed: added to a decision's events once they are drawn up.

use std::collections::BTreeMap;

use crate::{GrantId, MicroUsd, Units};

use super::{Allocation, CostReleased, GrantKind, Wallet, WalletEvent};

/// Adds to each event what was paid for the credit that it spends, lets expire, takes or brings back. Credit that was
/// given away has no price, and costs nothing here either: no memory is taken for it.
pub(super) fn release(wallet: &Wallet, events: &mut [WalletEvent]) {
    let mut pass = Pass { wallet, made: None, left: BTreeMap::new() };
    for event in events {
        pass.take(event);
    }
}

/// What is still owed of a price when `left` of `amount` units are neither spent, expired, claimed back nor taken. More
/// than all can be left where a claim was undone, and then the whole price is owed.
pub(super) fn deferred(cost_basis: MicroUsd, amount: Units, left: Units) -> MicroUsd {
    let amount = i128::from(amount.get().max(1));
    let gone = amount - i128::from(left.get()).clamp(0, amount);
    let released = i128::from(cost_basis.get()) * gone / amount;
    // The quotient lies between nothing and the whole price.
    cost_basis.saturating_minus(MicroUsd::new(i64::try_from(released).unwrap_or(cost_basis.get())))
}

/// Which way credit goes.
#[derive(Clone, Copy)]
enum Way {
    Gone,
    Back,
}

/// What a grant cost, and what is left of it before the decision.
#[derive(Clone, Copy)]
struct Price {
    grant_id: GrantId,
    kind: GrantKind,
    cost_basis: MicroUsd,
    amount: Units,
    left: Units,
}

struct Pass<'a> {
    wallet: &'a Wallet,
    /// The grant the decision itself makes.
    made: Option<Price>,
    /// What is left of the grants that had a price and were met on the way.
    left: BTreeMap<GrantId, Units>,
}

impl Pass<'_> {
    fn take(&mut self, event: &mut WalletEvent) {
        let one = |grant_id: GrantId, amount: Units| [Allocation { grant_id, amount }];
        match event {
            WalletEvent::CreditsGranted(granted) => {
                self.made = Some(Price {
                    grant_id: granted.grant_id,
                    kind: granted.kind,
                    cost_basis: granted.cost_basis,
                    amount: granted.amount,
                    left: granted.amount,
                });
            }
            WalletEvent::CreditsDeducted(event) => self.add(&event.allocations, Way::Gone, &mut event.released),
            WalletEvent::CreditsTaken(event) => self.add(&event.allocations, Way::Gone, &mut event.released),
            WalletEvent::DeductionReversed(event) => self.add(&event.allocations, Way::Back, &mut event.released),
            WalletEvent::GrantExpired(event) => {
                self.add(&one(event.grant_id, event.amount), Way::Gone, &mut event.released);
            }
            WalletEvent::GrantVoided(event) => {
                self.add(&one(event.grant_id, event.amount), Way::Gone, &mut event.released);
            }
            WalletEvent::DebtRepaid(event) => {
                self.add(&one(event.grant_id, event.amount), Way::Gone, &mut event.released);
            }
            WalletEvent::GrantRestored(event) => {
                self.add(&one(event.grant_id, event.amount), Way::Back, &mut event.released);
            }
            WalletEvent::WalletOpened(_)
            | WalletEvent::HoldPlaced(_)
            | WalletEvent::UsageRecorded(_)
            | WalletEvent::HoldReleased(_)
            | WalletEvent::DebtIncurred(_)
            | WalletEvent::WalletFrozen(_)
            | WalletEvent::WalletThawed(_) => {}
        }
    }

    fn add(&mut self, parts: &[Allocation], way: Way, released: &mut Vec<CostReleased>) {
        for part in parts {
            let Some(price) = self.price(part.grant_id) else { continue };
            let before = self.left.get(&part.grant_id).copied().unwrap_or(price.left);
            let after = match way {
                Way::Gone => before.saturating_minus(part.amount),
                Way::Back => before.saturating_plus(part.amount),
            };
            self.left.insert(part.grant_id, after);
            let owed = |left| deferred(price.cost_basis, price.amount, left);
            let amount = owed(before).saturating_minus(owed(after));
            match released.iter_mut().find(|known| known.kind == price.kind) {
                Some(known) => known.amount = known.amount.saturating_plus(amount),
                None if amount.is_zero() => {}
                None => released.push(CostReleased { kind: price.kind, amount }),
            }
        }
    }

    /// What the grant cost; none for one that was given away.
    fn price(&self, grant_id: GrantId) -> Option<Price> {
        if let Some(made) = self.made.filter(|made| made.grant_id == grant_id) {
            return (!made.cost_basis.is_zero()).then_some(made);
        }
        let grant = self.wallet.grant(&grant_id)?;
        if grant.cost_basis.is_zero() {
            return None;
        }
        let left = grant.available.saturating_plus(grant.held);
        let (kind, cost_basis, amount) = (grant.kind, grant.cost_basis, grant.amount);
        Some(Price { grant_id, kind, cost_basis, amount, left })
    }
}
