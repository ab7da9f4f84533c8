//! The one task of a process that writes the log: whatever waits becomes one batch, one batch becomes one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};
use tokio::sync::{broadcast, mpsc, watch};

use calos_domain::Timestamp;

use super::append::{Append, Batch, Head, Outcome};
use super::heads;
use super::log::{ChangedStream, Counters};
use super::observed::{AppendObserver, Durable};
use super::pipeline::{Building, Unconfirmed};
use super::pulse::Pulse;
use super::snapshots::SnapshotQueue;
use super::warm::{Changed, Warm};

/// Commands in one batch, at the most.
pub const BATCH_MAX_COMMANDS: usize = 1_024;
/// Commands taken from the queue at once, at the most: what they carry counts against the batch's bytes only afterwards.
pub(super) const ARRIVALS_MAX_COMMANDS: usize = 256;
/// Events and claims of one batch, at the most, give or take what arrived at once.
pub(super) const BATCH_MAX_BYTES: usize = 16 * 1024 * 1024;
/// How long one attempt to get a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How long a look at the heads may take before the connection is given up.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server may work on one statement of the writer: less than the writer waits for it, so that a statement
/// is over when its outcome is asked for.
const SERVER_TIMEOUT: &str = "15s";
/// PostgreSQL would plan the append anew each time, as the lengths of its arrays are all it can tell two plans apart by;
/// that takes two and a half times as long as carrying it out. The one plan it keeps is made while there are few heads on
/// one page, which it would rather read whole; it has to go by the key, or it is slow as soon as there are more versions.
const SETTINGS: &str = "
    SELECT set_config('statement_timeout', $1, false), set_config('plan_cache_mode', 'force_generic_plan', false),
        set_config('enable_seqscan', 'off', false), set_config('enable_bitmapscan', 'off', false),
        set_config('enable_hashjoin', 'off', false), set_config('enable_mergejoin', 'off', false)";

/// How long one statement of the writer may take before the connection is given up.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(20);

/// Everything the writer task owns.
pub struct Writer {
    pub(super) pool: PgPool,
    pub(super) connection: Option<PoolConnection<Postgres>>,
    /// The one that waits for commits to reach the disk.
    pub(super) confirmer: Option<PoolConnection<Postgres>>,
    /// Whether commits may be left to it.
    pub(super) may_defer: bool,
    pub(super) unconfirmed: Unconfirmed,
    /// The heads as they are acknowledged.
    pub(super) heads: Vec<Head>,
    pub(super) partitions: Arc<[Mutex<Warm>]>,
    /// The generation of each partition: only the writer raises them.
    pub(super) generations: Vec<u64>,
    pub(super) queue: mpsc::Receiver<Append>,
    /// Sealed behind a batch that is in trouble, while it is.
    pub(super) waiting_behind: Vec<Append>,
    /// Received and not looked at yet.
    pub(super) arrived: Vec<Append>,
    pub(super) published: watch::Sender<Vec<i64>>,
    pub(super) foreign: broadcast::Sender<ChangedStream>,
    pub(super) snapshots: SnapshotQueue,
    pub(super) counters: Arc<Counters>,
    observer: Option<Arc<dyn AppendObserver>>,
    pub(super) pulse: Pulse,
    pub(super) poll_interval: Duration,
    pub(super) batch_max_commands: usize,
    pub(super) polled_at: Instant,
    pub(super) down_since: Option<Instant>,
}

/// What a writer is made of.
pub struct WriterParts {
    /// Where its two connections come from.
    pub pool: PgPool,
    /// Whether a commit may be left to the second one to wait for.
    pub may_defer: bool,
    /// The heads as they are.
    pub heads: Vec<Head>,
    /// The warm state, one lock per partition.
    pub partitions: Arc<[Mutex<Warm>]>,
    /// Decided commands.
    pub queue: mpsc::Receiver<Append>,
    /// Where durable heads are announced.
    pub published: watch::Sender<Vec<i64>>,
    /// Where streams that other processes wrote are announced.
    pub foreign: broadcast::Sender<ChangedStream>,
    /// Where due snapshots go.
    pub snapshots: SnapshotQueue,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Who hears of durable commands.
    pub observer: Option<Arc<dyn AppendObserver>>,
    /// Whether the database answers.
    pub pulse: Pulse,
    /// How often the heads are looked at for other processes' appends.
    pub poll_interval: Duration,
    /// Commands in one batch, at the most.
    pub batch_max_commands: usize,
}

