//! Records that grants and proposals have run out of time: see [`calos_commands::processes::expire_grants`].

use std::collections::HashSet;
use std::future::Future;
use std::hash::Hash;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use calos_adapters::postgres::PgLog;
use calos_commands::log::{Boxed, LogError, Positions};
use calos_commands::processes::expire_grants::{DueAdjustment, DueGrant, Swept, expire_grants, lapse_adjustments};
use calos_projections::adjustments::{self, Adjustments};
use calos_projections::open_grants::{self, OpenGrants};
use calos_projections::projection::Projection;
use calos_projections::{Progress, wait};

use crate::request::now;

/// How often what is due is looked for.
pub const SWEEP_SECONDS: u64 = 5;

/// The most recorded in one go. After a downtime one batch follows the other without a pause.
const BATCH_MAX_COUNT: usize = 500;

/// The most that are remembered as not worth another attempt; beyond, all of them are tried once more.
const HOPELESS_MAX_COUNT: usize = 5_000;

/// Why a sweep ended early.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The read models cannot be asked.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The log cannot take it.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Looks for what has run out.
pub struct Sweeper {
    pool: PgPool,
    log: PgLog,
    progress: watch::Receiver<Progress>,
    stop: CancellationToken,
    grants: Hopeless<DueGrant>,
    adjustments: Hopeless<DueAdjustment>,
}

/// What a wallet will not record however often it is asked, or has recorded already: otherwise it would stand at the head
/// of the line for ever.
struct Hopeless<T>(HashSet<T>);

impl<T: Copy + Eq + Hash> Hopeless<T> {
    /// Remembers these, and tells whether those before were forgotten for it.
    fn note(&mut self, given_up: &[T]) -> bool {
        let starts_over = self.0.len() + given_up.len() > HOPELESS_MAX_COUNT;
        if starts_over {
            self.0.clear();
        }
        self.0.extend(given_up);
        starts_over
    }

    /// How many to ask for so that a batch is left without these.
    fn limit(&self) -> usize {
        BATCH_MAX_COUNT + self.0.len()
    }

    fn left(&self, found: Vec<T>) -> Vec<T> {
        found.into_iter().filter(|one| !self.0.contains(one)).take(BATCH_MAX_COUNT).collect()
    }
}

/// Sweeps every [`SWEEP_SECONDS`] until `stop`.
#[must_use]
pub fn spawn(pool: PgPool, log: PgLog, progress: watch::Receiver<Progress>, stop: CancellationToken) -> JoinHandle<()> {
    let pulse = log.pulse().clone();
    let mut sweeper = Sweeper::new(pool, log, progress, stop.clone());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(SWEEP_SECONDS)) => {}
            }
            let Some(swept) = pulse.unless_lost(sweeper.sweep()).await else {
                tracing::warn!("what has run out of time could not be recorded: the database does not answer");
                continue;
            };
            match swept {
                Ok((0, 0)) => {}
                Ok((grants, adjustments)) => {
                    tracing::info!(grants, adjustments, "what had run out of time is recorded")
                }
                Err(error) => {
                    tracing::warn!(%error, "what has run out of time could not be recorded; it will be looked for again");
                }
            }
        }
    })
}

impl Sweeper {
    /// Over a log and its read models.
    #[must_use]
    pub fn new(pool: PgPool, log: PgLog, progress: watch::Receiver<Progress>, stop: CancellationToken) -> Self {
        Self { pool, log, progress, stop, grants: Hopeless(HashSet::new()), adjustments: Hopeless(HashSet::new()) }
    }

    /// Records everything that is due now, and answers how many grants and how many adjustments that were.
    ///
    /// # Errors
    /// The database's and the log's; what was recorded before stays so.
    pub async fn sweep(&mut self) -> Result<(usize, usize), SweepError> {
        let expired = self.sweep_grants().await?;
        Ok((expired, self.sweep_adjustments().await?))
    }

    async fn sweep_grants(&mut self) -> Result<usize, SweepError> {
        let (pool, log) = (self.pool.clone(), self.log.clone());
        let due = move |limit| {
            let pool = pool.clone();
            async move {
                let found = open_grants::due(&pool, now(), limit).await?;
                let due = |(tenant_id, grant_id)| DueGrant { tenant_id, grant_id };
                Ok(found.into_iter().map(due).collect())
            }
        };
        let expire = move |due: Vec<DueGrant>| {
            let log = log.clone();
            async move { expire_grants(&log, &due, now()).await }
        };
        let passed = self.passed(OpenGrants::NAME);
        drain(self.stop.clone(), &mut self.grants, due, expire, passed).await
    }

    async fn sweep_adjustments(&mut self) -> Result<usize, SweepError> {
        let (pool, log) = (self.pool.clone(), self.log.clone());
        let due = move |limit| {
            let pool = pool.clone();
            async move {
                let found = adjustments::due(&pool, now(), limit).await?;
                let due = |(tenant_id, adjustment_id)| DueAdjustment { tenant_id, adjustment_id };
                Ok(found.into_iter().map(due).collect())
            }
        };
        let lapse = move |due: Vec<DueAdjustment>| {
            let log = log.clone();
            async move { lapse_adjustments(&log, &due, now()).await }
        };
        let passed = self.passed(Adjustments::NAME);
        drain(self.stop.clone(), &mut self.adjustments, due, lapse, passed).await
    }

