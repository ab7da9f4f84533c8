//! Gives back what holds keep whose owner died: a killed process leaves nobody to settle or release.
//!
//! Which holds are due is read from a read model, which may lag; the wallet alone decides. A hold that was settled
//! meanwhile stays settled, and one that is not due yet is left alone.

use calos_domain::wallet::{ReleaseCause, Wallet, WalletCommand, WalletRefusal};
use calos_domain::{HoldId, StreamId, TenantId, Timestamp};

use crate::log::{EventLog, Failed, LogError, Plan};
use crate::metadata::{Actor, Metadata};

/// The name under which expiries stand in the log.
pub const ACTOR: &str = "expire_holds";

/// How much later than its time a hold is expired: its owner may be settling it this very moment.
pub const GRACE_SECONDS: i64 = 30;

/// A hold whose time seems to have run out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DueHold {
    /// Whose wallet.
    pub tenant_id: TenantId,
    /// Which.
    pub hold_id: HoldId,
}

/// Up to which expiry holds are due at `now`.
#[must_use]
pub const fn due_until(now: Timestamp) -> Timestamp {
    now.plus_seconds(-GRACE_SECONDS)
}

/// Expires these holds, and answers how many it ended.
///
/// # Errors
/// The log's; what was expired before stays so.
pub async fn expire_holds<L: EventLog>(log: &L, due: &[DueHold], now: Timestamp) -> Result<usize, LogError> {
    let mut ended = 0;
    for hold in due {
        let mut plan = Plan::default();
        let wallet = plan.stream::<Wallet>(StreamId::key(hold.tenant_id));
        let metadata = Metadata::new(Actor::System(ACTOR));
        let expired = log.execute(&plan, metadata.into(), |unit| {
            let command = WalletCommand::ReleaseHold { hold_id: hold.hold_id, cause: ReleaseCause::Expired, at: now };
            unit.decide(wallet, command).map(|events| events.len())
        });
        match expired.await {
            Ok(done) => ended += usize::from(done.answer > 0),
            // Settled, released or not yet due: the read model was behind.
            Err(Failed::Refused(
                WalletRefusal::HoldEnded(_) | WalletRefusal::NoSuchHold(_) | WalletRefusal::NotDue { .. },
            )) => {}
            Err(Failed::Refused(refusal)) => {
                tracing::error!(tenant = %hold.tenant_id, hold = %hold.hold_id, %refusal, "a hold cannot be expired");
            }
            Err(Failed::Log(error)) => return Err(error),
        }
    }
    Ok(ended)
}
