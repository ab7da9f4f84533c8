//! The event log on PostgreSQL: the port's implementation, decided on warm state and written by one task.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tracing::Instrument as _;

use calos_commands::in_request::TRACE_TARGET;
use calos_commands::log::{Done, EventLog, Failed, LogError, Plan, Request, Unit};
use calos_domain::{Decider, StreamId};

pub use super::counters::Counters;

use super::append::{Append, Basis, Outcome};
use super::confirm;
use super::heads;
use super::load::{Loaded, load, unavailable};
use super::observed::AppendObserver;
use super::partitioning::partition_of;
use super::pulse::Pulse;
use super::snapshots::SnapshotQueue;
use super::unit::{Decided, decide};
use super::warm::{StreamKey, Warm};
use super::writer::{BATCH_MAX_COMMANDS, Writer, WriterParts};

/// Decided commands waiting for the writer, at the most; more are turned away as overloaded.
pub const QUEUE_MAX_COMMANDS: usize = 8_192;
/// Times a command is decided again because others wrote its partition, at the most.
pub const EXECUTE_MAX_ATTEMPTS: u32 = 64;
/// Announcements of foreign streams kept for a slow listener; one that falls further behind is told so.
const FOREIGN_MAX_CHANGES: usize = 4_096;
/// Memory for warm aggregates of one process, by their own estimate.
const WARM_MAX_BYTES: usize = 512 * 1024 * 1024;
/// Times a stream is loaded again because others wrote its partition meanwhile, at the most.
const LOAD_MAX_ATTEMPTS: u32 = 32;
/// Streams loaded from the database at one time, at the most.
const LOADS_MAX_CONCURRENT: usize = 64;
/// How often the heads are looked at for other processes' appends.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// What can be set about a log.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// See [`QUEUE_MAX_COMMANDS`].
    pub queue_max_commands: usize,
    /// See [`WARM_MAX_BYTES`].
    pub warm_max_bytes: usize,
    /// How often the heads are looked at for other processes' appends.
    pub poll_interval: Duration,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { queue_max_commands: QUEUE_MAX_COMMANDS, warm_max_bytes: WARM_MAX_BYTES, poll_interval: POLL_INTERVAL }
    }
}

/// What another process wrote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChangedStream {
    /// This stream.
    Stream {
        /// Its aggregate type.
        kind: String,
        /// Its id.
        id: String,
    },
    /// Too many to name: trust nothing that was cached.
    Any,
}

/// The log. Cloning shares it; [`Self::close`] ends it.
#[derive(Clone)]
pub struct PgLog(Arc<Inner>);

struct Inner {
    pool: PgPool,
    partitions: Arc<[Mutex<Warm>]>,
    /// One lock per stripe of streams, held while a stream is loaded.
    loading: [tokio::sync::Mutex<()>; LOADS_MAX_CONCURRENT],
    stripes: RandomState,
    count: u16,
    queue: Mutex<Option<mpsc::Sender<Append>>>,
    heads: watch::Receiver<Vec<i64>>,
    foreign: broadcast::Sender<ChangedStream>,
    counters: Arc<Counters>,
    /// Whether anybody hears of durable commands.
    observed: bool,
    pulse: Pulse,
    pulse_task: AbortHandle,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl PgLog {
    /// Opens the log of a migrated database and starts its writer.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]; [`LogError::Corrupt`] when the head rows are not those of a log.
    pub async fn open(pool: PgPool, options: LogOptions) -> Result<Self, LogError> {
        Self::open_observed(pool, options, None).await
    }

    /// The same, with somebody who hears of every command that became durable.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_observed(
        pool: PgPool,
        options: LogOptions,
        observer: Option<Arc<dyn AppendObserver>>,
    ) -> Result<Self, LogError> {
        let mut connection = pool.acquire().await.map_err(unavailable)?;
        let now = heads::read(&mut connection).await.map_err(|error| match error {
            sqlx::Error::Decode(error) => LogError::Corrupt(error.to_string()),
            error => unavailable(error),
        })?;
        let may_defer = confirm::is_possible(&mut connection).await.map_err(unavailable)?;
        if may_defer {
            confirm::flush_on(&mut connection).await.map_err(unavailable)?;
        }
        drop(connection);
        let count = u16::try_from(now.len()).unwrap_or_default();
        if count == 0 {
            return Err(LogError::Corrupt("the log has no partitions; migrate the database first".to_owned()));
        }
        let share = options.warm_max_bytes / usize::from(count);
        let partitions: Arc<[Mutex<Warm>]> = (0..count).map(|_| Warm::new(share)).collect();
        let (sender, queue) = mpsc::channel(options.queue_max_commands);
        let (published, heads) = watch::channel(now.iter().map(|head| head.position).collect());
        let (foreign, _) = broadcast::channel(FOREIGN_MAX_CHANGES);
        let (pulse, pulse_task) = Pulse::start((*pool.connect_options()).clone());
        let (snapshots, snapshot_task) = SnapshotQueue::start(pool.clone(), pulse.clone());
        let counters = Arc::new(Counters::default());
        let observed = observer.is_some();
        // A pool of its own for its two connections: readers that take every other connection cannot stop the writer.
        let own = pool.options().clone().max_connections(2).min_connections(0);
        let writer = Writer::new(WriterParts {
            pool: own.connect_lazy_with((*pool.connect_options()).clone()),
            may_defer,
            heads: now,
            partitions: Arc::clone(&partitions),
            queue,
            published,
            foreign: foreign.clone(),
            snapshots,
            counters: Arc::clone(&counters),
            observer,
            pulse: pulse.clone(),
            poll_interval: options.poll_interval,
            // A short queue means short batches: what waits is bounded by a small multiple of it.
            batch_max_commands: options.queue_max_commands.clamp(1, BATCH_MAX_COMMANDS),
        });
        let tasks = Mutex::new(vec![tokio::spawn(writer.run()), snapshot_task]);
        let queue = Mutex::new(Some(sender));
        let loading = std::array::from_fn(|_| tokio::sync::Mutex::new(()));
        Ok(Self(Arc::new(Inner {
            pool,
            partitions,
            loading,
            stripes: RandomState::new(),
            count,
            queue,
            heads,
            foreign,
            counters,
            observed,
            pulse,
            pulse_task: pulse_task.abort_handle(),
            tasks,
        })))
    }