    /// Whether a read model has passed some positions, within bounds.
    fn passed(&self, projection: &'static str) -> impl Fn(Positions) -> Boxed<'static, bool> + use<> {
        let (pool, progress) = (self.pool.clone(), self.progress.clone());
        move |positions| Box::pin(passed(pool.clone(), progress.clone(), projection, positions))
    }
}

/// Batch after batch until nothing is due any more, or nothing moves.
async fn drain<T, D, R, P>(
    stop: CancellationToken,
    hopeless: &mut Hopeless<T>,
    due: impl Fn(u32) -> D,
    record: impl Fn(Vec<T>) -> R,
    passed: impl Fn(Positions) -> P,
) -> Result<usize, SweepError>
where
    T: Copy + Eq + Hash,
    D: Future<Output = Result<Vec<T>, sqlx::Error>>,
    R: Future<Output = Result<Swept<T>, LogError>>,
    P: Future<Output = bool>,
{
    let mut recorded = 0;
    while !stop.is_cancelled() {
        let limit = hopeless.limit();
        let found = due(u32::try_from(limit).unwrap_or(u32::MAX)).await?;
        let is_last = found.len() < limit;
        let swept = record(hopeless.left(found)).await?;
        recorded += swept.recorded;
        // Then those at the head of the line are tried once more, by the next sweep: this one would never end.
        let starts_over = hopeless.note(&swept.hopeless);
        let moved = swept.recorded > 0 || !swept.hopeless.is_empty();
        // Before the read model has seen what was recorded it would only name the same ones again.
        if is_last || !moved || starts_over || !passed(swept.positions).await {
            break;
        }
    }
    Ok(recorded)
}

/// Whether a read model has passed these positions, within bounds.
async fn passed(
    pool: PgPool,
    progress: watch::Receiver<Progress>,
    projection: &'static str,
    positions: Positions,
) -> bool {
    let deadline = Instant::now() + wait::WAIT_MAX;
    match wait::wait_until(&pool, &progress, projection, &positions.0, deadline).await {
        Ok(()) => true,
        Err(behind) => {
            tracing::debug!(%behind, "the rest of what has run out of time is left to the next sweep");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// A line of due ones, oldest first: those in `stuck` never leave it.
    async fn drained(line: Vec<u32>, stuck: &[u32]) -> (usize, usize, Vec<u32>) {
        let stuck: HashSet<u32> = stuck.iter().copied().collect();
        let (line, batches) = (RefCell::new(line), RefCell::new(0));
        let mut hopeless = Hopeless(HashSet::new());
        let due = |limit: u32| {
            let found: Vec<u32> = line.borrow().iter().copied().take(limit as usize).collect();
            async move { Ok(found) }
        };
        let record = |batch: Vec<u32>| {
            assert!(batch.len() <= BATCH_MAX_COUNT);
            *batches.borrow_mut() += 1;
            assert!(*batches.borrow() < 100, "a sweep that never ends");
            let given_up: Vec<u32> = batch.iter().copied().filter(|one| stuck.contains(one)).collect();
            line.borrow_mut().retain(|one| stuck.contains(one) || !batch.contains(one));
            let recorded = batch.len() - given_up.len();
            async move { Ok(Swept { recorded, positions: Positions::default(), hopeless: given_up }) }
        };
        let stop = CancellationToken::new();
        let recorded = drain(stop.clone(), &mut hopeless, due, record, |_| async { true }).await.unwrap();
        let again = drain(stop.clone(), &mut hopeless, due, record, |_| async { true }).await.unwrap();
        assert_eq!(again, 0);
        (recorded, batches.into_inner(), line.into_inner())
    }

    #[tokio::test]
    async fn what_gathered_during_a_downtime_is_recorded_in_one_sweep_of_bounded_batches() {
        assert_eq!(drained((0..1_750).collect(), &[]).await, (1_750, 5, Vec::new()));
        assert_eq!(drained(Vec::new(), &[]).await, (0, 2, Vec::new()));
    }

    #[tokio::test]
    async fn what_a_wallet_has_forgotten_does_not_stand_in_front_of_the_others_for_ever() {
        let stuck: Vec<u32> = (0..700).collect();
        let (recorded, _, left) = drained((0..1_750).collect(), &stuck).await;
        assert_eq!((recorded, left), (1_050, stuck));
    }

    #[tokio::test]
    async fn more_than_can_be_remembered_does_not_keep_one_sweep_busy_for_ever() {
        let stuck: Vec<u32> = (0..6_000).collect();
        let (recorded, _, left) = drained((0..6_000).collect(), &stuck).await;
        assert_eq!((recorded, left), (0, stuck));
    }

    #[tokio::test]
    async fn a_read_model_that_does_not_move_is_not_asked_again_and_again() {
        let asked = RefCell::new(0);
        let due = |limit: u32| {
            *asked.borrow_mut() += 1;
            async move { Ok((0..limit).collect()) }
        };
        let nothing = |_| async { Ok(Swept::default()) };
        let mut hopeless: Hopeless<u32> = Hopeless(HashSet::new());
        let stop = CancellationToken::new();
        assert_eq!(drain(stop.clone(), &mut hopeless, due, nothing, |_| async { true }).await.unwrap(), 0);
        let all = |batch: Vec<u32>| async move { Ok(Swept { recorded: batch.len(), ..Swept::default() }) };
        assert_eq!(drain(stop.clone(), &mut hopeless, due, all, |_| async { false }).await.unwrap(), BATCH_MAX_COUNT);
        assert_eq!(asked.into_inner(), 2);
    }
}
