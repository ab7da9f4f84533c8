//! How each event changes what a wallet remembers. Nothing is refused here: what happened, happened.

use crate::{Asset, GrantId, Units};

use super::state::{DebtOf, Freeze};
use super::uses::{Known, id_moment};
use super::{
    CreditsDeducted, CreditsGranted, CreditsTaken, DebtIncurred, DebtRepaid, Deduction, DeductionReversed, Drawn,
    EndedUse, Ending, GRANTS_REMEMBERED_MAX_COUNT, Grant, GrantExpired, GrantRestored, GrantVoided, HoldPlaced,
    HoldReleased, OpenHold, Purse, UsageRecorded, Wallet, WalletEvent, burn_order, prints,
};

impl Wallet {
    pub(super) fn fold(&mut self, event: &WalletEvent) {
        match event {
            WalletEvent::WalletOpened(opened) => self.tenant = Some(opened.tenant_id),
            WalletEvent::CreditsGranted(granted) => self.granted(granted),
            WalletEvent::HoldPlaced(placed) => self.placed(placed),
            WalletEvent::UsageRecorded(usage) => self.metered(usage),
            WalletEvent::CreditsDeducted(deducted) => self.deducted(deducted),
            WalletEvent::HoldReleased(released) => self.released(released),
            WalletEvent::DeductionReversed(reversed) => self.reversed(reversed),
            WalletEvent::GrantExpired(expired) => self.expired(expired),
            WalletEvent::GrantVoided(voided) => self.voided(voided),
            WalletEvent::GrantRestored(restored) => self.restored(restored),
            WalletEvent::CreditsTaken(taken) => self.taken(taken),
            WalletEvent::DebtIncurred(incurred) => self.indebted(incurred),
            WalletEvent::DebtRepaid(repaid) => self.repaid(repaid),
            WalletEvent::WalletFrozen(frozen) => {
                let freeze = Freeze::new(frozen.cause, frozen.source_ref.as_deref());
                if !self.frozen.contains(&freeze) {
                    self.frozen.push(freeze);
                    self.frozen.sort_unstable();
                }
            }
            WalletEvent::WalletThawed(thawed) => {
                let ended = Freeze::new(thawed.cause, thawed.source_ref.as_deref());
                self.frozen.retain(|known| !ended.ends(known));
            }
        }
    }

    const fn purse_mut(&mut self, asset: Asset) -> &mut Purse {
        match asset {
            Asset::Usd => &mut self.usd,
            Asset::Credit => &mut self.credit,
        }
    }

    fn granted(&mut self, granted: &CreditsGranted) {
        self.granted_count = self.granted_count.saturating_add(1);
        let grant = Grant::new(self.granted_count, granted);
        let purse = self.purse_mut(granted.asset);
        purse.available = purse.available.saturating_plus(granted.amount);
        purse.granted = purse.granted.saturating_plus(granted.amount);
        purse.insert(grant);
    }

    fn placed(&mut self, placed: &HoldPlaced) {
        let purse = self.purse_mut(placed.asset);
        for part in &placed.allocations {
            if let Some(grant) = purse.grant_mut(part.grant_id) {
                grant.available = grant.available.saturating_minus(part.amount);
                grant.held = grant.held.saturating_plus(part.amount);
            }
        }
        purse.available = purse.available.saturating_minus(placed.amount);
        purse.held = purse.held.saturating_plus(placed.amount);
        self.uses.place(placed);
        self.callers.placed(placed);
    }

    fn metered(&mut self, usage: &UsageRecorded) {
        if let Some(key) = &usage.api_key_id {
            // A use belongs to the period its hold was placed in; where that is gone, its id still tells when it began.
            let at = match self.uses.get(usage.usage_id.0) {
                Some(Known::Open(_, hold)) => hold.admitted_at,
                Some(Known::Ended(_)) | None => id_moment(usage.usage_id.0),
            };
            self.callers.spent(key, usage.total, at);
        }
        self.last = Some(DebtOf::Use(usage.usage_id, prints::of_usage(usage)));
    }

