//! Looks in the background at what a scrape must not wait for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use calos_commands::processes::expire_holds::due_until;
use calos_projections::lag::{Lag, LagWatch};
use calos_projections::{Progress, open_holds, status};

use super::Metrics;
use crate::request::now;

/// How often this process looks at how far its read models are behind, in memory.
const LAG_INTERVAL: Duration = Duration::from_millis(500);

/// How often the database is asked for what only it knows.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// How long one look at the database may take.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// What was seen last.
#[derive(Default, Debug)]
pub struct Seen {
    /// How far each read model is behind.
    pub lags: BTreeMap<String, Lag>,
    /// What the database told, once it did.
    pub told: Option<Told>,
}

/// What the database told, and when.
#[derive(Clone, Debug)]
pub struct Told {
    /// When.
    pub at: Instant,
    /// Events set aside, by read model.
    pub dead_letters: BTreeMap<String, i64>,
    /// Partitions in which a read model has halted, by read model.
    pub halted: BTreeMap<String, i64>,
    /// Holds that are open.
    pub holds_open: i64,
    /// Of them, those that should have ended: whoever placed them is gone.
    pub holds_overdue: i64,
}

/// What is watched.
pub struct Watched {
    /// Where it is kept.
    pub metrics: Arc<Metrics>,
    /// For looks at the database.
    pub pool: PgPool,
    /// The log's durable heads.
    pub heads: watch::Receiver<Vec<i64>>,
    /// How far this process has brought the read models.
    pub progress: watch::Receiver<Progress>,
}

impl Watched {
    /// Watches until `stop`.
    #[must_use]
    pub fn spawn(self, stop: CancellationToken) -> JoinHandle<()> {
        tokio::spawn(async move {
            let mut lags = LagWatch::default();
            let mut look_at = Instant::now();
            let (answer, mut answers) = tokio::sync::mpsc::channel(1);
            loop {
                self.look_at_lags(&mut lags);
                if Instant::now() >= look_at {
                    look_at = Instant::now() + LOOK_INTERVAL;
                    // On its own, so that a database that is away holds up nothing; one at a time, as a look is bounded
                    // by less than the time between two.
                    let (pool, answer) = (self.pool.clone(), answer.clone());
                    tokio::spawn(async move {
                        if let Ok(told) = tokio::time::timeout(LOOK_MAX, ask(&pool)).await {
                            drop(answer.send(told).await);
                        }
                    });
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(LAG_INTERVAL) => {}
                    Some(told) = answers.recv() => self.take(told, &mut lags),
                }
            }
        })
    }

    fn look_at_lags(&self, lags: &mut LagWatch) {
        // Copied, so that the writer, which publishes them, never waits for this.
        let heads = self.heads.borrow().clone();
        let progress = self.progress.borrow().clone();
        let seen = lags.look(&heads, &progress, Instant::now(), now());
        self.metrics.seen().lags = seen;
    }

    fn take(&self, answer: Result<Answer, sqlx::Error>, lags: &mut LagWatch) {
        match answer {
            Ok(Answer { told, positions }) => {
                for (projection, partition, position) in positions {
                    lags.learn(&projection, partition, position);
                }
                self.metrics.seen().told = Some(told);
            }
            // Whether the database answers at all is told by others.
            Err(error) => tracing::debug!(%error, "the database could not be looked at"),
        }
    }
}

struct Answer {
    told: Told,
    positions: Vec<(String, i32, i64)>,
}

async fn ask(pool: &PgPool) -> Result<Answer, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let models = status::projections(&mut *connection).await?;
    let (holds_open, holds_overdue) = open_holds::count(&mut *connection, due_until(now())).await?;
    let halted = |model: &status::ProjectionStatus| {
        let halted = model.partitions.iter().filter(|partition| partition.halted.is_some()).count();
        i64::try_from(halted).unwrap_or(i64::MAX)
    };
    let told = Told {
        at: Instant::now(),
        dead_letters: models.iter().map(|model| (model.name.clone(), model.dead_letters)).collect(),
        halted: models.iter().map(|model| (model.name.clone(), halted(model))).collect(),
        holds_open,
        holds_overdue,
    };
    let mut positions = Vec::new();
    for model in &models {
        positions.extend(model.partitions.iter().map(|at| (model.name.clone(), at.partition, at.position)));
    }
    Ok(Answer { told, positions })
}
