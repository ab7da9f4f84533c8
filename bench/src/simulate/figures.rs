//! Where every unit of a wallet is: what the model comes to from commands, and the record from events, so that the two can be
//! held against each other.

use std::collections::{BTreeMap, BTreeSet};

use calos_domain::wallet::FreezeCause;
use calos_domain::{Asset, GrantId, HoldId};

/// A sum of units; wide enough that no sum of 64-bit amounts leaves it.
pub type Sum = i128;

/// How much of which grant.
pub type Part = (GrantId, Sum);

/// One grant: `granted + restored = available + held + spent + expired + voided + taken`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// In which asset.
    pub asset: Asset,
    /// All of it.
    pub granted: Sum,
    /// What came back here when a claim was undone whose debt other credit had repaid.
    pub restored: Sum,
    /// Free to be spent.
    pub available: Sum,
    /// Kept by open holds.
    pub held: Sum,
    /// Spent, repaid debt included.
    pub spent: Sum,
    /// Ran out of time.
    pub expired: Sum,
    /// Claimed back unspent.
    pub voided: Sum,
    /// Taken by adjustments.
    pub taken: Sum,
}

impl Line {
    /// A grant nothing was spent of.
    pub const fn new(asset: Asset, granted: Sum) -> Self {
        Self { asset, granted, restored: 0, available: granted, held: 0, spent: 0, expired: 0, voided: 0, taken: 0 }
    }
}

/// What an open hold keeps, in burn order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// In which asset.
    pub asset: Asset,
    /// From which grants.
    pub parts: Vec<Part>,
}

/// A whole wallet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Its grants.
    pub lines: BTreeMap<GrantId, Line>,
    /// Its open holds.
    pub holds: BTreeMap<HoldId, Kept>,
    /// What is owed, by asset.
    pub debts: [Sum; 2],
    /// Why spending is stopped: each cause, and the dispute or case behind it.
    pub frozen: BTreeSet<(FreezeCause, Option<String>)>,
}

/// The sum of these parts.
pub fn sum(parts: &[Part]) -> Sum {
    parts.iter().map(|part| part.1).sum()
}

impl Figures {
    /// Owed in this asset.
    pub const fn debt(&self, asset: Asset) -> Sum {
        self.debts[asset as usize]
    }

    /// The same, to be changed.
    pub const fn debt_mut(&mut self, asset: Asset) -> &mut Sum {
        &mut self.debts[asset as usize]
    }

    /// The grants of this asset.
    pub fn of(&self, asset: Asset) -> impl Iterator<Item = (&GrantId, &Line)> {
        self.lines.iter().filter(move |(_, line)| line.asset == asset)
    }

    /// Free in this asset, lapsed grants whose expiry is not recorded included.
    pub fn available(&self, asset: Asset) -> Sum {
        self.of(asset).map(|(_, line)| line.available).sum()
    }

    /// Kept by open holds in this asset.
    pub fn held(&self, asset: Asset) -> Sum {
        self.holds.values().filter(|kept| kept.asset == asset).map(|kept| sum(&kept.parts)).sum()
    }

    /// A grant that must be there.
    ///
    /// # Errors
    /// It is not.
    pub fn line(&mut self, grant_id: GrantId) -> Result<&mut Line, String> {
        self.lines.get_mut(&grant_id).ok_or_else(|| format!("grant {grant_id} was never granted"))
    }

    /// Opens a hold on these parts.
    ///
    /// # Errors
    /// It is open already, or of a grant that is not there.
    pub fn hold(&mut self, hold_id: HoldId, asset: Asset, parts: Vec<Part>) -> Result<(), String> {
        for (grant_id, amount) in &parts {
            let line = self.line(*grant_id)?;
            line.available -= amount;
            line.held += amount;
        }
        match self.holds.insert(hold_id, Kept { asset, parts }) {
            None => Ok(()),
            Some(_) => Err(format!("hold {hold_id} was placed while it was open")),
        }
    }

    /// Ends a hold: all of it goes back to where it came from.
    ///
    /// # Errors
    /// It is not open.
    pub fn unhold(&mut self, hold_id: HoldId) -> Result<Kept, String> {
        let kept = self.holds.remove(&hold_id).ok_or_else(|| format!("hold {hold_id} ended without being open"))?;
        for (grant_id, amount) in &kept.parts {
            let line = self.line(*grant_id)?;
            line.held -= amount;
            line.available += amount;
        }
        Ok(kept)
    }

    /// Spends these parts of what is available.
    ///
    /// # Errors
    /// A grant is not there.
    pub fn spend(&mut self, parts: &[Part]) -> Result<(), String> {
        for (grant_id, amount) in parts {
            let line = self.line(*grant_id)?;
            line.available -= amount;
            line.spent += amount;
        }
        Ok(())
    }

    /// Invariants 2 and 3: nothing is negative, each grant adds up, and what is held is the sum of the open holds.
    ///
    /// # Errors
    /// What does not hold, with the figures.
    pub fn check(&self) -> Result<(), String> {
        let mut held: BTreeMap<GrantId, Sum> = BTreeMap::new();
        for (grant_id, amount) in self.holds.values().flat_map(|kept| &kept.parts) {
            *held.entry(*grant_id).or_default() += amount;
        }
        for (grant_id, line) in &self.lines {
            let parts = [line.available, line.held, line.spent, line.expired, line.voided, line.taken];
            if parts.iter().any(|part| *part < 0) {
                return Err(format!("grant {grant_id} has something below zero: {line:?}"));
            }
            if parts.iter().sum::<Sum>() != line.granted + line.restored {
                return Err(format!("grant {grant_id} does not add up: {line:?}"));
            }
            let kept = held.get(grant_id).copied().unwrap_or_default();
            if kept != line.held {
                return Err(format!("open holds keep {kept} of grant {grant_id}, which says {line:?}"));
            }
        }
        if self.debts.iter().any(|debt| *debt < 0) {
            return Err(format!("a debt is below zero: {:?}", self.debts));
        }
        Ok(())
    }

    /// The first thing in which the record differs from this model; none when nothing does.
    pub fn difference(&self, recorded: &Self) -> Option<String> {
        if self == recorded {
            return None;
        }
        for grant_id in self.lines.keys().chain(recorded.lines.keys()) {
            let (model, log) = (self.lines.get(grant_id), recorded.lines.get(grant_id));
            if model != log {
                return Some(format!("grant {grant_id}: the model has {model:?}, the log {log:?}"));
            }
        }
        for hold_id in self.holds.keys().chain(recorded.holds.keys()) {
            let (model, log) = (self.holds.get(hold_id), recorded.holds.get(hold_id));
            if model != log {
                return Some(format!("hold {hold_id}: the model has {model:?}, the log {log:?}"));
            }
        }
        Some(format!(
            "the model owes {:?} and is frozen for {:?}, the log {:?} for {:?}",
            self.debts, self.frozen, recorded.debts, recorded.frozen
        ))
    }
}
