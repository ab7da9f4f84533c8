//! The task that keeps the live read models at the head of the log.
//!
//! It wakes when this process appends and looks every so often for what other processes appended; several processes
//! share the work by locking checkpoints. Rounds are kept apart by a small interval under load: a few large transactions
//! cost far less than many small ones. Read models of the two paces run in lanes of their own, so that the large batches of
//! the relaxed ones never make the others wait, and a backlog of one lane never starves the other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::checkpoint::{self, ensure_registered};
use crate::observed::{RoundObserver, Taken};
use crate::progress::Progress;
use crate::projection::Pace;
use crate::registry::{self, AnyProjection};
use crate::round::{self, Outcome, RoundError};

/// How long a stopping runner may take to finish its round.
const SHUTDOWN_MAX: Duration = Duration::from_secs(10);

/// The first wait after a failure; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// The longest wait after a failure.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A round whose database has been away for this long is given up: its connection may have died unheard.
const ROUND_GIVEN_UP_AFTER: Duration = Duration::from_secs(2);

/// How a runner works.
#[derive(Clone)]
pub struct RunnerOptions {
    /// Which projections it runs.
    pub projections: Vec<&'static dyn AnyProjection>,
    /// At least this long from the start of one round to the start of the next, while there is no backlog.
    pub round_min_interval: Duration,
    /// The same for the relaxed ones: longer, because the sums they keep are touched by nearly every event and written once
    /// per round, and much shorter than a reader waits, so that whoever wants to read their own writes still does.
    pub relaxed_min_interval: Duration,
    /// At most this long until it looks for what other processes appended.
    pub poll_interval: Duration,
    /// At most this many events in one round.
    pub round_max_events: u32,
    /// Who hears of what each round took.
    pub observer: Option<Arc<dyn RoundObserver>>,
    /// Since when the database has been away, as long as it is, from whoever looks. Without it a round waits for as long as
    /// its connection does.
    pub database: Option<watch::Receiver<Option<std::time::Instant>>>,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        Self {
            projections: registry::ALL.to_vec(),
            round_min_interval: Duration::from_millis(40),
            relaxed_min_interval: Duration::from_millis(250),
            poll_interval: Duration::from_millis(250),
            round_max_events: 4_000,
            observer: None,
            database: None,
        }
    }
}

impl RunnerOptions {
    /// The read models of one pace, and how often they are looked after; none when there are none.
    fn lane(&self, pace: Pace) -> Option<Self> {
        let projections: Vec<_> =
            self.projections.iter().filter(|projection| projection.pace() == pace).copied().collect();
        let round_min_interval = match pace {
            Pace::Live => self.round_min_interval,
            Pace::Relaxed => self.round_min_interval.max(self.relaxed_min_interval),
        };
        (!projections.is_empty()).then(|| Self { projections, round_min_interval, ..self.clone() })
    }
}

/// Starts runners.
#[derive(Debug)]
pub struct Runner;

impl Runner {
    /// Registers the projections and starts a task per pace that keeps them at the head of the log. `heads` wakes them: the
    /// durable head of every partition, as this process's writer publishes it.
    ///
    /// # Errors
    /// The database's, while registering. Later failures are logged and retried.
    pub async fn start(
        pool: PgPool,
        heads: watch::Receiver<Vec<i64>>,
        options: RunnerOptions,
    ) -> Result<RunnerHandle, sqlx::Error> {
        ensure_registered(&pool, &options.projections).await?;
        let mut known = Progress::default();
        for projection in &options.projections {
            for (partition, position) in checkpoint::positions(&pool, projection.name()).await? {
                known.set(projection.name(), partition, position, None);
            }
        }
        let (publish, progress) = watch::channel(known);
        let publish = Arc::new(publish);
        let (stop, stopping) = watch::channel(false);
        let lanes = [Pace::Live, Pace::Relaxed].into_iter().filter_map(|pace| options.lane(pace));
        let tasks = lanes
            .map(|lane| {
                let work =
                    Work { pool: pool.clone(), options: lane, publish: publish.clone(), resting: HashMap::new() };
                tokio::spawn(work.run(heads.clone(), stopping.clone()))
            })
            .collect();
        Ok(RunnerHandle { stop, progress, tasks })
    }

