//! Records that grants have run out of time, and that proposals have.
//!
//! A grant whose time ran out can no longer be spent whether or not that is recorded; recorded, it is in the books.
//! Which ones are due is read from a read model, which may lag; the wallet alone decides.

use std::future::Future;

use futures_util::{StreamExt, stream};

use calos_domain::adjustment::{Adjustment, AdjustmentCommand, AdjustmentRefusal};
use calos_domain::wallet::{Wallet, WalletCommand, WalletRefusal};
use calos_domain::{AdjustmentId, GrantId, StreamId, TenantId, Timestamp};

use crate::adjustments::adjustment_stream;
use crate::log::{Done, EventLog, Failed, LogError, Plan, Positions};
use crate::metadata::{Actor, Metadata};

/// The name under which expiries of grants stand in the log.
pub const ACTOR: &str = "expire_grants";

/// The name under which lapses of adjustments stand in the log.
pub const LAPSE_ACTOR: &str = "lapse_adjustments";

/// Commands under way at one time: they share commits, and one in this many is all a busy server notices.
const COMMANDS_MAX_CONCURRENT: usize = 32;

/// A grant whose time seems to have run out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DueGrant {
    /// Whose wallet.
    pub tenant_id: TenantId,
    /// Which.
    pub grant_id: GrantId,
}

/// A proposal whose time seems to have run out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DueAdjustment {
    /// Whose wallet.
    pub tenant_id: TenantId,
    /// Which.
    pub adjustment_id: AdjustmentId,
}

/// What a sweep achieved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Swept<T> {
    /// How many were recorded.
    pub recorded: usize,
    /// Where the last of them stand in the log, by partition: the read model has to get there before it is asked again.
    pub positions: Positions,
    /// What will not be recorded however often it is tried: it is recorded already, the wallet has forgotten the grant, or
    /// cannot be read.
    pub hopeless: Vec<T>,
}

impl<T> Default for Swept<T> {
    fn default() -> Self {
        Self { recorded: 0, positions: Positions::default(), hopeless: Vec::new() }
    }
}

/// What became of one of them.
enum Ended {
    Recorded(Positions),
    Nothing,
    Hopeless,
}

/// Records that these grants have run out.
///
/// # Errors
/// The log's, where no other wallet would fare better; what was recorded before stays so.
pub async fn expire_grants<L: EventLog>(
    log: &L,
    due: &[DueGrant],
    now: Timestamp,
) -> Result<Swept<DueGrant>, LogError> {
    sweep(due, |grant| expire(log, grant, now)).await
}

/// Records that these proposals have lapsed.
///
/// # Errors
/// The log's, where no other proposal would fare better; what was recorded before stays so.
pub async fn lapse_adjustments<L: EventLog>(
    log: &L,
    due: &[DueAdjustment],
    now: Timestamp,
) -> Result<Swept<DueAdjustment>, LogError> {
    sweep(due, |adjustment| lapse(log, adjustment, now)).await
}

async fn sweep<T, F>(due: &[T], end: impl Fn(T) -> F) -> Result<Swept<T>, LogError>
where
    T: Copy,
    F: Future<Output = Result<Ended, LogError>>,
{
    // Collected: a stream over what is borrowed could not be moved between threads.
    let ending: Vec<_> = due
        .iter()
        .map(|one| {
            let (one, ended) = (*one, end(*one));
            async move { (one, ended.await) }
        })
        .collect();
    let mut ending = stream::iter(ending).buffer_unordered(COMMANDS_MAX_CONCURRENT);
    let mut swept = Swept::default();
    while let Some((one, ended)) = ending.next().await {
        match ended? {
            Ended::Recorded(positions) => {
                swept.recorded += 1;
                for (partition, position) in positions.0 {
                    let last = swept.positions.0.entry(partition).or_default();
                    *last = position.max(*last);
                }
            }
            Ended::Nothing => {}
            Ended::Hopeless => swept.hopeless.push(one),
        }
    }
    Ok(swept)
}