impl Writer {
    /// Puts a writer together; [`Self::run`] starts it.
    pub fn new(parts: WriterParts) -> Self {
        let WriterParts {
            pool,
            may_defer,
            heads,
            partitions,
            queue,
            published,
            foreign,
            snapshots,
            counters,
            observer,
            pulse,
            poll_interval,
            batch_max_commands,
        } = parts;
        let polled_at = Instant::now();
        Self {
            pool,
            connection: None,
            confirmer: None,
            may_defer,
            unconfirmed: Unconfirmed::default(),
            heads,
            generations: vec![0; partitions.len()],
            partitions,
            queue,
            waiting_behind: Vec::new(),
            arrived: Vec::with_capacity(batch_max_commands),
            published,
            foreign,
            snapshots,
            counters,
            observer,
            pulse,
            poll_interval,
            batch_max_commands,
            polled_at,
            down_since: None,
        }
    }

    /// Writes until every sender of the queue is gone and the queue is empty.
    pub async fn run(mut self) {
        self.write_until_closed().await;
        (self.connection, self.confirmer) = (None, None);
        self.pool.close().await;
    }

    async fn write_until_closed(&mut self) {
        let mut next = Building::on(self.heads.clone());
        loop {
            if next.appends.is_empty() {
                let pause = self.poll_interval.saturating_sub(self.polled_at.elapsed());
                let arrived = &mut self.arrived;
                match tokio::time::timeout(
                    pause,
                    self.queue.recv_many(arrived, self.batch_max_commands.min(ARRIVALS_MAX_COMMANDS)),
                )
                .await
                {
                    Ok(0) => return,
                    Ok(_) => {
                        // Callers that are ready to run go first, which fills the batch without waiting for anybody.
                        tokio::task::yield_now().await;
                        self.drain();
                        self.take_in(&mut next);
                    }
                    Err(_) => {}
                }
            }
            if !next.appends.is_empty() {
                next = self.write_pipelined(next).await;
            }
            if self.polled_at.elapsed() >= self.poll_interval && self.poll().await {
                next = self.again(next.appends);
            }
        }
    }

    /// Looks for other processes' appends, and says whether there were any. An unreachable database is left to the next
    /// append to report.
    async fn poll(&mut self) -> bool {
        self.polled_at = Instant::now();
        let pulse = self.pulse.clone();
        let looked = match self.connect().await {
            Ok(connection) => bounded(&pulse, heads::read(connection)).await,
            Err(error) => Err(error),
        };
        let adopted = match looked {
            Ok(now) => self.adopt(&now).await,
            Err(error) => Err(error),
        };
        if adopted.is_ok() {
            self.down_since = None;
        }
        adopted.unwrap_or_else(|error| {
            self.lose_connection(&error);
            true
        })
    }

    pub(super) fn acknowledge(&mut self, appends: Vec<Append>, batch: &Batch, began: Instant) {
        for (partition, head) in &batch.moves {
            self.heads[index_of(*partition)] = head.to;
        }
        self.settle(&appends);
        self.counters.record_batch(appends.len(), batch.events(), began.elapsed());
        let batch_commands = appends.len();
        for (mut append, positions) in appends.into_iter().zip(&batch.positions) {
            if let (Some(observer), Some(followed)) = (&self.observer, append.followed.take()) {
                observer.durable(&Durable { followed: &followed, positions, began, batch_commands });
            }
            self.snapshots.offer(std::mem::take(&mut append.snapshots));
            append.answer(Outcome::Durable(positions.clone()));
        }
        if batch.events() > 0 {
            self.publish();
        }
    }