    fn deducted(&mut self, deducted: &CreditsDeducted) {
        let open = deducted.hold_id.and_then(|hold_id| self.uses.take(hold_id));
        // An expired hold that is settled after all keeps what it was placed with.
        let expired =
            deducted.hold_id.and_then(|hold_id| self.uses.ended_hold(hold_id)).map_or(0, |ended| ended.placed);
        let placed = open.as_ref().map_or(expired, |hold| hold.print);
        if let Some(hold) = &open {
            self.callers.ended(hold);
        }
        let purse = self.purse_mut(deducted.asset);
        if let Some(hold) = &open {
            purse.unhold(hold);
        }
        let mut drawn = Vec::with_capacity(deducted.allocations.len());
        for part in &deducted.allocations {
            if let Some(grant) = purse.grant_mut(part.grant_id) {
                grant.available = grant.available.saturating_minus(part.amount);
                drawn.push(Drawn(grant.number, part.amount));
            }
        }
        purse.available = purse.available.saturating_minus(deducted.amount);
        self.close_grants(deducted.asset);
        let usage = match self.last {
            Some(DebtOf::Use(usage_id, print)) if usage_id == deducted.usage_id => print,
            Some(DebtOf::Use(..) | DebtOf::Claim(_)) | None => 0,
        };
        let deduction = Deduction {
            usage,
            meter: deducted.meter,
            asked: deducted.amount,
            drawn: drawn.into_boxed_slice(),
            reversed: Units::ZERO,
        };
        self.uses.end(EndedUse {
            usage_id: deducted.usage_id,
            hold_id: deducted.hold_id,
            asset: deducted.asset,
            placed,
            ending: Ending::Deducted(deduction),
        });
    }

    fn released(&mut self, released: &HoldReleased) {
        let Some(hold) = self.uses.take(released.hold_id) else { return };
        self.purse_mut(released.asset).unhold(&hold);
        self.callers.ended(&hold);
        self.uses.end(EndedUse {
            usage_id: hold.usage_id,
            hold_id: Some(released.hold_id),
            asset: hold.asset,
            placed: hold.print,
            ending: Ending::Released(released.cause),
        });
    }

    fn reversed(&mut self, reversed: &DeductionReversed) {
        for part in &reversed.allocations {
            self.reopen_grant(part.grant_id);
            if let Some(grant) = self.purse_mut(reversed.asset).grant_mut(part.grant_id) {
                grant.available = grant.available.saturating_plus(part.amount);
            }
        }
        let purse = self.purse_mut(reversed.asset);
        purse.available = purse.available.saturating_plus(reversed.amount);
        if let Some(deduction) = self.uses.deduction_mut(reversed.usage_id) {
            deduction.reversed = deduction.reversed.saturating_plus(reversed.amount);
        }
    }

    fn expired(&mut self, expired: &GrantExpired) {
        let purse = self.purse_mut(expired.asset);
        purse.available = purse.available.saturating_minus(expired.amount);
        // One with nothing left is put on record as well, and may be closed.
        if let Some(grant) = self.any_grant_mut(expired.grant_id) {
            grant.available = grant.available.saturating_minus(expired.amount);
            grant.expired = grant.expired.saturating_plus(expired.amount);
            grant.expiry_recorded = true;
        }
        self.close_grants(expired.asset);
    }

    fn voided(&mut self, voided: &GrantVoided) {
        let purse = self.purse_mut(voided.asset);
        purse.available = purse.available.saturating_minus(voided.amount);
        if let Some(grant) = self.any_grant_mut(voided.grant_id) {
            grant.void(voided);
        }
        self.close_grants(voided.asset);
        self.last = Some(DebtOf::Claim(voided.grant_id));
    }

    fn restored(&mut self, restored: &GrantRestored) {
        if !restored.amount.is_zero() {
            self.reopen_grant(restored.grant_id);
        }
        let purse = self.purse_mut(restored.asset);
        purse.available = purse.available.saturating_plus(restored.amount);
        purse.debt = purse.debt.saturating_minus(restored.debt_cancelled);
        if let Some(grant) = self.any_grant_mut(restored.grant_id) {
            grant.restore(restored);
        }
    }

