//! Ends holds: on purpose, or because whoever placed one is gone.

use std::time::Duration;

use calos_domain::wallet::{ReleaseCause, Wallet, WalletCommand, WalletRefusal};
use calos_domain::{HoldId, StreamId};
use uuid::Uuid;

use super::{ChatCaller, Gateway};
use crate::log::{EventLog, Failed, LogError, Plan};
use crate::metadata::Metadata;

/// How often an append that must not be lost is tried.
pub(super) const PERSISTENCE_MAX_ATTEMPTS: u32 = 12;
/// The pause before the second attempt; it doubles up to [`PERSISTENCE_MAX_PAUSE`].
const PERSISTENCE_FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between two attempts.
const PERSISTENCE_MAX_PAUSE: Duration = Duration::from_secs(4);

/// The pause after so many attempts.
pub(super) fn pause_after(attempts: u32) -> Duration {
    let doubled = PERSISTENCE_FIRST_PAUSE.saturating_mul(1_u32.checked_shl(attempts).unwrap_or(u32::MAX));
    doubled.min(PERSISTENCE_MAX_PAUSE)
}

/// Whether the same command may succeed in a moment. Ids make a repetition harmless.
pub(super) fn may_pass(error: &LogError) -> bool {
    match error {
        LogError::Overloaded | LogError::Unavailable(_) | LogError::Unresolved | LogError::Contended { .. } => true,
        LogError::Claimed | LogError::Corrupt(_) => false,
    }
}

/// A follow-up of the caller's command: the same conversation, a command of its own.
pub(super) fn follow_up(metadata: &Metadata) -> Metadata {
    Metadata { command_id: Uuid::now_v7(), ..metadata.clone() }
}

impl<L: EventLog> Gateway<L> {
    /// Ends a hold unspent, with patience. A hold that was never placed, or has ended, is left alone.
    pub(super) async fn release(&self, caller: &ChatCaller, hold_id: HoldId, cause: ReleaseCause) {
        let mut plan = Plan::default();
        let wallet = plan.stream::<Wallet>(StreamId::key(caller.tenant_id));
        let metadata = follow_up(&caller.metadata);
        for attempt in 0..PERSISTENCE_MAX_ATTEMPTS {
            let at = self.0.clock.now();
            let released = self.0.log.execute(&plan, metadata.clone().into(), |unit| {
                unit.decide(wallet, WalletCommand::ReleaseHold { hold_id, cause, at }).map(drop)
            });
            match released.await {
                Ok(_) => return,
                Err(Failed::Refused(
                    WalletRefusal::NoSuchHold(_) | WalletRefusal::HoldEnded(_) | WalletRefusal::IdTooOld { .. },
                )) => return,
                Err(Failed::Refused(refusal)) => {
                    tracing::error!(tenant = %caller.tenant_id, hold = %hold_id, %refusal, "a hold cannot be released");
                    return;
                }
                Err(Failed::Log(error)) if may_pass(&error) => tokio::time::sleep(pause_after(attempt)).await,
                Err(Failed::Log(error)) => {
                    tracing::error!(tenant = %caller.tenant_id, hold = %hold_id, %error, "a hold cannot be released");
                    return;
                }
            }
        }
        tracing::warn!(tenant = %caller.tenant_id, hold = %hold_id, "a hold is left to expire: the log does not answer");
    }
}

/// Ends a hold when its owner is dropped without having done so: a panic, a cancelled task.
pub(super) struct HoldGuard<L: EventLog> {
    gateway: Gateway<L>,
    caller: ChatCaller,
    hold_id: HoldId,
    armed: bool,
}

impl<L: EventLog> HoldGuard<L> {
    pub(super) fn new(gateway: &Gateway<L>, caller: &ChatCaller, hold_id: HoldId) -> Self {
        Self { gateway: gateway.clone(), caller: caller.clone(), hold_id, armed: true }
    }

    /// The hold has ended, or was never placed.
    pub(super) fn disarm(mut self) {
        self.armed = false;
    }
}

impl<L: EventLog> Drop for HoldGuard<L> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        // Without a runtime the process is ending; the hold then expires by itself.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (gateway, caller, hold_id) = (self.gateway.clone(), self.caller.clone(), self.hold_id);
        let tasks = self.gateway.0.tasks.clone();
        tasks.spawn_on(async move { gateway.release(&caller, hold_id, ReleaseCause::Voided).await }, &runtime);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        assert_eq!(pause_after(0), PERSISTENCE_FIRST_PAUSE);
        assert!(pause_after(3) > pause_after(2));
        assert_eq!(pause_after(40), PERSISTENCE_MAX_PAUSE);
        let whole: Duration = (0..PERSISTENCE_MAX_ATTEMPTS).map(pause_after).sum();
        assert!(whole < Duration::from_secs(30), "{whole:?}");
    }
}
