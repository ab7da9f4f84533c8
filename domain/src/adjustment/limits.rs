//! How many people it takes, by amount.

use crate::time::SECONDS_PER_DAY;
use crate::{Asset, Units};

use super::AdjustmentRefusal;

/// How long a proposal waits for its approvals.
pub const LAPSE_SECONDS: i64 = 7 * SECONDS_PER_DAY;

/// Up to this amount, given or taken, one approval is enough: $50.00, or 500 credits.
pub(super) const fn one_approval_limit(asset: Asset) -> Units {
    match asset {
        Asset::Usd => Units::new(50_000_000),
        Asset::Credit => Units::new(500),
    }
}

/// Up to this amount two approvals are enough, and beyond it nothing is: $1,000.00, or 10,000 credits.
pub(super) const fn two_approvals_limit(asset: Asset) -> Units {
    match asset {
        Asset::Usd => Units::new(1_000_000_000),
        Asset::Credit => Units::new(10_000),
    }
}

/// How many people other than its author have to approve an amount.
///
/// # Errors
/// [`AdjustmentRefusal::Nothing`] and [`AdjustmentRefusal::OverLimit`].
pub const fn approvals_needed(asset: Asset, amount: Units) -> Result<u8, AdjustmentRefusal> {
    let size = amount.get().unsigned_abs();
    if size == 0 {
        Err(AdjustmentRefusal::Nothing)
    } else if size <= one_approval_limit(asset).get().unsigned_abs() {
        Ok(1)
    } else if size <= two_approvals_limit(asset).get().unsigned_abs() {
        Ok(2)
    } else {
        Err(AdjustmentRefusal::OverLimit { asset, amount, limit: two_approvals_limit(asset) })
    }
}
