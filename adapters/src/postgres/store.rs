//! The log as an `EventStore` of `cqrs-es`, one aggregate type at a time: `CqrsFramework` and the framework's own tools
//! work on it, on the same warm state and through the same writer as every other command.

use std::collections::HashMap;
use std::marker::PhantomData;

use cqrs_es::persist::PersistedEventRepository;
use cqrs_es::{Aggregate, AggregateContext, AggregateError, EventEnvelope, EventStore};
use postgres_es::PostgresEventRepository;
use tokio::sync::oneshot;
use uuid::Uuid;

use calos_commands::log::{EventLog, LogError, NewEvent};
use calos_commands::sourced::{Recorded, Sourced};
use calos_domain::{Decider, Fact, StreamId, upcast};

use super::append::{Append, Basis, Outcome, StreamEvents};
use super::log::PgLog;
use super::upcast::{label, upcasters};
use super::warm::{DueSnapshot, StreamKey, Warm};

/// The log's streams of one aggregate type.
pub struct PgEventStore<D> {
    log: PgLog,
    kind: PhantomData<fn() -> D>,
}

impl<D> PgEventStore<D> {
    /// Over a log.
    #[must_use]
    pub fn new(log: PgLog) -> Self {
        Self { log, kind: PhantomData }
    }
}

/// An aggregate as it was loaded; a commit holds only if nobody was faster.
pub struct WarmContext<D: Decider> {
    aggregate: Sourced<D>,
    id: String,
    sequence: i64,
    generation: u64,
}

impl<D: Decider> AggregateContext<Sourced<D>> for WarmContext<D> {
    fn aggregate(&mut self) -> &mut Sourced<D> {
        &mut self.aggregate
    }
}

type Failure<D> = AggregateError<<D as Decider>::Refusal>;

impl<D: Decider> EventStore<Sourced<D>> for PgEventStore<D> {
    type AC = WarmContext<D>;

    async fn load_events(&self, aggregate_id: &str) -> Result<Vec<EventEnvelope<Sourced<D>>>, Failure<D>> {
        let repository = PostgresEventRepository::new(self.log.pool().clone());
        let stored = repository.get_events::<Sourced<D>>(aggregate_id).await?;
        let upcasters = upcasters::<D::Event>();
        let mut events = Vec::with_capacity(stored.len());
        for event in stored {
            let event = upcasters.iter().fold(event, |event, upcaster| {
                if upcaster.can_upcast(&event.event_type, &event.event_version) {
                    upcaster.upcast(event)
                } else {
                    event
                }
            });
            let payload = upcast::decode_value(label(&event), event.payload.clone())
                .map_err(|error| AggregateError::DeserializationError(Box::new(error)))?;
            events.push(EventEnvelope {
                aggregate_id: event.aggregate_id,
                sequence: event.sequence,
                payload: Recorded(payload),
                metadata: serde_json::from_value(event.metadata)?,
            });
        }
        Ok(events)
    }

    async fn load_aggregate(&self, aggregate_id: &str) -> Result<WarmContext<D>, Failure<D>> {
        let id = StreamId::from(aggregate_id.to_owned());
        let partition = self.log.partition_of(aggregate_id);
        // Evicted between the two steps only when memory is far too small; then it is simply loaded again.
        loop {
            self.log.warm::<D>(&id).await.map_err(log_failure::<D>)?;
            // The framework answers a refusal by itself, so it must not be decided on what may still fail.
            self.log.settle(partition).await.map_err(log_failure::<D>)?;
            let warm = Warm::lock(self.log.partition(partition));
            let found = warm.peek(D::KIND, aggregate_id, |sequence, aggregate| {
                aggregate.as_any().downcast_ref::<Sourced<D>>().map(|aggregate| (sequence, aggregate.clone()))
            });
            if let Some(Some((sequence, aggregate))) = found {
                let generation = warm.generation;
                return Ok(WarmContext { aggregate, id: aggregate_id.to_owned(), sequence, generation });
            }
        }
    }

