//! The port to the event log: plan the streams, decide on their state, be answered when it is durable.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use futures_util::FutureExt;
use tokio::task::unconstrained;
use uuid::Uuid;

use calos_domain::{Decider, StreamId};

use crate::metadata::Metadata;
use crate::sourced::{Recorded, Sourced};

/// Where a command's events landed: the last position in each partition it touched. Shown as `3:17,9:4`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Positions(pub BTreeMap<i32, i64>);

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (partition, position)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{partition}:{position}")?;
        }
        Ok(())
    }
}

/// Why a text is no vector of positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("positions are pairs like 3:17,9:4 (partition:position)")]
pub struct NoPositions;

/// The most pairs a [`Positions`] text may hold: one per partition a log can have.
pub const POSITIONS_MAX_PAIRS: usize = 256;

impl std::str::FromStr for Positions {
    type Err = NoPositions;
    fn from_str(text: &str) -> Result<Self, NoPositions> {
        let mut positions = BTreeMap::new();
        for (index, pair) in text.split(',').enumerate() {
            let (partition, position) = pair.trim().split_once(':').ok_or(NoPositions)?;
            let partition: i32 = partition.parse().map_err(|_| NoPositions)?;
            let position: i64 = position.parse().map_err(|_| NoPositions)?;
            let known = positions.insert(partition, position).is_some();
            if known || partition < 0 || position < 0 || index >= POSITIONS_MAX_PAIRS {
                return Err(NoPositions);
            }
        }
        Ok(Self(positions))
    }
}

/// What makes a caller's repeated request the same request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdempotencyClaim {
    /// Who repeats: the tenant or user, as text. A key means nothing to anybody else.
    pub caller: String,
    /// The caller's own key.
    pub key: String,
    /// SHA-256 of the request: the same key with another request is refused.
    pub request_hash: [u8; 32],
    /// What to answer again, already sealed.
    pub sealed_answer: Vec<u8>,
    /// The stream key whose partition keeps the row; it must be one the command writes to.
    pub partition_key: String,
}

/// Everything about a command that is not the decision itself.
#[derive(Clone, Debug)]
pub struct Request {
    /// The envelope.
    pub metadata: Metadata,
    /// Set when the caller gave an idempotency key.
    pub idempotency: Option<IdempotencyClaim>,
}

impl From<Metadata> for Request {
    fn from(metadata: Metadata) -> Self {
        Self { metadata, idempotency: None }
    }
}

/// A decided and durable command.
#[derive(Clone, Debug)]
pub struct Done<T> {
    /// What the decision answered.
    pub answer: T,
    /// Where its events landed; empty when there was nothing to do.
    pub positions: Positions,
}

/// Why the log could not take a command.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The queue is full: nothing was decided. Retry after a moment.
    #[error("the log's queue is full")]
    Overloaded,
    /// The database cannot be reached; what was in flight is known to be absent, or is reported as [`Self::Unresolved`].
    #[error("the database cannot be reached: {0}")]
    Unavailable(String),
    /// The answer to a commit was lost and the database has not come back to tell. Repeat with the same id.
    #[error("the outcome of the command is not known yet")]
    Unresolved,
    /// Others wrote the same streams faster than the bounded number of retries.
    #[error("gave up after {attempts} attempts against concurrent writers")]
    Contended {
        /// Attempts made.
        attempts: u32,
    },
    /// The same idempotency key was claimed by an earlier or concurrent command.
    #[error("the idempotency key was used before")]
    Claimed,
    /// What is stored cannot be read: corruption or a version this binary does not know.
    #[error("stored events cannot be read: {0}")]
    Corrupt(String),
}

/// A command that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Failed<E> {
    /// The rules refuse it; nothing changed.
    #[error("{0}")]
    Refused(E),
    /// The log could not take it.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// A future that can be stored.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One stream a command reads or writes, and how to bring its state into memory.