    /// Takes no more commands, and returns once everything enqueued is durable or answered.
    pub async fn close(&self) {
        drop(lock(&self.0.queue).take());
        let tasks = std::mem::take(&mut *lock(&self.0.tasks));
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the log ended badly");
            }
        }
        self.0.pulse_task.abort();
    }

    /// Whether its database answers.
    #[must_use]
    pub fn pulse(&self) -> &Pulse {
        &self.0.pulse
    }

    /// The durable head position of each partition, by partition number; changes wake whoever watches.
    #[must_use]
    pub fn heads(&self) -> watch::Receiver<Vec<i64>> {
        self.0.heads.clone()
    }

    /// Streams that other processes wrote, as this one finds out: within the poll interval.
    #[must_use]
    pub fn foreign_changes(&self) -> broadcast::Receiver<ChangedStream> {
        self.0.foreign.subscribe()
    }

    /// The partition of a stream id.
    #[must_use]
    pub fn partition_of(&self, stream_id: &str) -> i32 {
        partition_of(stream_id, self.0.count)
    }

    /// How many partitions the log has.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.0.count
    }

    /// What the log counts about itself.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Decided commands that wait for the writer, and how many may.
    #[must_use]
    pub fn queue_depth(&self) -> (usize, usize) {
        let queue = lock(&self.0.queue);
        queue.as_ref().map_or((0, 0), |queue| (queue.max_capacity() - queue.capacity(), queue.max_capacity()))
    }

    /// Whether anybody follows commands.
    pub(super) fn is_observed(&self) -> bool {
        self.0.observed
    }

    /// The pool it reads through.
    pub(super) fn pool(&self) -> &PgPool {
        &self.0.pool
    }

    /// The warm state of one partition.
    pub(super) fn partition(&self, partition: i32) -> &Mutex<Warm> {
        &self.0.partitions[usize::try_from(partition).unwrap_or_default()]
    }

    /// A sender to the writer; `None` once closed.
    pub(super) fn queue(&self) -> Option<mpsc::Sender<Append>> {
        lock(&self.0.queue).clone()
    }

    /// Waits until nothing of a partition is in flight that was when this began.
    pub(super) async fn settle(&self, partition: i32) -> Result<(), LogError> {
        let receiver = {
            let Some(queue) = self.queue() else { return Err(closed()) };
            let permit = queue.try_reserve().map_err(|error| self.refuse(&error))?;
            let mut warm = Warm::lock(self.partition(partition));
            if !warm.is_in_flight() {
                return Ok(());
            }
            let (reply, receiver) = oneshot::channel();
            let basis = vec![Basis { partition, generation: warm.generation, ticket: warm.issue() }];
            permit.send(Append::barrier(basis, reply));
            receiver
        };
        match receiver.await {
            // Stale is an end too: whatever was in flight is known to have failed.
            Ok(Outcome::Durable(_) | Outcome::Stale) => Ok(()),
            Ok(Outcome::Failed(error)) => Err(error),
            Err(_) => Err(LogError::Unresolved),
        }
    }

    pub(super) fn refuse<T>(&self, error: &TrySendError<T>) -> LogError {
        match error {
            TrySendError::Full(_) => {
                self.0.counters.overloaded.add(1);
                LogError::Overloaded
            }
            TrySendError::Closed(_) => closed(),
        }
    }
}

