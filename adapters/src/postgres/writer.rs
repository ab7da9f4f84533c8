//! The one task of a process that writes the log: whatever waits becomes one batch, one batch becomes one commit.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};
use tokio::sync::{broadcast, mpsc, watch};

use calos_commands::log::LogError;
use calos_domain::Timestamp;

use super::append::{Append, Batch, Head, Outcome};
use super::failure::Failure;
use super::heads::{self, Resolution};
use super::log::{ChangedStream, Counters};
use super::snapshots::SnapshotQueue;
use super::warm::{Changed, StreamKey, Warm};

/// Commands in one batch, at the most.
pub const BATCH_MAX_COMMANDS: usize = 1_024;
/// How long callers wait for a database that has gone before they are told.
pub const OUTAGE_ANSWER_MILLISECONDS: u64 = 1_500;
/// Attempts at one batch against stale heads and deadlocks before its callers decide again.
const BATCH_MAX_ATTEMPTS: u32 = 16;
/// Pause between two attempts to reach a database that has gone.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// How long one attempt to get a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How long one statement of the writer may take before the connection is given up.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(20);

/// Everything the writer task owns.
pub struct Writer {
    pool: PgPool,
    connection: Option<PoolConnection<Postgres>>,
    heads: Vec<Head>,
    partitions: Arc<[Mutex<Warm>]>,
    queue: mpsc::Receiver<Append>,
    published: watch::Sender<Vec<i64>>,
    foreign: broadcast::Sender<ChangedStream>,
    snapshots: SnapshotQueue,
    counters: Arc<Counters>,
    poll_interval: Duration,
    polled_at: Instant,
    down_since: Option<Instant>,
}

/// What a writer is made of.
pub struct WriterParts {
    /// Where its one connection comes from.
    pub pool: PgPool,
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
    /// How often the heads are looked at for other processes' appends.
    pub poll_interval: Duration,
}

impl Writer {
    /// Puts a writer together; [`Self::run`] starts it.
    pub fn new(parts: WriterParts) -> Self {
        let WriterParts { pool, heads, partitions, queue, published, foreign, snapshots, counters, poll_interval } =
            parts;
        let polled_at = Instant::now();
        Self {
            pool,
            connection: None,
            heads,
            partitions,
            queue,
            published,
            foreign,
            snapshots,
            counters,
            poll_interval,
            polled_at,
            down_since: None,
        }
    }

    /// Writes until every sender of the queue is gone and the queue is empty.
    pub async fn run(mut self) {
        self.write_until_closed().await;
        self.connection = None;
        self.pool.close().await;
    }

    async fn write_until_closed(&mut self) {
        let mut waiting = Vec::with_capacity(BATCH_MAX_COMMANDS);
        loop {
            let pause = self.poll_interval.saturating_sub(self.polled_at.elapsed());
            match tokio::time::timeout(pause, self.queue.recv_many(&mut waiting, BATCH_MAX_COMMANDS)).await {
                Ok(0) => return,
                Ok(_) => {
                    // The callers that the last commit woke are ready to run now; letting them go first fills the
                    // batch without waiting for anybody.
                    tokio::task::yield_now().await;
                    while waiting.len() < BATCH_MAX_COMMANDS
                        && let Ok(append) = self.queue.try_recv()
                    {
                        waiting.push(append);
                    }
                    self.write(std::mem::take(&mut waiting)).await;
                }
                Err(_) => {}
            }
            if self.polled_at.elapsed() >= self.poll_interval {
                self.poll().await;
            }
        }
    }

    /// Looks for other processes' appends. An unreachable database is left to the next append to report.
    async fn poll(&mut self) {
        self.polled_at = Instant::now();
        let looked = match self.connect().await {
            Ok(connection) => heads::read(connection).await,
            Err(error) => Err(error),
        };
        match looked {
            Ok(now) => {
                if let Err(error) = self.adopt(&now).await {
                    self.lose_connection(&error);
                }
            }
            Err(error) => self.lose_connection(&error),
        }
    }