    /// Registers the projections and takes everything they are behind in, but for what another runner is working on,
    /// and then stops: for tools, which have no writer to wake them.
    ///
    /// # Errors
    /// The database's, or the first projection whose rows could not be stored; what was taken before stays taken.
    pub async fn catch_up(pool: PgPool, options: RunnerOptions) -> Result<(), CatchUpError> {
        ensure_registered(&pool, &options.projections).await?;
        let (publish, _progress) = watch::channel(Progress::default());
        let mut work = Work { pool, options, publish: Arc::new(publish), resting: HashMap::new() };
        while work.round().await?.moved {}
        match work.resting.into_iter().next() {
            Some((projection, Resting { error, .. })) => Err(CatchUpError::Store { projection, error }),
            None => Ok(()),
        }
    }
}

/// Why [`Runner::catch_up`] could not finish.
#[derive(Debug, thiserror::Error)]
pub enum CatchUpError {
    /// The database, or the connection to it.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The rows of a projection cannot be stored at all.
    #[error("the rows of {projection} cannot be stored: {error}")]
    Store {
        /// The projection.
        projection: &'static str,
        /// What the database said.
        error: String,
    },
}

/// A running runner. Dropping it stops the runner after its round.
#[derive(Debug)]
pub struct RunnerHandle {
    stop: watch::Sender<bool>,
    progress: watch::Receiver<Progress>,
    tasks: Vec<JoinHandle<()>>,
}

impl RunnerHandle {
    /// How far this process has brought the projections.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Whether it still works; false only once it was stopped or one of its tasks died.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.tasks.iter().all(|task| !task.is_finished())
    }

    /// Finishes the rounds it is in and stops.
    pub async fn shutdown(self) {
        // Nobody listens when the tasks have ended already, and then there is nothing to stop.
        let _ = self.stop.send(true);
        let deadline = Instant::now() + SHUTDOWN_MAX;
        for mut task in self.tasks {
            match timeout_at(deadline, &mut task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "the projection runner died"),
                Err(_) => {
                    tracing::warn!("the projection runner did not stop in time; its round is rolled back");
                    task.abort();
                }
            }
        }
    }
}

/// A projection whose rows cannot be stored at all: its table is missing, or not as it should be.
struct Resting {
    until: Instant,
    pause: Duration,
    error: String,
}

struct Work {
    pool: PgPool,
    options: RunnerOptions,
    publish: Arc<watch::Sender<Progress>>,
    resting: HashMap<&'static str, Resting>,
}

