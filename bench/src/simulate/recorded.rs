//! What the log says: wallet events as they are stored, folded into plain sums, each held to what one event must keep to.

use std::collections::{BTreeMap, BTreeSet};

use calos_domain::wallet::{
    Allocation, CreditsDeducted, CreditsTaken, DeductionReversed, GrantRestored, HoldReleased, WalletEvent,
};
use calos_domain::{Asset, GrantId, HoldId, Units};

use super::figures::{Figures, Line, Part, Sum, sum};
use super::judging::thaws;

/// One wallet's stream, as far as it was read.
#[derive(Clone, Default, Debug)]
pub struct Recorded {
    /// Where everything is by it.
    pub figures: Figures,
    /// The last event's sequence.
    pub sequence: i64,
    ended: BTreeSet<HoldId>,
    /// What each claim took unspent.
    claims: BTreeMap<(GrantId, String), Sum>,
}

/// An amount as a sum.
pub fn wide(amount: Units) -> Sum {
    Sum::from(amount.get())
}

/// Allocations as parts.
pub fn parts(allocations: &[Allocation]) -> Vec<Part> {
    allocations.iter().map(|part| (part.grant_id, wide(part.amount))).collect()
}

impl Recorded {
    /// Takes the next event in.
    ///
    /// # Errors
    /// What about it breaks a rule.
    pub fn fold(&mut self, event: &WalletEvent) -> Result<(), String> {
        self.sequence += 1;
        match event {
            WalletEvent::WalletOpened(_) | WalletEvent::UsageRecorded(_) => Ok(()),
            WalletEvent::WalletFrozen(frozen) => {
                if self.figures.frozen.insert((frozen.cause, frozen.source_ref.clone())) {
                    Ok(())
                } else {
                    Err("frozen twice".to_owned())
                }
            }
            WalletEvent::WalletThawed(thawed) => {
                let before = self.figures.frozen.len();
                self.figures.frozen.retain(|known| !thaws(thawed.cause, thawed.source_ref.as_ref(), known));
                if self.figures.frozen.len() < before { Ok(()) } else { Err("thawed twice".to_owned()) }
            }
            WalletEvent::CreditsGranted(granted) => {
                let line = Line::new(granted.asset, wide(granted.amount));
                if self.figures.lines.insert(granted.grant_id, line).is_some() {
                    return Err(format!("grant {} was granted twice", granted.grant_id));
                }
                self.stands(granted.asset, granted.available_after)
            }
            WalletEvent::HoldPlaced(placed) => {
                let parts = parts(&placed.allocations);
                equal("the allocations of a hold", sum(&parts), wide(placed.amount))?;
                if self.ended.contains(&placed.hold_id) {
                    return Err(format!("hold {} was placed again after its end", placed.hold_id));
                }
                self.figures.hold(placed.hold_id, placed.asset, parts)?;
                self.stands(placed.asset, placed.available_after)
            }
            WalletEvent::CreditsDeducted(deducted) => self.deducted(deducted),
            WalletEvent::HoldReleased(released) => self.released(released),
            WalletEvent::DeductionReversed(reversed) => self.reversed(reversed),
            WalletEvent::GrantExpired(expired) => {
                let line = self.figures.line(expired.grant_id)?;
                line.available -= wide(expired.amount);
                line.expired += wide(expired.amount);
                self.stands(expired.asset, expired.available_after)
            }
            WalletEvent::GrantVoided(voided) => {
                let line = self.figures.line(voided.grant_id)?;
                line.available -= wide(voided.amount);
                line.voided += wide(voided.amount);
                let claim = (voided.grant_id, voided.source_ref.clone());
                if self.claims.insert(claim, wide(voided.amount)).is_some() {
                    return Err(format!("{} claimed twice", voided.source_ref));
                }
                self.stands(voided.asset, voided.available_after)
            }
            WalletEvent::GrantRestored(restored) => self.restored(restored),
            WalletEvent::CreditsTaken(taken) => self.taken(taken),
            WalletEvent::DebtIncurred(incurred) => {
                *self.figures.debt_mut(incurred.asset) += wide(incurred.amount);
                self.owes(incurred.asset, incurred.debt_after)
            }
            WalletEvent::DebtRepaid(repaid) => {
                self.figures.spend(&[(repaid.grant_id, wide(repaid.amount))])?;
                *self.figures.debt_mut(repaid.asset) -= wide(repaid.amount);
                self.owes(repaid.asset, repaid.debt_after)?;
                self.stands(repaid.asset, repaid.available_after)
            }
        }
    }

