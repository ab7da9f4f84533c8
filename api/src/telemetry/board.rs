//! Which trace the events of the last minute belong to.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{Span as _, SpanContext, SpanKind, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use uuid::Uuid;

use calos_adapters::postgres::observed::{AppendObserver, Durable, Followed};
use calos_projections::observed::{RoundObserver, Taken};

/// Commands that are remembered, at the most; those before the last ones are told without the read models' part.
const NOTED_MAX: usize = 8_192;

/// How long a command is remembered.
const NOTED_MAX_AGE: Duration = Duration::from_secs(60);

/// A command's place in its trace.
struct Noted {
    append: SpanContext,
    correlation_id: Uuid,
    causation_id: Option<Uuid>,
    at: Instant,
}

#[derive(Default)]
struct Notes {
    /// By partition and the last position of the command there.
    noted: BTreeMap<(i32, i64), Arc<Noted>>,
    /// The same places, the oldest first.
    places: VecDeque<(i32, i64)>,
    /// How far each read model was told, by partition.
    told: HashMap<(&'static str, i32), i64>,
}

impl Notes {
    /// Remembers a command, and forgets those for it that are too old or too many: the writer waits meanwhile, so none is
    /// looked at that stays.
    fn note(&mut self, place: (i32, i64), noted: Arc<Noted>) {
        if self.noted.insert(place, noted).is_none() {
            self.places.push_back(place);
        }
        while let Some(&oldest) = self.places.front() {
            let is_young = self.noted.get(&oldest).is_some_and(|noted| noted.at.elapsed() < NOTED_MAX_AGE);
            if is_young && self.places.len() <= NOTED_MAX {
                return;
            }
            self.noted.remove(&oldest);
            self.places.pop_front();
        }
    }

    /// Those a read model has taken since it was last asked.
    fn taken(&mut self, projection: &'static str, partition: i32, through: i64) -> Vec<(i64, Arc<Noted>)> {
        let after = self.told.insert((projection, partition), through).unwrap_or(0);
        if after >= through {
            return Vec::new();
        }
        let places = self.noted.range((partition, after + 1)..=(partition, through));
        places.map(|((_, position), noted)| (*position, Arc::clone(noted))).collect()
    }
}

/// Tells the part of a trace that happens behind the request.
pub struct Board {
    tracer: SdkTracer,
    notes: Mutex<Notes>,
}

impl Board {
    pub(super) fn new(tracer: SdkTracer) -> Self {
        Self { tracer, notes: Mutex::default() }
    }

    /// Tells a span that is over, and answers its place in the trace.
    fn tell(
        &self,
        name: String,
        kind: SpanKind,
        parent: SpanContext,
        began: SystemTime,
        attributes: Vec<KeyValue>,
    ) -> SpanContext {
        let builder = self.tracer.span_builder(name).with_kind(kind).with_start_time(began).with_attributes(attributes);
        let parent = Context::new().with_remote_span_context(parent);
        let mut span = self.tracer.build_with_context(builder, &parent);
        span.end();
        span.span_context().clone()
    }
}

fn attributes(correlation_id: Uuid, causation_id: Option<Uuid>) -> Vec<KeyValue> {
    let correlation = KeyValue::new("calos.correlation_id", correlation_id.to_string());
    let causation = causation_id.map(|id| KeyValue::new("calos.causation_id", id.to_string()));
    std::iter::once(correlation).chain(causation).collect()
}

impl AppendObserver for Board {
    fn durable(&self, command: &Durable<'_>) {
        let Followed { span, correlation_id, causation_id } = command.followed;
        let parent = span.context().span().span_context().clone();
        if !parent.is_sampled() {
            return;
        }
        let began = SystemTime::now() - command.began.elapsed();
        let mut told = attributes(*correlation_id, *causation_id);
        let positions: Vec<String> = command.positions.0.iter().map(|(at, to)| format!("{at}:{to}")).collect();
        told.push(KeyValue::new("calos.positions", positions.join(",")));
        told.push(KeyValue::new("calos.batch_commands", i64::try_from(command.batch_commands).unwrap_or(i64::MAX)));
        let append = self.tell("append".to_owned(), SpanKind::Client, parent, began, told);
        let (correlation_id, causation_id, at) = (*correlation_id, *causation_id, Instant::now());
        let noted = Arc::new(Noted { append, correlation_id, causation_id, at });
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, position) in &command.positions.0 {
            notes.note((*partition, *position), Arc::clone(&noted));
        }
    }
}

impl RoundObserver for Board {
    fn taken(&self, taken: &Taken) {
        let Taken { projection, partition, through, began } = *taken;
        let noted = {
            let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            notes.taken(projection, partition, through)
        };
        for (position, noted) in noted {
            let mut told = attributes(noted.correlation_id, noted.causation_id);
            told.push(KeyValue::new("calos.projection", projection));
            told.push(KeyValue::new("calos.position", format!("{partition}:{position}")));
            let name = format!("projection {projection}");
            self.tell(name, SpanKind::Consumer, noted.append.clone(), began, told);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted() -> Arc<Noted> {
        let append = SpanContext::empty_context();
        Arc::new(Noted { append, correlation_id: Uuid::nil(), causation_id: None, at: Instant::now() })
    }

    #[test]
    fn each_read_model_is_told_once_of_each_command_it_took() {
        let mut notes = Notes::default();
        for position in [3, 5, 9] {
            notes.note((0, position), noted());
        }
        notes.note((1, 4), noted());
        let mut told = |projection, through| -> Vec<i64> {
            notes.taken(projection, 0, through).into_iter().map(|(position, _)| position).collect()
        };
        assert_eq!(told("usage_log", 4), [3]);
        assert_eq!(told("usage_log", 9), [5, 9]);
        assert_eq!(told("usage_log", 9), [0; 0]);
        assert_eq!(told("wallet_balance", 5), [3, 5]);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_newest_of_it() {
        let mut notes = Notes::default();
        let most = i64::try_from(NOTED_MAX).unwrap();
        for position in 0..2 * most {
            notes.note((0, position), noted());
        }
        assert_eq!((notes.noted.len(), notes.places.len()), (NOTED_MAX, NOTED_MAX));
        let ends = (notes.noted.first_key_value(), notes.noted.last_key_value());
        assert_eq!((ends.0.unwrap().0.1, ends.1.unwrap().0.1), (most, 2 * most - 1));
    }
}