    fn taken(&mut self, taken: &CreditsTaken) {
        let purse = self.purse_mut(taken.asset);
        purse.available = purse.available.saturating_minus(taken.amount);
        for part in &taken.allocations {
            if let Some(grant) = purse.grant_mut(part.grant_id) {
                grant.available = grant.available.saturating_minus(part.amount);
                grant.taken = grant.taken.saturating_plus(part.amount);
            }
        }
        self.close_grants(taken.asset);
        self.takings.remember(taken);
    }

    fn indebted(&mut self, incurred: &DebtIncurred) {
        let purse = self.purse_mut(incurred.asset);
        purse.debt = purse.debt.saturating_plus(incurred.amount);
        match self.last {
            Some(DebtOf::Use(usage_id, _)) => {
                if let Some(deduction) = self.uses.deduction_mut(usage_id) {
                    deduction.asked = deduction.asked.saturating_plus(incurred.amount);
                }
            }
            Some(DebtOf::Claim(grant_id)) => {
                if let Some(grant) = self.any_grant_mut(grant_id) {
                    grant.charge_back(incurred.amount);
                }
            }
            None => {}
        }
    }

    fn repaid(&mut self, repaid: &DebtRepaid) {
        let purse = self.purse_mut(repaid.asset);
        purse.debt = purse.debt.saturating_minus(repaid.amount);
        purse.available = purse.available.saturating_minus(repaid.amount);
        if let Some(grant) = purse.grant_mut(repaid.grant_id) {
            grant.available = grant.available.saturating_minus(repaid.amount);
        }
        self.close_grants(repaid.asset);
    }

    fn any_grant_mut(&mut self, grant_id: GrantId) -> Option<&mut Grant> {
        let open = self.usd.grants.iter_mut().chain(&mut self.credit.grants);
        open.chain(&mut self.closed).find(|grant| grant.grant_id == grant_id)
    }

    /// Moves grants with nothing left out of the way, and forgets the oldest of those beyond the bound.
    fn close_grants(&mut self, asset: Asset) {
        let purse = match asset {
            Asset::Usd => &mut self.usd,
            Asset::Credit => &mut self.credit,
        };
        if !purse.grants.iter().any(Grant::is_closed) {
            return;
        }
        self.closed.extend(purse.grants.extract_if(.., |grant| grant.is_closed()));
        while self.closed.len() > GRANTS_REMEMBERED_MAX_COUNT {
            if let Some(forgotten) = self.closed.pop_front() {
                self.forgotten_grants = self.forgotten_grants.max(Some(forgotten.effective_at));
            }
        }
    }

    /// Brings a closed grant back before credit returns to it.
    fn reopen_grant(&mut self, grant_id: GrantId) {
        let Some(place) = self.closed.iter().position(|grant| grant.grant_id == grant_id) else { return };
        if let Some(grant) = self.closed.remove(place) {
            self.purse_mut(grant.asset).insert(grant);
        }
    }
}

impl Purse {
    fn grant_mut(&mut self, grant_id: GrantId) -> Option<&mut Grant> {
        self.grants.iter_mut().find(|grant| grant.grant_id == grant_id)
    }

    fn insert(&mut self, grant: Grant) {
        let key = grant.burn_key();
        let place = self.grants.partition_point(|other| burn_order(&other.burn_key(), &key).is_lt());
        self.grants.insert(place, grant);
    }

    /// Puts a hold's credit back where it came from.
    fn unhold(&mut self, hold: &OpenHold) {
        for part in &hold.allocations {
            if let Some(grant) = self.grant_mut(part.grant_id) {
                grant.held = grant.held.saturating_minus(part.amount);
                grant.available = grant.available.saturating_plus(part.amount);
            }
        }
        self.held = self.held.saturating_minus(hold.amount);
        self.available = self.available.saturating_plus(hold.amount);
    }
}