    async fn write(&mut self, mut appends: Vec<Append>) {
        let began = Instant::now();
        let mut attempts = 0;
        while !appends.is_empty() {
            appends = self.turn_stale_away(appends);
            attempts += 1;
            if attempts > BATCH_MAX_ATTEMPTS {
                self.fail(appends, || Outcome::Stale);
                return;
            }
            match self.attempt(&appends).await {
                Ok(batch) => {
                    self.down_since = None;
                    self.acknowledge(appends, &batch, began);
                    return;
                }
                Err(Failure::Stale) => self.counters.stale_batches.add(1),
                Err(Failure::Claimed) => appends = self.drop_claimed(appends).await,
                Err(Failure::StreamTaken) => self.forget_streams(&appends),
                Err(Failure::Refused(error)) if appends.len() > 1 => {
                    tracing::error!(%error, commands = appends.len(), "a batch was refused; writing its commands one by one");
                    self.write_one_by_one(appends).await;
                    return;
                }
                Err(Failure::Refused(error)) => {
                    tracing::error!(%error, "the database refused a command's events");
                    self.fail(appends, || Outcome::Failed(LogError::Corrupt(error.clone())));
                    return;
                }
                Err(Failure::Absent(error)) => {
                    let down_since = *self.down_since.get_or_insert(began);
                    if down_since.elapsed() >= Duration::from_millis(OUTAGE_ANSWER_MILLISECONDS) {
                        self.fail(appends, || Outcome::Failed(LogError::Unavailable(error.clone())));
                        self.turn_queue_away(&error);
                        return;
                    }
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                    attempts -= 1;
                }
                Err(Failure::Unknown(batch, error)) => match self.resolve(&mut appends, *batch, began, &error).await {
                    Some(()) => attempts -= 1,
                    None => return,
                },
            }
        }
    }

    /// One attempt: the batch as it was written, or why not.
    async fn attempt(&mut self, appends: &[Append]) -> Result<Batch, Failure> {
        let batch = Batch::seal(appends, &self.heads, now());
        let connection = match self.connect().await {
            Ok(connection) => connection,
            Err(error) => return Err(Failure::Absent(error.to_string())),
        };
        let written = if batch.is_empty() {
            // Barriers alone: nothing moves the heads, so look at them.
            heads::read(connection).await
        } else {
            match tokio::time::timeout(STATEMENT_TIMEOUT, batch.write(connection)).await {
                Ok(Ok(())) => return Ok(batch),
                Ok(Err(error)) => match Failure::of(&error) {
                    Some(failure) => {
                        self.after_refusal(failure).await?;
                        return Err(Failure::Stale);
                    }
                    None => {
                        self.lose_connection(&error);
                        return Err(Failure::Unknown(Box::new(batch), error.to_string()));
                    }
                },
                Err(_) => {
                    self.lose_connection("the statement took too long");
                    return Err(Failure::Unknown(Box::new(batch), "the statement took too long".to_owned()));
                }
            }
        };
        let now = match written {
            Ok(now) => now,
            Err(error) => {
                self.lose_connection(&error);
                return Err(Failure::Absent(error.to_string()));
            }
        };
        let moved = self.adopt(&now).await.map_err(|error| Failure::Absent(error.to_string()))?;
        if moved { Err(Failure::Stale) } else { Ok(batch) }
    }

    /// A stale head is looked up; every other refusal is passed on.
    async fn after_refusal(&mut self, failure: Failure) -> Result<(), Failure> {
        let Failure::Stale = failure else { return Err(failure) };
        let looked = match self.connect().await {
            Ok(connection) => heads::read(connection).await,
            Err(error) => Err(error),
        };
        match looked {
            Ok(now) => self.adopt(&now).await.map(drop).map_err(|error| Failure::Absent(error.to_string())),
            Err(error) => {
                self.lose_connection(&error);
                Err(Failure::Absent(error.to_string()))
            }
        }
    }