pub struct StreamRef<L> {
    /// The aggregate type.
    pub kind: &'static str,
    /// The stream.
    pub id: StreamId,
    /// Loads the stream when it is not warm.
    pub warm: for<'a> fn(&'a L, &'a StreamId) -> Boxed<'a, Result<(), LogError>>,
}

/// A typed place in a [`Plan`].
pub struct Handle<D>(usize, PhantomData<fn() -> D>);

impl<D> Clone for Handle<D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D> Copy for Handle<D> {}

/// The streams one command needs, named before anything is decided so that they can be loaded and locked in order.
pub struct Plan<L> {
    streams: Vec<StreamRef<L>>,
}

impl<L> Default for Plan<L> {
    fn default() -> Self {
        Self { streams: Vec::with_capacity(4) }
    }
}

impl<L: EventLog> Plan<L> {
    /// Adds a stream; naming the same stream twice gives the same place.
    pub fn stream<D: Decider>(&mut self, id: StreamId) -> Handle<D> {
        let known = self.streams.iter().position(|stream| stream.kind == D::KIND && stream.id == id);
        let index = known.unwrap_or_else(|| {
            self.streams.push(StreamRef { kind: D::KIND, id, warm: |log, id| Box::pin(log.warm::<D>(id)) });
            self.streams.len() - 1
        });
        Handle(index, PhantomData)
    }

    /// The streams in the order of their handles.
    #[must_use]
    pub fn streams(&self) -> &[StreamRef<L>] {
        &self.streams
    }
}

/// The append-only log, as a use case sees it.
pub trait EventLog: Clone + Send + Sync + 'static {
    /// Makes sure the stream's state is in memory.
    fn warm<D: Decider>(&self, id: &StreamId) -> impl Future<Output = Result<(), LogError>> + Send;

    /// Decides on the planned streams and appends what was decided, all or nothing.
    ///
    /// The decision may run several times when other processes write the same partitions, so it must depend on its
    /// inputs alone. It answers once its events are durable; a refusal, or a decision without events, answers once
    /// everything it was decided on is durable.
    fn execute<T, E, F>(
        &self,
        plan: &Plan<Self>,
        request: Request,
        decide: F,
    ) -> impl Future<Output = Result<Done<T>, Failed<E>>> + Send
    where
        T: Send,
        E: Send,
        F: FnMut(&mut Unit<'_>) -> Result<T, E> + Send;
}

/// One event of a decision, ready to be sealed and stored.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The stored name.
    pub event_type: &'static str,
    /// The stored version.
    pub event_version: &'static str,
    /// The stored payload.
    pub payload: String,
    /// This event's id.
    pub event_id: Uuid,
}

/// A warm aggregate behind a type-erased face.
pub trait WarmAggregate: Send {
    /// The state, to be downcast by a typed handle.
    fn as_any(&self) -> &dyn Any;
    /// The state, to be downcast by a typed handle.
    fn as_any_mut(&mut self) -> &mut dyn Any;
    /// Roughly how many bytes it holds.
    fn weight_bytes(&self) -> usize;
    /// The state as snapshot JSON.
    ///
    /// # Errors
    /// Serialisation errors, which a plain state never has.
    fn snapshot_json(&self) -> Result<String, serde_json::Error>;
    /// The snapshot's schema version.
    fn snapshot_version(&self) -> i32;
}

impl<D: Decider> WarmAggregate for Sourced<D> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn weight_bytes(&self) -> usize {
        self.0.weight_bytes()
    }

    fn snapshot_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&self.0)
    }

    fn snapshot_version(&self) -> i32 {
        D::SNAPSHOT_VERSION
    }
}

/// A planned stream while its partition is locked: its state, and what has been decided on it so far.
pub struct UnitStream {
    /// The state, with the decided events folded in.
    pub aggregate: Box<dyn WarmAggregate>,
    /// Decided in this unit, not yet enqueued.
    pub decided: Vec<NewEvent>,
}

/// What a decision works on: the planned streams, locked, with their state as of the log's head.
pub struct Unit<'a> {
    streams: &'a mut [UnitStream],
    fault: &'a mut Option<String>,
}

