//! One grant as a decision remembers it.

use serde::{Deserialize, Serialize};

use crate::{Asset, GrantId, MicroUsd, Timestamp, Units};

use super::{BurnKey, CreditsGranted, GrantKind, GrantRestored, GrantVoided, costs, prints};

/// Grants with credit left, or held, that one wallet may have.
pub const GRANTS_OPEN_MAX_COUNT: usize = 4_096;

/// Closed grants a wallet remembers, so that a repeated grant changes nothing and a reversal finds its way back.
pub const GRANTS_REMEMBERED_MAX_COUNT: usize = 1_024;

/// Separate claims (partial refunds, disputes) one grant may meet.
pub const VOIDS_PER_GRANT_MAX_COUNT: usize = 64;

/// One grant: its terms, and where its credit is. What is spent is the rest:
/// `amount + restored - available - held - expired - voided - taken`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// Counts the wallet's grants from 1; what remembered deductions refer to.
    #[serde(rename = "n")]
    pub number: u32,
    /// Its id.
    #[serde(rename = "id")]
    pub grant_id: GrantId,
    /// In which asset.
    #[serde(rename = "s")]
    pub asset: Asset,
    /// See [`CreditsGranted::kind`].
    #[serde(rename = "k")]
    pub kind: GrantKind,
    /// See [`CreditsGranted::priority`].
    #[serde(rename = "p")]
    pub priority: i16,
    /// See [`CreditsGranted::effective_at`].
    #[serde(rename = "f")]
    pub effective_at: Timestamp,
    /// See [`CreditsGranted::expires_at`].
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// See [`CreditsGranted::cost_basis`].
    #[serde(rename = "c")]
    pub cost_basis: MicroUsd,
    /// All that was granted.
    #[serde(rename = "g")]
    pub amount: Units,
    /// Free to be spent.
    #[serde(rename = "a")]
    pub available: Units,
    /// Kept by open holds.
    #[serde(rename = "h", default, skip_serializing_if = "is_zero")]
    pub held: Units,
    /// Ran out of time.
    #[serde(rename = "e", default, skip_serializing_if = "is_zero")]
    pub expired: Units,
    /// Taken back unspent.
    #[serde(rename = "v", default, skip_serializing_if = "is_zero")]
    pub voided: Units,
    /// Claimed back after it was spent, and so turned into debt.
    #[serde(rename = "d", default, skip_serializing_if = "is_zero")]
    pub charged_back: Units,
    /// Taken by approved adjustments.
    #[serde(rename = "u", default, skip_serializing_if = "is_zero")]
    pub taken: Units,
    /// Came back here when a claim was undone, in place of the credit of any grant that had repaid its debt. So much of
    /// what is available never runs out of time, for it had not when it was spent.
    #[serde(rename = "r", default, skip_serializing_if = "is_zero")]
    pub restored: Units,
    /// Whether it is on record that its time ran out.
    #[serde(rename = "o", default, skip_serializing_if = "is_false")]
    pub expiry_recorded: bool,
    /// What the grant is, to tell a repetition from another grant.
    #[serde(rename = "t")]
    pub(super) print: u64,
    /// The claims it met, undone ones included.
    #[serde(rename = "q", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) claims: Vec<Claim>,
}

/// A claim on a grant, and what came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(into = "(u64, Units, Units, Units, bool)", from = "(u64, Units, Units, Units, bool)")]
pub(super) struct Claim {
    /// The fingerprint of its reference.
    pub(super) reference: u64,
    /// How much was claimed.
    pub(super) claimed: Units,
    /// How much of that was unspent and taken.
    pub(super) voided: Units,
    /// How much of it became debt.
    pub(super) owed: Units,
    /// Whether it is undone.
    pub(super) undone: bool,
}

impl From<Claim> for (u64, Units, Units, Units, bool) {
    fn from(claim: Claim) -> Self {
        (claim.reference, claim.claimed, claim.voided, claim.owed, claim.undone)
    }
}

impl From<(u64, Units, Units, Units, bool)> for Claim {
    fn from((reference, claimed, voided, owed, undone): (u64, Units, Units, Units, bool)) -> Self {
        Self { reference, claimed, voided, owed, undone }
    }
}