    /// Takes over heads that others moved: their streams are forgotten, and what waits on those partitions is stale.
    async fn adopt(&mut self, now: &[Head]) -> Result<bool, sqlx::Error> {
        let mut moved = false;
        for (index, head) in now.iter().enumerate() {
            let known = self.heads[index];
            if *head == known {
                continue;
            }
            moved = true;
            let partition = i32::try_from(index).unwrap_or_default();
            let connection = self.connect().await?;
            let changed = heads::changed_streams(connection, partition, known.position).await?;
            Warm::lock(&self.partitions[index]).invalidate(&changed);
            self.heads[index] = *head;
            self.announce_foreign(&changed);
        }
        if moved {
            self.publish();
        }
        Ok(moved)
    }

    fn announce_foreign(&self, changed: &Changed) {
        // Without a listener there is nobody to tell, which is what the send's error says.
        match changed {
            Changed::Streams(streams) => {
                for key in streams {
                    drop(self.foreign.send(ChangedStream::Stream { kind: key.kind.clone(), id: key.id.clone() }));
                }
            }
            Changed::Any => drop(self.foreign.send(ChangedStream::Any)),
        }
    }

    /// Finds out what became of a batch whose answer was lost. `Some` when the appends left over are to be tried again.
    async fn resolve(&mut self, appends: &mut Vec<Append>, batch: Batch, began: Instant, error: &str) -> Option<()> {
        tracing::warn!(error, "the answer to a commit was lost; asking the log");
        let mut told = false;
        loop {
            let resolution = match self.connect().await {
                Ok(connection) => heads::resolve(connection, &batch).await,
                Err(error) => Err(error),
            };
            match resolution {
                Ok(Resolution::Committed) => {
                    self.acknowledge(std::mem::take(appends), &batch, began);
                    return None;
                }
                Ok(Resolution::Absent) if told => {
                    // Nobody waits for them any more, and what was decided on top of them cannot stand.
                    self.fail(std::mem::take(appends), || Outcome::Failed(LogError::Unresolved));
                    return None;
                }
                Ok(Resolution::Absent) => return Some(()),
                Err(error) => {
                    self.lose_connection(&error);
                    if !told && began.elapsed() >= Duration::from_millis(OUTAGE_ANSWER_MILLISECONDS) {
                        told = true;
                        for append in appends.iter_mut() {
                            append.answer_now(Outcome::Failed(LogError::Unresolved));
                        }
                    }
                    // The partitions take no further append until this is known; the queue's bound turns callers away.
                    if self.queue.is_closed() && told {
                        self.fail(std::mem::take(appends), || Outcome::Failed(LogError::Unresolved));
                        return None;
                    }
                    if told {
                        self.turn_queue_away(&error.to_string());
                    }
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                }
            }
        }
    }

    /// Answers everybody who waits behind an outage: nothing of theirs was sent.
    fn turn_queue_away(&mut self, error: &str) {
        let mut waiting = Vec::new();
        while let Ok(append) = self.queue.try_recv() {
            waiting.push(append);
        }
        self.fail(waiting, || Outcome::Failed(LogError::Unavailable(error.to_owned())));
    }

    async fn write_one_by_one(&mut self, appends: Vec<Append>) {
        for append in appends {
            Box::pin(self.write(vec![append])).await;
        }
    }

    /// Sends back what was decided before its partition changed under it.
    fn turn_stale_away(&mut self, appends: Vec<Append>) -> Vec<Append> {
        let mut generations = BTreeMap::new();
        for partition in appends.iter().flat_map(|append| &append.basis).map(|basis| basis.partition) {
            generations.entry(partition).or_insert_with(|| self.warm(partition).generation);
        }
        let (current, stale): (Vec<_>, Vec<_>) = appends.into_iter().partition(|append| {
            append.basis.iter().all(|basis| generations.get(&basis.partition) == Some(&basis.generation))
        });
        // Already invalidated when the generation was raised: nothing new has been decided on top of these.
        self.settle(&stale);
        for append in stale {
            append.answer(Outcome::Stale);
        }
        current
    }