async fn expire<L: EventLog>(log: &L, due: DueGrant, now: Timestamp) -> Result<Ended, LogError> {
    let DueGrant { tenant_id, grant_id } = due;
    let mut plan = Plan::default();
    let wallet = plan.stream::<Wallet>(StreamId::key(tenant_id));
    let metadata = Metadata::new(Actor::System(ACTOR));
    let command = WalletCommand::ExpireGrant { grant_id, at: now };
    let expired = log.execute(&plan, metadata.into(), |unit| unit.decide(wallet, command.clone()).map(drop));
    match expired.await {
        Ok(done) => Ok(ended(done)),
        // The read model's clock, or this machine's, was ahead.
        Err(Failed::Refused(WalletRefusal::NotDue { .. })) => Ok(Ended::Nothing),
        // All of it was spent or taken back so long ago that the wallet no longer knows it.
        Err(Failed::Refused(WalletRefusal::NoSuchGrant(_))) => Ok(Ended::Hopeless),
        Err(Failed::Refused(refusal)) => {
            tracing::error!(tenant = %tenant_id, grant = %grant_id, %refusal, "a grant cannot be expired");
            Ok(Ended::Hopeless)
        }
        Err(Failed::Log(error)) => failed(
            error,
            |error| tracing::error!(tenant = %tenant_id, grant = %grant_id, %error, "a grant cannot be expired"),
        ),
    }
}

async fn lapse<L: EventLog>(log: &L, due: DueAdjustment, now: Timestamp) -> Result<Ended, LogError> {
    let DueAdjustment { tenant_id, adjustment_id } = due;
    let mut plan = Plan::default();
    let adjustment = plan.stream::<Adjustment>(adjustment_stream(tenant_id, adjustment_id));
    let metadata = Metadata::new(Actor::System(LAPSE_ACTOR));
    let command = AdjustmentCommand::Lapse { at: now };
    let lapsed = log.execute(&plan, metadata.into(), |unit| unit.decide(adjustment, command.clone()).map(drop));
    match lapsed.await {
        Ok(done) => Ok(ended(done)),
        Err(Failed::Refused(AdjustmentRefusal::NotDue { .. })) => Ok(Ended::Nothing),
        Err(Failed::Refused(refusal)) => {
            tracing::error!(tenant = %tenant_id, adjustment = %adjustment_id, %refusal, "an adjustment cannot lapse");
            Ok(Ended::Hopeless)
        }
        Err(Failed::Log(error)) => failed(error, |error| {
            tracing::error!(tenant = %tenant_id, adjustment = %adjustment_id, %error, "an adjustment cannot lapse");
        }),
    }
}

/// What was recorded before leaves nothing behind: the read model that named it lags, or stands still, and whoever waits
/// behind it does not wait for that.
fn ended(done: Done<()>) -> Ended {
    if done.positions.0.is_empty() { Ended::Hopeless } else { Ended::Recorded(done.positions) }
}

