//! One grant as a decision remembers it.

use serde::{Deserialize, Serialize};

use crate::{Asset, GrantId, MicroUsd, Timestamp, Units};

use super::{BurnKey, CreditsGranted, GrantVoided, prints};

/// Grants with credit left, or held, that one wallet may have.
pub const GRANTS_OPEN_MAX_COUNT: usize = 4_096;

/// Closed grants a wallet remembers, so that a repeated grant changes nothing and a reversal finds its way back.
pub const GRANTS_REMEMBERED_MAX_COUNT: usize = 1_024;

/// Separate claims (partial refunds, disputes) one grant may meet.
pub const VOIDS_PER_GRANT_MAX_COUNT: usize = 64;

/// One grant: its terms, and where its credit is. What is spent is the rest:
/// `amount - available - held - expired - voided`.
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
    /// What the grant is, to tell a repetition from another grant.
    #[serde(rename = "t")]
    pub(super) print: u64,
    /// The claims it met: fingerprint of the reference, amount claimed.
    #[serde(rename = "q", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) claims: Vec<(u64, Units)>,
}

impl Grant {
    pub(super) fn new(number: u32, granted: &CreditsGranted) -> Self {
        Self {
            number,
            grant_id: granted.grant_id,
            asset: granted.asset,
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
            print: prints::of_grant(granted),
            claims: Vec::new(),
        }
    }

    /// What was spent of it, repaid debt included.
    #[must_use]
    pub const fn spent(&self) -> Units {
        self.amount
            .saturating_minus(self.available)
            .saturating_minus(self.held)
            .saturating_minus(self.expired)
            .saturating_minus(self.voided)
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

    /// Whether nothing of it can be spent any more unless a deduction is undone.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.available.is_zero() && self.held.is_zero()
    }

    /// All that was claimed back so far.
    #[must_use]
    pub fn claimed(&self) -> Units {
        self.claims.iter().fold(Units::ZERO, |sum, (_, amount)| sum.saturating_plus(*amount))
    }

    pub(super) fn void(&mut self, voided: &GrantVoided) {
        self.available = self.available.saturating_minus(voided.amount);
        self.voided = self.voided.saturating_plus(voided.amount);
        self.claims.push((prints::of_reference(&voided.source_ref), voided.claimed));
    }
}

/// In the shape serde asks for.
const fn is_zero(amount: &Units) -> bool {
    amount.is_zero()
}