    /// Finds the commands whose key is taken and tells them; what shares a partition with them is decided again.
    async fn drop_claimed(&mut self, appends: Vec<Append>) -> Vec<Append> {
        let claims: Vec<_> = appends.iter().filter_map(Append::claim_key).collect();
        let taken = match self.connect().await {
            Ok(connection) => heads::taken_claims(connection, &claims).await,
            Err(error) => Err(error),
        };
        let mut taken = match taken {
            Ok(taken) => taken,
            Err(error) => {
                self.lose_connection(&error);
                return appends;
            }
        };
        let mut losers = Vec::new();
        let mut rest = Vec::new();
        for append in appends {
            // Two commands with one key in one batch: the first may stay, the second finds its key taken.
            let lost = append.claim_key().is_some_and(|key| !taken.insert(key));
            if lost { losers.push(append) } else { rest.push(append) }
        }
        self.fail(losers, || Outcome::Failed(LogError::Claimed));
        rest
    }

    /// A stream already has an event of that sequence: what is in memory is not what is stored. Load it again.
    fn forget_streams(&mut self, appends: &[Append]) {
        tracing::warn!("a stream was written behind the head; its state is loaded again");
        let keys: HashSet<StreamKey> =
            appends.iter().flat_map(|append| &append.streams).map(|stream| stream.key.clone()).collect();
        let changed = Changed::Streams(keys);
        for partition in partitions_of(appends) {
            self.warm(partition).invalidate(&changed);
        }
    }

    fn acknowledge(&mut self, appends: Vec<Append>, batch: &Batch, began: Instant) {
        for (partition, head) in &batch.moves {
            self.heads[usize::try_from(*partition).unwrap_or_default()] = head.to;
        }
        self.settle(&appends);
        self.counters.record_batch(appends.len(), batch.events(), began.elapsed());
        for (mut append, positions) in appends.into_iter().zip(&batch.positions) {
            self.snapshots.offer(std::mem::take(&mut append.snapshots));
            append.answer(Outcome::Durable(positions.clone()));
        }
        if batch.events() > 0 {
            self.publish();
        }
    }

    /// Ends appends that are known not to be in the log, and everything decided on top of them.
    fn fail(&mut self, appends: Vec<Append>, outcome: impl Fn() -> Outcome) {
        // In this order: first nobody can decide on it any more, then it counts as ended.
        for partition in partitions_of(&appends) {
            self.warm(partition).invalidate(&Changed::nothing());
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

    fn warm(&self, partition: i32) -> std::sync::MutexGuard<'_, Warm> {
        Warm::lock(&self.partitions[usize::try_from(partition).unwrap_or_default()])
    }

    fn publish(&self) {
        let positions = self.heads.iter().map(|head| head.position).collect();
        self.published.send_replace(positions);
    }

    async fn connect(&mut self) -> Result<&mut PoolConnection<Postgres>, sqlx::Error> {
        if self.connection.is_none() {
            let acquired = tokio::time::timeout(CONNECT_TIMEOUT, self.pool.acquire()).await;
            self.connection = Some(acquired.map_err(|_| sqlx::Error::PoolTimedOut)??);
        }
        self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)
    }

    fn lose_connection(&mut self, error: impl std::fmt::Display) {
        if let Some(connection) = self.connection.take() {
            tracing::warn!(%error, "the writer's connection is given up");
            // Detached and dropped: a connection in an unknown state must not go back to the pool.
            drop(connection.detach());
        }
    }
}

fn partitions_of(appends: &[Append]) -> BTreeSet<i32> {
    appends.iter().flat_map(|append| &append.basis).map(|basis| basis.partition).collect()
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