fn failed(error: LogError, report: impl FnOnce(&LogError)) -> Result<Ended, LogError> {
    match error {
        LogError::Unavailable(_) | LogError::Overloaded | LogError::Unresolved => Err(error),
        // One wallet's trouble is not everybody's, and it may be over by the next sweep.
        LogError::Contended { .. } | LogError::Claimed => {
            report(&error);
            Ok(Ended::Nothing)
        }
        LogError::Corrupt(_) => {
            report(&error);
            Ok(Ended::Hopeless)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use calos_domain::adjustment::Proposal;
    use calos_domain::wallet::{AdjustmentReason, GrantKind};
    use calos_domain::{Asset, Decider, MicroUsd, Units, UserId};
    use uuid::{Builder, Uuid};

    use super::*;
    use crate::log::{Request, Unit};
    use crate::memory_log::MemoryLog;

    /// A log that answers each command in turn.
    #[derive(Clone)]
    struct Scripted(Arc<Mutex<VecDeque<Result<Positions, LogError>>>>);

    impl EventLog for Scripted {
        async fn warm<D: Decider>(&self, _: &StreamId) -> Result<(), LogError> {
            Ok(())
        }

        async fn execute<T, E, F>(&self, plan: &Plan<Self>, _: Request, mut decide: F) -> Result<Done<T>, Failed<E>>
        where
            T: Send,
            E: Send,
            F: FnMut(&mut Unit<'_>) -> Result<T, E> + Send,
        {
            // A wallet nobody opened, and a proposal nobody made.
            let kind = plan.streams()[0].kind;
            let aggregate: Box<dyn crate::log::WarmAggregate> = if kind == Wallet::KIND {
                Box::new(crate::sourced::Sourced(Wallet::default()))
            } else {
                Box::new(crate::sourced::Sourced(Adjustment::default()))
            };
            let mut streams = [crate::log::UnitStream { aggregate, decided: Vec::new() }];
            let decided = decide(&mut Unit::new(&mut streams, &mut None));
            let next = self.0.lock().unwrap().pop_front().unwrap();
            match (next, decided) {
                (Err(error), _) => Err(Failed::Log(error)),
                (Ok(_), Err(refusal)) => Err(Failed::Refused(refusal)),
                (Ok(positions), Ok(answer)) => Ok(Done { answer, positions }),
            }
        }
    }

    fn scripted(answers: Vec<Result<Positions, LogError>>) -> (Scripted, Vec<DueGrant>) {
        let due = (0..answers.len() as u128)
            .map(|n| DueGrant { tenant_id: TenantId(Uuid::nil()), grant_id: GrantId(Uuid::from_u128(n)) })
            .collect();
        (Scripted(Arc::new(Mutex::new(answers.into()))), due)
    }

    #[tokio::test]
    async fn what_a_wallet_refuses_or_cannot_be_read_is_hopeless_and_keeps_nobody_waiting() {
        let corrupt = || Err(LogError::Corrupt("a version of tomorrow".to_owned()));
        let (log, due) =
            scripted(vec![corrupt(), Err(LogError::Contended { attempts: 8 }), Ok(Positions::default()), corrupt()]);
        let swept = expire_grants(&log, &due, Timestamp::from_micros(0)).await.unwrap();
        // The contended one is tried again by the next sweep.
        assert_eq!((swept.recorded, swept.hopeless), (0, vec![due[0], due[2], due[3]]));
    }

    #[tokio::test]
    async fn what_is_recorded_already_is_not_worth_another_attempt_though_a_read_model_names_it() {
        let (log, tenant_id) = (MemoryLog::default(), TenantId(Uuid::from_u128(1)));
        let at = |seconds| Timestamp::from_micros(1_760_000_000_000_000).plus_seconds(seconds);
        let grant_id = GrantId(Uuid::from_u128(2));
        let granting = WalletCommand::GrantCredits {
            grant_id,
            asset: Asset::Usd,
            kind: GrantKind::Goodwill,
            amount: Units::new(5),
            priority: 0,
            effective_at: at(0),
            expires_at: Some(at(10)),
            cost_basis: MicroUsd::ZERO,
            source_ref: "test".to_owned(),
            reason: None,
            at: at(0),
        };
        for command in [WalletCommand::OpenWallet { tenant_id, opened_at: at(0) }, granting] {
            log.ask::<Wallet>(StreamId::key(tenant_id), command).await.unwrap();
        }
        let adjustment_id = AdjustmentId(Builder::from_unix_timestamp_millis(1_760_000_000_000, &[1; 10]).into_uuid());
        let proposal = Proposal {
            adjustment_id,
            tenant_id,
            asset: Asset::Usd,
            amount: Units::new(5),
            reason: AdjustmentReason::Goodwill,
            evidence: "ticket:1".to_owned(),
            effective_at: at(0),
        };
        let propose = AdjustmentCommand::Propose { proposal, by: UserId(Uuid::nil()), at: at(0) };
        log.ask::<Adjustment>(adjustment_stream(tenant_id, adjustment_id), propose).await.unwrap();

        let (grants, adjustments) = ([DueGrant { tenant_id, grant_id }], [DueAdjustment { tenant_id, adjustment_id }]);
        let later = at(30 * 24 * 3_600);
        let sweeps = async || {
            let expired = expire_grants(&log, &grants, later).await.unwrap();
            let lapsed = lapse_adjustments(&log, &adjustments, later).await.unwrap();
            ((expired.recorded, expired.hopeless), (lapsed.recorded, lapsed.hopeless))
        };
        assert_eq!(sweeps().await, ((1, Vec::new()), (1, Vec::new())));
        assert_eq!(sweeps().await, ((0, grants.to_vec()), (0, adjustments.to_vec())));
    }

    #[tokio::test]
    async fn a_log_that_is_away_is_left_alone() {
        let (log, due) = scripted(vec![Err(LogError::Unavailable("gone".to_owned())), Err(LogError::Overloaded)]);
        let swept = expire_grants(&log, &due, Timestamp::from_micros(0)).await;
        assert!(matches!(swept, Err(LogError::Unavailable(_))), "{swept:?}");
    }

    #[tokio::test]
    async fn a_proposal_nobody_made_does_not_lapse() {
        let (log, _) = scripted(vec![Ok(Positions::default())]);
        let due = [DueAdjustment { tenant_id: TenantId(Uuid::nil()), adjustment_id: AdjustmentId(Uuid::nil()) }];
        let swept = lapse_adjustments(&log, &due, Timestamp::from_micros(0)).await.unwrap();
        assert_eq!((swept.recorded, swept.hopeless), (0, due.to_vec()));
    }
}
