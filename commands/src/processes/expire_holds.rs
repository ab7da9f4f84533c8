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
/// The log's, where no other wallet would fare better; what was expired before stays so.
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
            // Settled, released, so long ended that it is forgotten, or not yet due: the read model was behind.
            Err(Failed::Refused(
                WalletRefusal::HoldEnded(_)
                | WalletRefusal::NoSuchHold(_)
                | WalletRefusal::IdTooOld { .. }
                | WalletRefusal::NotDue { .. },
            )) => {}
            Err(Failed::Refused(refusal)) => {
                tracing::error!(tenant = %hold.tenant_id, hold = %hold.hold_id, %refusal, "a hold cannot be expired");
            }
            Err(Failed::Log(error @ (LogError::Unavailable(_) | LogError::Overloaded | LogError::Unresolved))) => {
                return Err(error);
            }
            // One wallet's trouble is not everybody's: the next sweep tries it again.
            Err(Failed::Log(error @ (LogError::Corrupt(_) | LogError::Contended { .. } | LogError::Claimed))) => {
                tracing::error!(tenant = %hold.tenant_id, hold = %hold.hold_id, %error, "a hold cannot be expired");
            }
        }
    }
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use calos_domain::Decider;
    use uuid::Uuid;

    use super::*;
    use crate::log::{Done, Request, Unit};

    /// A log that fails each command in turn.
    #[derive(Clone)]
    struct Failing(Arc<Mutex<VecDeque<LogError>>>);

    impl EventLog for Failing {
        async fn warm<D: Decider>(&self, _: &StreamId) -> Result<(), LogError> {
            Ok(())
        }

        async fn execute<T, E, F>(&self, _: &Plan<Self>, _: Request, _: F) -> Result<Done<T>, Failed<E>>
        where
            T: Send,
            E: Send,
            F: FnMut(&mut Unit<'_>) -> Result<T, E> + Send,
        {
            Err(Failed::Log(self.0.lock().unwrap().pop_front().unwrap()))
        }
    }

    async fn sweep(errors: Vec<LogError>) -> (Result<usize, LogError>, usize) {
        let holds = vec![DueHold { tenant_id: TenantId(Uuid::nil()), hold_id: HoldId(Uuid::nil()) }; errors.len()];
        let log = Failing(Arc::new(Mutex::new(errors.into())));
        let swept = expire_holds(&log, &holds, Timestamp::from_micros(0)).await;
        let untried = log.0.lock().unwrap().len();
        (swept, untried)
    }

    #[tokio::test]
    async fn one_wallet_that_cannot_be_read_does_not_keep_the_others_waiting() {
        let corrupt = || LogError::Corrupt("a version of tomorrow".to_owned());
        let (swept, untried) = sweep(vec![corrupt(), LogError::Contended { attempts: 8 }, corrupt()]).await;
        assert!(matches!(swept, Ok(0)) && untried == 0, "{swept:?}, {untried} untried");
    }

    #[tokio::test]
    async fn a_log_that_is_away_is_left_alone() {
        let (swept, untried) = sweep(vec![LogError::Unavailable("gone".to_owned()), LogError::Overloaded]).await;
        assert!(matches!(swept, Err(LogError::Unavailable(_))) && untried == 1, "{swept:?}, {untried} untried");
    }
}
