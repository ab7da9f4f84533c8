//! A log in memory, for the tests of use cases: it decides as the real one does, and a refused unit leaves it as it was.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use calos_domain::{Decider, StreamId};

use crate::log::{Done, EventLog, Failed, LogError, Plan, Positions, Request, Unit, UnitStream, WarmAggregate};
use crate::metadata::{Actor, Metadata};
use crate::sourced::Sourced;

/// Copies a state without knowing its type.
type Copy = fn(&dyn WarmAggregate) -> Box<dyn WarmAggregate>;

struct Stored {
    aggregate: Box<dyn WarmAggregate>,
    copy: Copy,
    names: Vec<&'static str>,
}

/// The log. Every event lands in partition 0.
#[derive(Clone, Default)]
pub(crate) struct MemoryLog(Arc<Mutex<BTreeMap<(&'static str, String), Stored>>>);

fn copy<D: Decider>(aggregate: &dyn WarmAggregate) -> Box<dyn WarmAggregate> {
    Box::new(aggregate.as_any().downcast_ref::<Sourced<D>>().unwrap().clone())
}

impl EventLog for MemoryLog {
    async fn warm<D: Decider>(&self, id: &StreamId) -> Result<(), LogError> {
        let fresh = || Stored { aggregate: Box::new(Sourced(D::default())), copy: copy::<D>, names: Vec::new() };
        self.0.lock().unwrap().entry((D::KIND, id.as_str().to_owned())).or_insert_with(fresh);
        Ok(())
    }

    async fn execute<T, E, F>(&self, plan: &Plan<Self>, _: Request, mut decide: F) -> Result<Done<T>, Failed<E>>
    where
        T: Send,
        E: Send,
        F: FnMut(&mut Unit<'_>) -> Result<T, E> + Send,
    {
        for stream in plan.streams() {
            (stream.warm)(self, &stream.id).await?;
        }
        let mut stored = self.0.lock().unwrap();
        let keys: Vec<_> = plan.streams().iter().map(|stream| (stream.kind, stream.id.as_str().to_owned())).collect();
        let taken = |key| {
            let known: &Stored = &stored[key];
            UnitStream { aggregate: (known.copy)(known.aggregate.as_ref()), decided: Vec::new() }
        };
        let mut streams: Vec<_> = keys.iter().map(taken).collect();
        let mut fault = None;
        let answer = decide(&mut Unit::new(&mut streams, &mut fault)).map_err(Failed::Refused)?;
        assert_eq!(fault, None);
        if streams.iter().all(|stream| stream.decided.is_empty()) {
            return Ok(Done { answer, positions: Positions::default() });
        }
        for (key, stream) in keys.iter().zip(streams) {
            let known = stored.get_mut(key).unwrap();
            known.aggregate = stream.aggregate;
            known.names.extend(stream.decided.iter().map(|event| event.event_type));
        }
        let events: usize = stored.values().map(|known| known.names.len()).sum();
        let positions = Positions(BTreeMap::from([(0, i64::try_from(events).unwrap())]));
        Ok(Done { answer, positions })
    }
}

impl MemoryLog {
    /// Decides one command.
    pub(crate) async fn ask<D: Decider>(&self, id: StreamId, command: D::Command) -> Result<(), Failed<D::Refusal>>
    where
        D::Command: Clone + Sync,
    {
        let mut plan = Plan::default();
        let stream = plan.stream::<D>(id);
        self.execute(&plan, request(), |unit| unit.decide(stream, command.clone()).map(drop)).await.map(drop)
    }

    /// Names of the events of a stream.
    pub(crate) fn names<D: Decider>(&self, id: &StreamId) -> Vec<&'static str> {
        let stored = self.0.lock().unwrap();
        stored.get(&(D::KIND, id.as_str().to_owned())).map(|known| known.names.clone()).unwrap_or_default()
    }

    /// The state of a stream.
    pub(crate) fn state<D: Decider>(&self, id: &StreamId) -> D {
        let stored = self.0.lock().unwrap();
        let known = stored.get(&(D::KIND, id.as_str().to_owned()));
        known.map(|known| known.aggregate.as_any().downcast_ref::<Sourced<D>>().unwrap().0.clone()).unwrap_or_default()
    }
}

/// An envelope for a test's command.
pub(crate) fn request() -> Request {
    Metadata::new(Actor::System("test")).into()
}