impl EventLog for PgLog {
    async fn warm<D: Decider>(&self, id: &StreamId) -> Result<(), LogError> {
        let partition = self.partition_of(id.as_str());
        if Warm::lock(self.partition(partition)).contains(D::KIND, id.as_str()) {
            return Ok(());
        }
        // A thousand callers of one cold stream load it once.
        let stripe = RandomState::hash_one(&self.0.stripes, (D::KIND, id)) % LOADS_MAX_CONCURRENT as u64;
        let _loading = self.0.loading[usize::try_from(stripe).unwrap_or_default()].lock().await;
        if Warm::lock(self.partition(partition)).contains(D::KIND, id.as_str()) {
            return Ok(());
        }
        for _ in 0..LOAD_MAX_ATTEMPTS {
            // What is in flight is not in the database yet.
            self.settle(partition).await?;
            let generation = Warm::lock(self.partition(partition)).generation;
            let loaded = self.0.pulse.unless_lost(load::<D>(&self.0.pool, id.as_str())).await;
            let Loaded { aggregate, sequence, snapshot_sequence } = loaded.ok_or_else(lost)??;
            self.0.counters.cold_loads.add(1);
            let mut warm = Warm::lock(self.partition(partition));
            // Others may have written the stream after it was read; then it was invalidated before it came in here.
            if warm.generation == generation {
                let key = StreamKey::of(D::KIND, id.as_str());
                warm.insert(key, Box::new(aggregate), sequence, snapshot_sequence);
                return Ok(());
            }
        }
        Err(LogError::Contended { attempts: LOAD_MAX_ATTEMPTS })
    }

    async fn execute<T, E, F>(&self, plan: &Plan<Self>, request: Request, choose: F) -> Result<Done<T>, Failed<E>>
    where
        T: Send,
        E: Send,
        F: FnMut(&mut Unit<'_>) -> Result<T, E> + Send,
    {
        let metadata = &request.metadata;
        let span = tracing::trace_span!(
            target: TRACE_TARGET,
            "command",
            calos.stream = plan.streams().first().map(|stream| stream.kind),
            calos.command_id = %metadata.command_id,
            calos.correlation_id = %metadata.correlation_id,
            calos.causation_id = metadata.causation_id.map(tracing::field::display),
        );
        self.decide_until_durable(plan, request, choose).instrument(span).await
    }
}

impl PgLog {
    /// Decides, and decides again for as long as others were faster, until the outcome is in the log.
    async fn decide_until_durable<T, E, F>(
        &self,
        plan: &Plan<Self>,
        request: Request,
        mut choose: F,
    ) -> Result<Done<T>, Failed<E>>
    where
        T: Send,
        E: Send,
        F: FnMut(&mut Unit<'_>) -> Result<T, E> + Send,
    {
        let Some(queue) = self.queue() else { return Err(Failed::Log(closed())) };
        let mut attempts = 0;
        while attempts < EXECUTE_MAX_ATTEMPTS {
            let decided = decide(self, &queue, plan, &request, &mut choose)?;
            let (answer, receiver) = match decided {
                Decided::Cold(index) => {
                    let stream = &plan.streams()[index];
                    (stream.warm)(self, &stream.id).await?;
                    attempts += 1;
                    continue;
                }
                Decided::Waiting(answer, receiver) => (answer, receiver),
            };
            match receiver.await {
                Ok(Outcome::Durable(positions)) => {
                    return answer.map(|answer| Done { answer, positions }).map_err(Failed::Refused);
                }
                Ok(Outcome::Stale) => {
                    self.0.counters.redecided.add(1);
                    attempts += 1;
                }
                Ok(Outcome::Failed(error)) => return Err(Failed::Log(error)),
                Err(_) => return Err(Failed::Log(LogError::Unresolved)),
            }
        }
        Err(Failed::Log(LogError::Contended { attempts }))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub(super) fn lost() -> LogError {
    LogError::Unavailable("the database does not answer".to_owned())
}

fn closed() -> LogError {
    LogError::Unavailable("the log is closed".to_owned())
}
