//! One payment of a tenant, and the facts that follow it: refunds and disputes.
//!
//! Facts come in any order, late and twice, so each of them is recorded as soon as it is known, and what it means for
//! the wallet follows from all that is known: whatever comes before the payment itself waits in the payment's state.
//! [`effects`] is that rule: what a wallet has to be asked for after a fact that it was not asked for before.
//!
//! [`payout`](Payout) is an aggregate of its own: money on its way from Stripe to the bank belongs to no tenant.

mod decide;
mod effects;
mod event;
mod payout;
mod state;

#[cfg(test)]
mod tests;

pub use decide::{FactRefusal, RecordFact};
pub use effects::{BOUGHT_PRIORITY, effects};
pub use event::*;
pub use payout::{Payout, PayoutEvent, PayoutRefusal, PayoutSent, RecordPayout, payout_stream};
pub use state::{Claim, Closing, Dispute, Payment};

use crate::{StreamId, TenantId};

/// The longest reference of a payment, a refund, a dispute or a payout, in bytes: with its tenant before it, it must
/// stand in a stream's id.
pub const PAYMENT_REF_MAX_BYTES: usize = 160;

/// Refunds one payment may meet.
pub const REFUNDS_PER_PAYMENT_MAX_COUNT: usize = 32;

/// Disputes one payment may meet.
pub const DISPUTES_PER_PAYMENT_MAX_COUNT: usize = 8;

/// The stream of a tenant's payment.
#[must_use]
pub fn payment_stream(tenant_id: TenantId, payment_ref: &str) -> StreamId {
    StreamId::under(tenant_id, payment_ref)
}

/// Whether a text can be a reference: 1 to [`PAYMENT_REF_MAX_BYTES`] visible ASCII characters.
#[must_use]
pub fn is_reference(text: &str) -> bool {
    !text.is_empty() && text.len() <= PAYMENT_REF_MAX_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic())
}