    /// Ends appends that are known not to be in the log, and everything decided on top of them.
    pub(super) fn fail(&mut self, appends: Vec<Append>, outcome: impl Fn() -> Outcome) {
        // In this order: first nobody can decide on it any more, then it counts as ended.
        for partition in partitions_of(&appends) {
            self.invalidate(partition, &Changed::nothing());
        }
        self.settle(&appends);
        for append in appends {
            append.answer(outcome());
        }
    }

    fn settle(&self, appends: &[Append]) {
        let mut tickets = BTreeMap::new();
        for basis in appends.iter().flat_map(|append| &append.basis) {
            let ticket: &mut u64 = tickets.entry(basis.partition).or_default();
            *ticket = basis.ticket.max(*ticket);
        }
        for (partition, ticket) in tickets {
            self.warm(partition).resolve(ticket);
        }
    }

    /// Lets everything decided on a partition be decided again.
    pub(super) fn invalidate(&mut self, partition: i32, changed: &Changed) {
        let generation = {
            let mut warm = self.warm(partition);
            warm.invalidate(changed);
            warm.generation
        };
        self.generations[index_of(partition)] = generation;
    }

    pub(super) fn warm(&self, partition: i32) -> std::sync::MutexGuard<'_, Warm> {
        Warm::lock(&self.partitions[index_of(partition)])
    }

    pub(super) fn publish(&self) {
        let positions = self.heads.iter().map(|head| head.position).collect();
        self.published.send_replace(positions);
    }

    pub(super) async fn connect(&mut self) -> Result<&mut PoolConnection<Postgres>, sqlx::Error> {
        if !self.pulse.is_connected() {
            self.lose_connection("the database does not answer");
            return Err(sqlx::Error::PoolTimedOut);
        }
        if self.connection.is_none() {
            self.connection = Some(connect_from(&self.pool, &self.pulse).await?);
        }
        self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)
    }

    pub(super) fn lose_connection(&mut self, error: impl std::fmt::Display) {
        if let Some(connection) = self.connection.take() {
            tracing::warn!(%error, "the writer's connection is given up");
            // Detached and dropped: a connection in an unknown state must not go back to the pool.
            drop(connection.detach());
        }
    }
}

/// A connection as the writer needs it.
pub(super) async fn connect_from(pool: &PgPool, pulse: &Pulse) -> Result<PoolConnection<Postgres>, sqlx::Error> {
    let acquired = tokio::time::timeout(CONNECT_TIMEOUT, pool.acquire()).await;
    let mut connection = acquired.map_err(|_| sqlx::Error::PoolTimedOut)??;
    bounded(pulse, sqlx::query(SETTINGS).bind(SERVER_TIMEOUT).execute(&mut *connection)).await?;
    Ok(connection)
}

pub(super) fn partitions_of(appends: &[Append]) -> BTreeSet<i32> {
    appends.iter().flat_map(|append| &append.basis).map(|basis| basis.partition).collect()
}

/// Gives a statement that only looks a bound of its own: a connection that swallows everything must not stop the log.
pub(super) async fn bounded<T>(
    pulse: &Pulse,
    looking: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let looked = while_it_answers(pulse, LOOK_TIMEOUT, looking).await;
    looked.unwrap_or_else(|| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
}

/// What a statement comes to; nothing when it takes too long, or the database goes away without ending the connection.
/// Whether it is carried out all the same is not known then.
pub(super) async fn while_it_answers<T>(
    pulse: &Pulse,
    timeout: Duration,
    statement: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        done = statement => Some(done),
        () = tokio::time::sleep(timeout) => None,
        () = pulse.away() => None,
    }
}

/// An index into whatever is kept per partition.
pub(super) fn index_of(partition: i32) -> usize {
    usize::try_from(partition).unwrap_or_default()
}

/// The machine's clock, in microseconds.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
