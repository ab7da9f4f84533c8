//! The ledger's rules once more, from commands to figures, written from the design and not from the wallet's code.

use std::collections::BTreeMap;

use calos_commands::adjustments::AdjustRefusal;
use calos_commands::payments::PaymentRefusal;
use calos_domain::adjustment::AdjustmentRefusal;
use calos_domain::payment::FactRefusal;
use calos_domain::wallet::{GrantKind, Meter, ReleaseCause, UsageRecorded, WalletRefusal};
use calos_domain::{AdjustmentId, Asset, GrantId, HoldId, UsageId};

use super::burning::{Candidate, draw};
use super::figures::{Figures, Line, Part, Sum};

/// Why a command is refused, as far as the model tells reasons apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// Spending is stopped.
    Frozen,
    /// There is not enough; this much there is, with the debt that would be allowed.
    Insufficient(Sum),
    /// The id stands for something else.
    IdReused,
    /// The hold ended another way.
    HoldEnded,
    /// No such hold.
    NoSuchHold,
    /// Its time has not run out.
    NotDue,
    /// It would happen at a moment to come.
    NotYet,
    /// No such grant.
    NoSuchGrant,
    /// More is claimed than is left to claim.
    ClaimTooLarge,
    /// No such claim.
    NoSuchClaim,
    /// No such use, or none that was paid for.
    NoSuchUse,
    /// More is to be undone than was deducted, or less than is undone.
    OutOfBounds,
    /// An amount below what is allowed.
    TooSmall,
    /// No such adjustment.
    NotProposed,
    /// The adjustment is decided, or lapsed.
    Ended,
    /// Nobody approves what they proposed.
    OwnProposal,
    /// Nobody approves twice.
    ApprovedBefore,
    /// No number of approvals is enough.
    OverLimit,
    /// Anything the model does not bring about.
    Other(String),
}

impl From<&PaymentRefusal> for Why {
    fn from(refusal: &PaymentRefusal) -> Self {
        match refusal {
            PaymentRefusal::Fact(FactRefusal::OtherContent(_)) => Self::IdReused,
            PaymentRefusal::Fact(FactRefusal::NotYet { .. }) => Self::NotYet,
            PaymentRefusal::Fact(other) => Self::Other(other.to_string()),
            PaymentRefusal::Wallet(refusal) => Self::from(refusal),
        }
    }
}

impl From<&AdjustRefusal> for Why {
    fn from(refusal: &AdjustRefusal) -> Self {
        match refusal {
            AdjustRefusal::Wallet(refusal) => Self::from(refusal),
            AdjustRefusal::Adjustment(AdjustmentRefusal::NotProposed) => Self::NotProposed,
            AdjustRefusal::Adjustment(AdjustmentRefusal::IdReused(_)) => Self::IdReused,
            AdjustRefusal::Adjustment(AdjustmentRefusal::Nothing) => Self::TooSmall,
            AdjustRefusal::Adjustment(AdjustmentRefusal::OverLimit { .. }) => Self::OverLimit,
            AdjustRefusal::Adjustment(AdjustmentRefusal::OwnProposal) => Self::OwnProposal,
            AdjustRefusal::Adjustment(AdjustmentRefusal::ApprovedBefore { .. }) => Self::ApprovedBefore,
            AdjustRefusal::Adjustment(
                AdjustmentRefusal::Applied { .. }
                | AdjustmentRefusal::Rejected { .. }
                | AdjustmentRefusal::Lapsed { .. },
            ) => Self::Ended,
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<&WalletRefusal> for Why {
    fn from(refusal: &WalletRefusal) -> Self {
        match refusal {
            WalletRefusal::Frozen => Self::Frozen,
            WalletRefusal::InsufficientCredit { available, .. } => Self::Insufficient(Sum::from(available.get())),
            WalletRefusal::IdReused { .. } => Self::IdReused,
            WalletRefusal::HoldEnded(_) => Self::HoldEnded,
            WalletRefusal::NoSuchHold(_) => Self::NoSuchHold,
            WalletRefusal::NotDue { .. } => Self::NotDue,
            WalletRefusal::NoSuchGrant(_) => Self::NoSuchGrant,
            WalletRefusal::ClaimTooLarge { .. } => Self::ClaimTooLarge,
            WalletRefusal::NoSuchClaim(_) => Self::NoSuchClaim,
            WalletRefusal::NoSuchUse(_) => Self::NoSuchUse,
            WalletRefusal::ReversalOutOfBounds { .. } => Self::OutOfBounds,
            WalletRefusal::AmountTooSmall { .. } => Self::TooSmall,
            other => Self::Other(other.to_string()),
        }
    }
}

/// What a command comes to before it changes anything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is refused.
    Refused(Why),
    /// There is nothing to do.
    Nothing,
    /// It leads to events.
    Changes,
}

/// A claim on a grant.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Its reference.
    pub source_ref: String,
    /// How much it claims.
    pub claimed: Sum,
    /// How much of it was unspent.
    pub voided: Sum,
    /// How much of it became debt.
    pub owed: Sum,
    /// Whether it is undone.
    pub undone: bool,
}

/// What a grant was asked for, and what it met.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Why.
    pub kind: GrantKind,
    /// Lower burns first.
    pub priority: i16,
    /// From when, in microseconds.
    pub effective: i64,
    /// Until when, in microseconds.
    pub expires: Option<i64>,
    /// What was paid.
    pub cost: Sum,
    /// Where it comes from.
    pub source_ref: String,
    /// Claims, in their order.
    pub claims: Vec<Claim>,
    /// Whether it is on record that its time ran out.
    pub expiry_recorded: bool,
}