impl Work {
    async fn run(mut self, mut heads: watch::Receiver<Vec<i64>>, mut stopping: watch::Receiver<bool>) {
        let mut pause = BACKOFF_MIN;
        let mut failing = false;
        let mut writer_lives = true;
        while !*stopping.borrow() {
            let began = Instant::now();
            heads.borrow_and_update();
            let database = self.options.database.clone();
            let round = tokio::select! {
                biased;
                round = self.round() => round,
                () = given_up(database.clone()) => Err(sqlx::Error::PoolTimedOut),
            };
            let next = match round {
                Ok(Round { more, .. }) => {
                    if failing {
                        tracing::info!("the projections go on");
                    }
                    (failing, pause) = (false, BACKOFF_MIN);
                    if more { Next::Now } else { Next::WhenThereIsWork }
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "the projections wait for the database");
                    }
                    failing = true;
                    let until = began + pause;
                    pause = (pause * 2).min(BACKOFF_MAX);
                    Next::At(until)
                }
            };
            let poll = began + self.options.poll_interval;
            tokio::select! {
                // Whoever held the stopping end is gone, or wants us to stop.
                _ = stopping.changed() => return,
                () = next_round(next, began + self.options.round_min_interval, poll, &mut heads, &mut writer_lives) => {}
                // What waits for the database goes on with its return.
                () = returned(database), if failing => pause = BACKOFF_MIN,
            }
        }
    }

    async fn round(&mut self) -> Result<Round, sqlx::Error> {
        let now = Instant::now();
        let resting = &self.resting;
        let awake = |projection: &&&'static dyn AnyProjection| {
            resting.get(projection.name()).is_none_or(|resting| resting.until <= now)
        };
        let projections: Vec<_> = self.options.projections.iter().filter(awake).copied().collect();
        let budget = i64::from(self.options.round_max_events.max(1));
        let began = SystemTime::now();
        match round::together(&self.pool, &projections, budget).await {
            Ok(outcome) => {
                for to in &outcome.moves {
                    self.resting.remove(to.projection);
                }
                Ok(self.published(&outcome, began))
            }
            Err(RoundError::Database(error)) => Err(error),
            Err(RoundError::Superseded) => Ok(Round { moved: true, more: true }),
            Err(RoundError::Store { projection, error }) => {
                tracing::warn!(projection, %error, "rows were refused; looking for the event that is to blame");
                self.round_one_by_one(&projections, budget).await
            }
        }
    }

    /// Every projection on its own, so that one that cannot be stored holds up nobody else.
    async fn round_one_by_one(
        &mut self,
        projections: &[&'static dyn AnyProjection],
        budget: i64,
    ) -> Result<Round, sqlx::Error> {
        let mut all = Round::default();
        for projection in projections {
            let began = SystemTime::now();
            match round::carefully(&self.pool, *projection, budget).await {
                Ok(outcome) => {
                    let round = self.published(&outcome, began);
                    if round.moved {
                        self.resting.remove(projection.name());
                    }
                    all = Round { moved: all.moved | round.moved, more: all.more | round.more };
                }
                Err(RoundError::Database(error)) => return Err(error),
                Err(RoundError::Superseded) => all = Round { moved: true, more: true },
                Err(RoundError::Store { projection, error }) => self.rest(projection, &error),
            }
        }
        Ok(all)
    }

    fn rest(&mut self, projection: &'static str, error: &sqlx::Error) {
        let text = error.to_string();
        let before = self.resting.remove(projection);
        let pause = before.as_ref().map_or(BACKOFF_MIN, |resting| (resting.pause * 2).min(BACKOFF_MAX));
        if before.is_none_or(|resting| resting.error != text) {
            tracing::error!(projection, error = text, "the rows of a projection cannot be stored; it is retried");
        }
        self.resting.insert(projection, Resting { until: Instant::now() + pause, pause, error: text });
    }

    fn published(&self, outcome: &Outcome, began: SystemTime) -> Round {
        let moved = !outcome.moves.is_empty();
        if moved {
            self.publish.send_modify(|progress| {
                for to in &outcome.moves {
                    progress.set(to.projection, to.partition, to.position, to.recorded_at);
                }
            });
        }
        if let Some(observer) = &self.options.observer {
            for to in &outcome.moves {
                let (projection, partition, through) = (to.projection, to.partition, to.position);
                observer.taken(&Taken { projection, partition, through, began });
            }
        }
        Round { moved, more: outcome.more }
    }
}

/// What became of a round.
#[derive(Clone, Copy, Default)]
struct Round {
    /// Checkpoints moved.
    moved: bool,
    /// There is more to do at once.
    more: bool,
}

#[derive(Clone, Copy)]
enum Next {
    Now,
    WhenThereIsWork,
    At(Instant),
}

/// Resolves once the database has been away for [`ROUND_GIVEN_UP_AFTER`]; never when nobody looks.
async fn given_up(database: Option<watch::Receiver<Option<std::time::Instant>>>) {
    if let Some(mut database) = database {
        while let Ok(since) = database.wait_for(Option::is_some).await.map(|since| *since) {
            if let Some(since) = since {
                sleep_until((since + ROUND_GIVEN_UP_AFTER).into()).await;
                if *database.borrow() == Some(since) {
                    return;
                }
            }
        }
    }
    std::future::pending().await
}

/// Resolves when the database comes back; never when it is not away, or nobody looks.
async fn returned(database: Option<watch::Receiver<Option<std::time::Instant>>>) {
    if let Some(mut database) = database
        && database.borrow_and_update().is_some()
        && database.wait_for(Option::is_none).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Waits until the next round is due: at once with a backlog, after the pause once the database failed, otherwise when
/// this process has appended, though not before `earliest`, and at `poll` at the latest.
async fn next_round(
    next: Next,
    earliest: Instant,
    poll: Instant,
    heads: &mut watch::Receiver<Vec<i64>>,
    writer_lives: &mut bool,
) {
    match next {
        Next::Now => tokio::task::yield_now().await,
        Next::At(at) => sleep_until(at).await,
        Next::WhenThereIsWork => {
            if *writer_lives {
                tokio::select! {
                    changed = heads.changed() => *writer_lives = changed.is_ok(),
                    () = sleep_until(poll) => {}
                }
            } else {
                sleep_until(poll).await;
            }
            sleep_until(earliest).await;
        }
    }
}