impl Grant {
    pub(super) fn new(number: u32, granted: &CreditsGranted) -> Self {
        Self {
            number,
            grant_id: granted.grant_id,
            asset: granted.asset,
            kind: granted.kind,
            priority: granted.priority,
            effective_at: granted.effective_at,
            expires_at: granted.expires_at,
            cost_basis: granted.cost_basis,
            amount: granted.amount,
            available: granted.amount,
            held: Units::ZERO,
            expired: Units::ZERO,
            voided: Units::ZERO,
            charged_back: Units::ZERO,
            taken: Units::ZERO,
            restored: Units::ZERO,
            expiry_recorded: false,
            print: prints::of_grant(granted),
            claims: Vec::new(),
        }
    }

    /// What was spent of it, repaid debt included.
    #[must_use]
    pub const fn spent(&self) -> Units {
        self.amount
            .saturating_plus(self.restored)
            .saturating_minus(self.available)
            .saturating_minus(self.held)
            .saturating_minus(self.expired)
            .saturating_minus(self.voided)
            .saturating_minus(self.taken)
    }

    /// What of its price is still owed as credit: all of it at first, exactly nothing once nothing is free or held.
    #[must_use]
    pub fn deferred(&self) -> MicroUsd {
        costs::deferred(self.cost_basis, self.amount, self.available.saturating_plus(self.held))
    }

    /// Its place in the burn order.
    #[must_use]
    pub const fn burn_key(&self) -> BurnKey {
        BurnKey {
            priority: self.priority,
            expires_at: self.expires_at,
            cost_basis: self.cost_basis,
            amount: self.amount,
            effective_at: self.effective_at,
            grant_id: self.grant_id,
        }
    }

    /// Whether its time has run out at `at`.
    #[must_use]
    pub fn lapsed(&self, at: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= at)
    }

    /// What of it can be spent at `at`.
    #[must_use]
    pub fn spendable(&self, at: Timestamp) -> Units {
        if self.lapsed(at) { self.available.min(self.restored) } else { self.available }
    }

    /// What of it has run out of time at `at`, and is not recorded as expired yet.
    #[must_use]
    pub fn lapsing(&self, at: Timestamp) -> Units {
        self.available.saturating_minus(self.spendable(at))
    }

    /// Whether nothing of it can be spent any more unless a deduction or a claim is undone.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.available.is_zero() && self.held.is_zero()
    }

    /// All that was claimed back so far, without the claims that are undone.
    #[must_use]
    pub fn claimed(&self) -> Units {
        let standing = self.claims.iter().filter(|claim| !claim.undone);
        standing.fold(Units::ZERO, |sum, claim| sum.saturating_plus(claim.claimed))
    }

    pub(super) fn claim(&self, source_ref: &str) -> Option<&Claim> {
        let reference = prints::of_reference(source_ref);
        self.claims.iter().find(|claim| claim.reference == reference)
    }

    pub(super) fn void(&mut self, voided: &GrantVoided) {
        self.available = self.available.saturating_minus(voided.amount);
        self.voided = self.voided.saturating_plus(voided.amount);
        self.claims.push(Claim {
            reference: prints::of_reference(&voided.source_ref),
            claimed: voided.claimed,
            voided: voided.amount,
            owed: Units::ZERO,
            undone: false,
        });
    }

    /// The last claim led to debt.
    pub(super) fn charge_back(&mut self, owed: Units) {
        self.charged_back = self.charged_back.saturating_plus(owed);
        if let Some(claim) = self.claims.last_mut() {
            claim.owed = claim.owed.saturating_plus(owed);
        }
    }

    pub(super) fn restore(&mut self, restored: &GrantRestored) {
        let reference = prints::of_reference(&restored.source_ref);
        self.available = self.available.saturating_plus(restored.amount);
        let Some(claim) = self.claims.iter_mut().find(|claim| claim.reference == reference) else { return };
        claim.undone = true;
        self.voided = self.voided.saturating_minus(claim.voided);
        self.charged_back = self.charged_back.saturating_minus(claim.owed);
        self.restored = self.restored.saturating_plus(restored.amount.saturating_minus(claim.voided));
    }
}

/// In the shape serde asks for.
const fn is_zero(amount: &Units) -> bool {
    amount.is_zero()
}

/// In the shape serde asks for.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}