impl<'a> Unit<'a> {
    /// For the log's implementation: `fault` takes what a decision cannot report through its own refusal.
    pub fn new(streams: &'a mut [UnitStream], fault: &'a mut Option<String>) -> Self {
        Self { streams, fault }
    }

    /// The state of a planned stream.
    pub fn read<D: Decider>(&mut self, handle: Handle<D>) -> D {
        self.with(handle, D::clone)
    }

    /// Looks at the state of a planned stream without cloning it.
    pub fn with<D: Decider, R>(&mut self, handle: Handle<D>, look: impl FnOnce(&D) -> R) -> R {
        match self.streams[handle.0].aggregate.as_any().downcast_ref::<Sourced<D>>() {
            Some(state) => look(&state.0),
            None => {
                *self.fault = Some(format!("the stream is not a {}", D::KIND));
                look(&D::default())
            }
        }
    }

    /// Decides a command on a planned stream; its events count for every later look in this unit.
    ///
    /// # Errors
    /// The aggregate's refusal. A unit that ends in a refusal appends nothing at all.
    pub fn decide<D: Decider>(&mut self, handle: Handle<D>, command: D::Command) -> Result<Vec<D::Event>, D::Refusal> {
        let stream = &mut self.streams[handle.0];
        let Some(state) = stream.aggregate.as_any_mut().downcast_mut::<Sourced<D>>() else {
            *self.fault = Some(format!("the stream is not a {}", D::KIND));
            return Ok(Vec::new());
        };
        let sink = EventSink::<Sourced<D>>::default();
        // Nothing in a decision waits (`Services = ()`), so its future is ready at the first poll. The sink has a lock of
        // tokio's, which nobody else holds, but which lets a task wait that has done much since it was polled: not here.
        match unconstrained(state.handle(command, &(), &sink)).now_or_never() {
            Some(decided) => decided?,
            None => *self.fault = Some("a decision waited".to_owned()),
        }
        let Some(events) = unconstrained(sink.collect()).now_or_never() else {
            *self.fault = Some("a decision's events waited".to_owned());
            return Ok(Vec::new());
        };
        let mut plain = Vec::with_capacity(events.len());
        for Recorded(event) in events {
            match serde_json::to_string(&event) {
                Ok(payload) => stream.decided.push(NewEvent {
                    event_type: calos_domain::Fact::name(&event),
                    event_version: calos_domain::Fact::version(&event),
                    payload,
                    event_id: Uuid::now_v7(),
                }),
                Err(error) => *self.fault = Some(format!("an event cannot be written: {error}")),
            }
            plain.push(event);
        }
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use calos_domain::wallet::{Wallet, WalletCommand};
    use calos_domain::{TenantId, Timestamp};

    use super::*;

    /// tokio gives a task a budget per poll; what its own locks answer once that is used up is "wait".
    async fn use_up_the_budget() {
        let lock = tokio::sync::Mutex::new(());
        let mut polls = 0;
        while lock.lock().now_or_never().is_some() {
            polls += 1;
            assert!(polls < 100_000, "the budget does not end");
        }
    }

    #[tokio::test]
    async fn a_decision_keeps_its_events_however_much_its_task_did_before() {
        let mut streams =
            [UnitStream { aggregate: Box::new(Sourced(Wallet::default())), decided: Vec::with_capacity(1) }];
        let mut fault = None;
        let wallet = Handle::<Wallet>(0, PhantomData);
        use_up_the_budget().await;
        let mut unit = Unit::new(&mut streams, &mut fault);
        let tenant_id = TenantId(Uuid::nil());
        let decided = unit.decide(wallet, WalletCommand::OpenWallet { tenant_id, opened_at: Timestamp::default() });
        assert_eq!(decided.map(|events| events.len()), Ok(1));
        assert_eq!(fault, None);
        assert_eq!(streams[0].decided.len(), 1, "the event is to be appended");
    }
}