/// What a hold was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// In which asset.
    pub asset: Asset,
    /// How much.
    pub amount: Sum,
    /// For what.
    pub meter: Meter,
    /// Until when, in microseconds.
    pub expires: i64,
}

/// How a use stands.
#[derive(Clone, Debug)]
pub enum Standing {
    /// Its hold is open.
    Open,
    /// Its hold ended unspent.
    Released(ReleaseCause),
    /// It was paid for.
    Spent(Box<Spent>),
}

/// A use that was paid for.
#[derive(Clone, Debug)]
pub struct Spent {
    /// As it was metered.
    pub usage: UsageRecorded,
    /// What it cost.
    pub asked: Sum,
    /// From which grants, in burn order.
    pub drawn: Vec<Part>,
    /// How much is undone.
    pub reversed: Sum,
}

/// One use.
#[derive(Clone, Debug)]
pub struct Use {
    /// Its hold, if it has one.
    pub hold: Option<(HoldId, Placed)>,
    /// In which asset.
    pub asset: Asset,
    /// How it stands.
    pub standing: Standing,
}

/// What was taken by an adjustment.
pub type Taking = (Asset, Sum, i64, &'static str);

/// The model of one wallet.
#[derive(Clone, Default, Debug)]
pub struct Model {
    /// Where everything is.
    pub figures: Figures,
    /// What the grants are.
    pub terms: BTreeMap<GrantId, Terms>,
    /// What became of the uses.
    pub uses: BTreeMap<UsageId, Use>,
    /// Whose hold is whose.
    pub holds: BTreeMap<HoldId, UsageId>,
    /// What adjustments took.
    pub takings: BTreeMap<AdjustmentId, Taking>,
    /// Whether the wallet was opened.
    pub open: bool,
}

impl Terms {
    /// Whether its time has run out.
    pub fn lapsed(&self, at: i64) -> bool {
        self.expires.is_some_and(|end| end <= at)
    }

    /// All that is claimed, claims that are undone left out.
    pub fn claimed(&self) -> Sum {
        self.claims.iter().filter(|claim| !claim.undone).map(|claim| claim.claimed).sum()
    }
}

/// What of a grant can be spent: credit that came back when a claim was undone does not run out of time.
pub fn spendable(line: &Line, terms: &Terms, at: i64) -> Sum {
    if terms.lapsed(at) { line.available.min(line.restored) } else { line.available }
}

impl Model {
    /// What could be spent at this moment.
    pub fn spendable(&self, asset: Asset, at: i64) -> Sum {
        self.candidates(asset, at).iter().map(|grant| grant.available).sum()
    }

    fn candidates(&self, asset: Asset, at: i64) -> Vec<Candidate> {
        let with_terms = self.figures.of(asset).filter(|(_, line)| line.available > 0);
        let known = with_terms.filter_map(|(grant_id, line)| Some((grant_id, line, self.terms.get(grant_id)?)));
        known
            .map(|(grant_id, line, terms)| Candidate {
                priority: terms.priority,
                expires: terms.expires,
                cost: terms.cost,
                granted: line.granted,
                effective: terms.effective,
                grant_id: *grant_id,
                available: spendable(line, terms, at),
            })
            .collect()
    }

    /// Which grants pay this much.
    pub(super) fn burn(&self, asset: Asset, at: i64, amount: Sum) -> Vec<Part> {
        draw(self.candidates(asset, at), amount)
    }

    /// Records what the clock has brought: whatever lapsed and is neither held nor spent has expired.
    pub(super) fn lapse(&mut self, asset: Asset, at: i64) {
        for (grant_id, line) in &mut self.figures.lines {
            let Some(terms) = self.terms.get_mut(grant_id).filter(|terms| line.asset == asset && terms.lapsed(at))
            else {
                continue;
            };
            let lapsing = line.available - spendable(line, terms, at);
            if lapsing > 0 {
                line.available -= lapsing;
                line.expired += lapsing;
                terms.expiry_recorded = true;
            }
        }
    }

    /// What comes back repays debt first; what is left of it expires when its grant's time has run out.
    pub(super) fn come_back(&mut self, asset: Asset, parts: &[Part], at: i64) -> Result<(), String> {
        for (grant_id, amount) in parts {
            let repaid = self.figures.debt(asset).min(*amount);
            self.figures.spend(&[(*grant_id, repaid)])?;
            *self.figures.debt_mut(asset) -= repaid;
        }
        self.lapse(asset, at);
        Ok(())
    }

    /// New debt is repaid at once from whatever else is free.
    pub(super) fn repay(&mut self, asset: Asset, at: i64) -> Result<(), String> {
        let parts = self.burn(asset, at, self.figures.debt(asset));
        *self.figures.debt_mut(asset) -= parts.iter().map(|part| part.1).sum::<Sum>();
        self.figures.spend(&parts)
    }

    /// The use of a hold.
    pub fn use_of(&self, hold_id: &HoldId) -> Option<&Use> {
        self.uses.get(self.holds.get(hold_id)?)
    }

    /// Free and owed at once is what a wallet never is: the next credit pays first.
    ///
    /// # Errors
    /// It is, with the figures.
    pub fn check(&self) -> Result<(), String> {
        self.figures.check()?;
        for asset in Asset::ALL {
            let (free, owed) = (self.figures.available(asset), self.figures.debt(asset));
            if free > 0 && owed > 0 {
                return Err(format!("{free} {asset} are free while {owed} are owed"));
            }
        }
        Ok(())
    }
}