    fn deducted(&mut self, deducted: &CreditsDeducted) -> Result<(), String> {
        let before = self.figures.available(deducted.asset);
        let open = deducted.hold_id.filter(|hold_id| self.figures.holds.contains_key(hold_id));
        let held = match open {
            Some(hold_id) => self.end(hold_id)?,
            None => 0,
        };
        equal("what a settled hold kept", held, wide(deducted.held))?;
        let parts = parts(&deducted.allocations);
        equal("the allocations of a deduction", sum(&parts), wide(deducted.amount))?;
        if sum(&parts) > held + before {
            return Err(format!("{} were settled of {held} held and {before} available", sum(&parts)));
        }
        equal("what went back", (held - sum(&parts)).max(0), wide(deducted.returned))?;
        equal("where it went back to", sum(&self::parts(&deducted.returned_to)), wide(deducted.returned))?;
        self.figures.spend(&parts)?;
        self.stands(deducted.asset, deducted.available_after)
    }

    fn released(&mut self, released: &HoldReleased) -> Result<(), String> {
        let kept = self.figures.holds.get(&released.hold_id).map(|kept| kept.parts.clone()).unwrap_or_default();
        if kept != parts(&released.returned_to) {
            return Err(format!("a hold of {kept:?} went back to {:?}", released.returned_to));
        }
        equal("what a released hold kept", self.end(released.hold_id)?, wide(released.amount))?;
        self.stands(released.asset, released.available_after)
    }

    fn restored(&mut self, restored: &GrantRestored) -> Result<(), String> {
        let claim = (restored.grant_id, restored.source_ref.clone());
        // Taken out, so that a claim undone twice is found.
        let voided = self.claims.remove(&claim).ok_or_else(|| format!("{} was not claimed", restored.source_ref))?;
        let line = self.figures.line(restored.grant_id)?;
        line.available += wide(restored.amount);
        line.voided -= voided;
        line.restored += wide(restored.amount) - voided;
        *self.figures.debt_mut(restored.asset) -= wide(restored.debt_cancelled);
        self.owes(restored.asset, restored.debt_after)?;
        self.stands(restored.asset, restored.available_after)
    }

    fn taken(&mut self, taken: &CreditsTaken) -> Result<(), String> {
        let parts = parts(&taken.allocations);
        equal("the allocations of a taking", sum(&parts), wide(taken.amount))?;
        for (grant_id, amount) in parts {
            let line = self.figures.line(grant_id)?;
            line.available -= amount;
            line.taken += amount;
        }
        self.stands(taken.asset, taken.available_after)
    }

    fn reversed(&mut self, reversed: &DeductionReversed) -> Result<(), String> {
        let parts = parts(&reversed.allocations);
        equal("the allocations of a reversal", sum(&parts), wide(reversed.amount))?;
        for (grant_id, amount) in parts {
            let line = self.figures.line(grant_id)?;
            line.spent -= amount;
            line.available += amount;
        }
        self.stands(reversed.asset, reversed.available_after)
    }

    fn end(&mut self, hold_id: HoldId) -> Result<Sum, String> {
        let kept = self.figures.unhold(hold_id)?;
        if self.ended.insert(hold_id) { Ok(sum(&kept.parts)) } else { Err(format!("hold {hold_id} ended twice")) }
    }

    fn stands(&self, asset: Asset, stated: Units) -> Result<(), String> {
        equal("the running balance", self.figures.available(asset), wide(stated))
    }

    fn owes(&self, asset: Asset, stated: Units) -> Result<(), String> {
        equal("the running debt", self.figures.debt(asset), wide(stated))
    }
}

fn equal(what: &str, sums_to: Sum, stated: Sum) -> Result<(), String> {
    if sums_to == stated { Ok(()) } else { Err(format!("{what} comes to {sums_to}, the event says {stated}")) }
}