    async fn commit(
        &self,
        events: Vec<Recorded<D::Event>>,
        context: WarmContext<D>,
        metadata: HashMap<String, String>,
    ) -> Result<Vec<EventEnvelope<Sourced<D>>>, Failure<D>> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let receiver = self.enqueue(&events, &context, &metadata)?;
        match receiver.await {
            Ok(Outcome::Durable(_)) => {}
            Ok(Outcome::Stale) => return Err(AggregateError::AggregateConflict),
            Ok(Outcome::Failed(error)) => return Err(log_failure::<D>(error)),
            Err(_) => return Err(log_failure::<D>(LogError::Unresolved)),
        }
        let first = usize::try_from(context.sequence).unwrap_or_default() + 1;
        Ok(events
            .into_iter()
            .enumerate()
            .map(|(index, payload)| EventEnvelope {
                aggregate_id: context.id.clone(),
                sequence: first + index,
                payload,
                metadata: metadata.clone(),
            })
            .collect())
    }
}

impl<D: Decider> PgEventStore<D> {
    fn enqueue(
        &self,
        events: &[Recorded<D::Event>],
        context: &WarmContext<D>,
        metadata: &HashMap<String, String>,
    ) -> Result<oneshot::Receiver<Outcome>, Failure<D>> {
        let decided = events.iter().map(|Recorded(event)| stored(event)).collect::<Result<Vec<_>, _>>()?;
        let queue = self.log.queue().ok_or_else(|| log_failure::<D>(LogError::Overloaded))?;
        let permit = queue.try_reserve().map_err(|error| log_failure::<D>(self.log.refuse(&error)))?;
        let partition = self.log.partition_of(&context.id);
        let mut warm = Warm::lock(self.log.partition(partition));
        let Some(mut taken) = warm.take(D::KIND, &context.id) else { return Err(AggregateError::AggregateConflict) };
        let unchanged = taken.sequence == context.sequence && warm.generation == context.generation;
        let basis = vec![Basis { partition, generation: warm.generation, ticket: warm.issue() }];
        let (reply, receiver) = oneshot::channel();
        let mut append = Append::barrier(basis, reply);
        if unchanged && let Some(state) = taken.stream.aggregate.as_any_mut().downcast_mut::<Sourced<D>>() {
            for event in events {
                state.apply(event.clone());
            }
            append.metadata_rest = rest_of(metadata);
            append.streams.push(StreamEvents {
                key: StreamKey::of(D::KIND, &context.id),
                partition,
                first_sequence: context.sequence + 1,
                events: decided,
            });
        }
        let count = append.streams.first().map_or(0, |stream| i64::try_from(stream.events.len()).unwrap_or_default());
        let snapshot = warm.give_back(D::KIND, &context.id, taken.stream.aggregate, count);
        append.snapshots.extend(snapshot.map(|(sequence, version, payload)| {
            let key = StreamKey::of(D::KIND, &context.id);
            DueSnapshot { key, partition, sequence, version, payload }
        }));
        // Sent even when nothing is: the ticket it took has to be resolved.
        permit.send(append);
        if unchanged { Ok(receiver) } else { Err(AggregateError::AggregateConflict) }
    }
}

fn stored<E: Fact>(event: &E) -> Result<NewEvent, serde_json::Error> {
    Ok(NewEvent {
        event_type: event.name(),
        event_version: event.version(),
        payload: serde_json::to_string(event)?,
        event_id: Uuid::now_v7(),
    })
}

/// The framework's metadata behind the event id. The keys every event must have are added where the caller left them out.
fn rest_of(metadata: &HashMap<String, String>) -> String {
    let command_id = Uuid::now_v7().to_string();
    let mut all: std::collections::BTreeMap<&str, &str> =
        metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    all.remove("event_id");
    all.entry("command_id").or_insert(&command_id);
    all.entry("correlation_id").or_insert(&command_id);
    all.entry("actor").or_insert("system:cqrs-es");
    let text = serde_json::to_string(&all).unwrap_or_default();
    text.strip_prefix('{').unwrap_or_default().to_owned()
}

fn log_failure<D: Decider>(error: LogError) -> Failure<D> {
    match error {
        LogError::Contended { .. } | LogError::Claimed => AggregateError::AggregateConflict,
        LogError::Unavailable(_) => AggregateError::DatabaseConnectionError(Box::new(error)),
        LogError::Corrupt(_) => AggregateError::DeserializationError(Box::new(error)),
        LogError::Overloaded | LogError::Unresolved => AggregateError::UnexpectedError(Box::new(error)),
    }
}
