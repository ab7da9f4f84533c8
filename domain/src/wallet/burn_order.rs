//! Which credit is spent first.

use std::cmp::Ordering;

use crate::{GrantId, MicroUsd, Timestamp, Units};

/// The policy's name and version. A change of the order is a new version and a new event version that says so, since
/// what was already allocated stays as it was.
pub const BURN_ORDER_VERSION: &str = "priority-expiry-cost-age/1";

/// What the policy looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BurnKey {
    /// Lower first.
    pub priority: i16,
    /// Soonest first, never last.
    pub expires_at: Option<Timestamp>,
    /// What was paid for the whole grant.
    pub cost_basis: MicroUsd,
    /// The whole grant, at least 1.
    pub amount: Units,
    /// Oldest first.
    pub effective_at: Timestamp,
    /// The last word, so that the order is total.
    pub grant_id: GrantId,
}

/// Orders two grants: priority, then soonest expiry (none last), then cost per unit (free first), then granted first,
/// then id.
#[must_use]
pub fn burn_order(one: &BurnKey, other: &BurnKey) -> Ordering {
    one.priority
        .cmp(&other.priority)
        .then_with(|| expiry_rank(one.expires_at).cmp(&expiry_rank(other.expires_at)))
        .then_with(|| cost_per_unit(one, other))
        .then_with(|| one.effective_at.cmp(&other.effective_at))
        .then_with(|| one.grant_id.cmp(&other.grant_id))
}

const fn expiry_rank(expires_at: Option<Timestamp>) -> (bool, i64) {
    match expires_at {
        Some(moment) => (false, moment.micros()),
        None => (true, 0),
    }
}

/// Compares `cost / amount` without dividing: both products fit, being of two 64-bit factors.
fn cost_per_unit(one: &BurnKey, other: &BurnKey) -> Ordering {
    let left = i128::from(one.cost_basis.get()) * i128::from(other.amount.get());
    let right = i128::from(other.cost_basis.get()) * i128::from(one.amount.get());
    left.cmp(&right)
}
