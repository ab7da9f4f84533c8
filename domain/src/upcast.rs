//! Stored events of every version, read as the domain's own: the one place where what was written becomes what is meant.
//!
//! Nothing in the log is ever rewritten. A changed event has a new version, and beside it in [`facts!`](crate::facts) a
//! step from the version before; every reader comes through here, so none of them knows that there were others. A version
//! nobody knows is an error that names it, never a guess.

use serde_json::{Map, Value};

use crate::account::AccountEvent;
use crate::adjustment::AdjustmentEvent;
use crate::api_key::ApiKeyEvent;
use crate::device::DeviceEvent;
use crate::email_claim::EmailClaimEvent;
use crate::ledger_access::LedgerAccessEvent;
use crate::licence::LicenceEvent;
use crate::operation::OperationEvent;
use crate::payment::{PaymentEvent, PayoutEvent};
use crate::period::PeriodEvent;
use crate::reconciliation::ReconciliationEvent;
use crate::session::SessionEvent;
use crate::tenant::TenantEvent;
use crate::wallet::WalletEvent;
use crate::{Fact, Record};

/// What a stored payload holds under the event's name.
pub type Body = Map<String, Value>;

/// One step: from one version of an event to the one after it.
#[derive(Clone, Copy, Debug)]
pub struct Upcast {
    /// The stored event name.
    pub event_type: &'static str,
    /// The version it begins at.
    pub from: &'static str,
    /// The version it leads to.
    pub to: &'static str,
    /// Changes the body; or says, in words, what of the older version is not there.
    pub raise: fn(&mut Body) -> Result<(), String>,
}

/// What an event says it is, in its envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label<'a> {
    /// The aggregate's stored type.
    pub aggregate_type: &'a str,
    /// The stored event name.
    pub event_type: &'a str,
    /// The stored version.
    pub event_version: &'a str,
}

impl<'a> From<&Record<'a>> for Label<'a> {
    fn from(record: &Record<'a>) -> Self {
        let Record { aggregate_type, event_type, event_version, .. } = *record;
        Self { aggregate_type, event_type, event_version }
    }
}

/// Why a stored event is none of the domain's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// The aggregate has no event of that name and version.
    #[error("the event {event_type:?} version {event_version:?} of {aggregate_type} is unknown")]
    Unknown {
        /// The aggregate's stored type.
        aggregate_type: String,
        /// The event's stored name.
        event_type: String,
        /// The event's stored version.
        event_version: String,
    },
    /// The payload is not what name and version promise.
    #[error("the payload of {event_type} version {event_version} does not decode: {why}")]
    Payload {
        /// The event's stored name.
        event_type: String,
        /// The event's stored version.
        event_version: String,
        /// What is wrong with it.
        why: String,
    },
    /// The payload is an event, but another than the envelope says.
    #[error("the payload holds {holds}, but the event is called {event_type}")]
    Misnamed {
        /// The event's stored name.
        event_type: String,
        /// The name in the payload.
        holds: &'static str,
    },
}

impl DecodeError {
    fn unknown(label: Label<'_>) -> Self {
        Self::Unknown {
            aggregate_type: label.aggregate_type.to_owned(),
            event_type: label.event_type.to_owned(),
            event_version: label.event_version.to_owned(),
        }
    }

    fn payload(label: Label<'_>, why: &impl ToString) -> Self {
        Self::Payload {
            event_type: label.event_type.to_owned(),
            event_version: label.event_version.to_owned(),
            why: why.to_string(),
        }
    }
}

/// The event a stored payload is, whichever version it was written in.
///
/// # Errors
/// [`DecodeError`]
pub fn decode<E: Fact>(label: Label<'_>, payload: &str) -> Result<E, DecodeError> {
    if !is_current::<E>(label) {
        let payload = serde_json::from_str(payload).map_err(|error| DecodeError::payload(label, &error))?;
        return decode_value(label, payload);
    }
    let event = serde_json::from_str(payload).map_err(|error| DecodeError::payload(label, &error))?;
    rightly_named(label, event)
}

/// As [`decode`], of a payload that was parsed already.
///
/// # Errors
/// [`DecodeError`]
pub fn decode_value<E: Fact>(label: Label<'_>, payload: Value) -> Result<E, DecodeError> {
    let payload = if is_current::<E>(label) {
        payload
    } else {
        let (version, raised) = climb(E::UPCASTS, label, payload)?;
        if !is_current::<E>(Label { event_version: version, ..label }) {
            return Err(DecodeError::unknown(label));
        }
        raised
    };
    let event = serde_json::from_value(payload).map_err(|error| DecodeError::payload(label, &error))?;
    rightly_named(label, event)
}

/// An event that was written in an older version, as it would be written today.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Raised {
    version: &'static str,
    payload: String,
}

impl Raised {
    /// The record with today's version and payload; all else is as stored.
    #[must_use]
    pub fn record<'a>(&'a self, stored: &Record<'a>) -> Record<'a> {
        Record { event_version: self.version, payload: &self.payload, ..*stored }
    }
}

/// Raises a record that was written in an older version; none when there is nothing to raise, which is decided by looking at
/// its aggregate, name and version alone.
///
/// For readers of parts, who do not decode whole events.
///
/// # Errors
/// [`DecodeError::Payload`]
pub fn raised(record: &Record<'_>) -> Result<Option<Raised>, DecodeError> {
    let (steps, label) = (steps(record.aggregate_type), Label::from(record));
    if !steps.iter().any(|step| step.begins_at(label.event_type, label.event_version)) {
        return Ok(None);
    }
    let payload = serde_json::from_str(record.payload).map_err(|error| DecodeError::payload(label, &error))?;
    let (version, payload) = climb(steps, label, payload)?;
    let version = steps.iter().map(|step| step.to).find(|to| *to == version);
    Ok(version.map(|version| Raised { version, payload: payload.to_string() }))
}

/// The steps of an aggregate's events, each event's in the order of its versions; nothing for one that is not known.
#[must_use]
pub fn steps(aggregate_type: &str) -> &'static [Upcast] {
    match aggregate_type {
        // Nearly all of the log is about wallets, and who folds it asks for every event.
        "wallet" => WalletEvent::UPCASTS,
        "licence" => LicenceEvent::UPCASTS,
        "tenant" => TenantEvent::UPCASTS,
        "api_key" => ApiKeyEvent::UPCASTS,
        "account" => AccountEvent::UPCASTS,
        "session" => SessionEvent::UPCASTS,
        "device" => DeviceEvent::UPCASTS,
        "email_claim" => EmailClaimEvent::UPCASTS,
        "operation" => OperationEvent::UPCASTS,
        "payment" => PaymentEvent::UPCASTS,
        "payout" => PayoutEvent::UPCASTS,
        "adjustment" => AdjustmentEvent::UPCASTS,
        "period" => PeriodEvent::UPCASTS,
        "reconciliation" => ReconciliationEvent::UPCASTS,
        "ledger_access" => LedgerAccessEvent::UPCASTS,
        _ => &[],
    }
}

impl Upcast {
    /// Whether it takes an event of that name from that version on.
    #[must_use]
    pub fn begins_at(&self, event_type: &str, event_version: &str) -> bool {
        self.from == event_version && self.event_type == event_type
    }

    /// A payload of the version it begins at, as the version it leads to.
    ///
    /// # Errors
    /// In words, what of the older version is not there.
    pub fn apply(&self, mut payload: Value) -> Result<Value, String> {
        let body = payload.as_object_mut().filter(|outer| outer.len() == 1);
        let body = body.and_then(|outer| outer.get_mut(self.event_type)).and_then(Value::as_object_mut);
        let body = body.ok_or_else(|| format!("it is no object with the one key {:?}", self.event_type))?;
        (self.raise)(body)?;
        Ok(payload)
    }
}

fn is_current<E: Fact>(label: Label<'_>) -> bool {
    E::CATALOGUE.contains(&(label.event_type, label.event_version))
}

fn rightly_named<E: Fact>(label: Label<'_>, event: E) -> Result<E, DecodeError> {
    let holds = event.name();
    if holds == label.event_type {
        Ok(event)
    } else {
        Err(DecodeError::Misnamed { event_type: label.event_type.to_owned(), holds })
    }
}

/// Takes every step that begins where the one before led to, and says where that ends.
fn climb<'a>(steps: &[Upcast], label: Label<'a>, payload: Value) -> Result<(&'a str, Value), DecodeError> {
    let (mut version, mut raised) = (label.event_version, payload);
    for step in steps {
        if step.begins_at(label.event_type, version) {
            raised = step.apply(raised).map_err(|why| DecodeError::payload(label, &why))?;
            version = step.to;
        }
    }
    Ok((version, raised))
}

/// A body's text of that name, taken out.
///
/// # Errors
/// There is none, or it is no text.
pub(crate) fn take_text(body: &mut Body, name: &str) -> Result<String, String> {
    match body.remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("{name} is no text")),
        None => Err(format!("{name} is missing")),
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::Timestamp;

    /// Where something was: first a text, then a list of one text, then any number of texts with a count beside it.
    #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum TripEvent {
        Travelled(Travelled),
        Rested(Rested),
    }

    #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
    struct Travelled {
        places: Vec<String>,
        count: usize,
    }

    #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
    struct Rested {}

    crate::facts!(TripEvent {
        Travelled => "travelled" v "3" after ["1" to "2": listed, "2" to "3": counted],
        Rested => "rested" v "1",
    });

    fn listed(body: &mut Body) -> Result<(), String> {
        let place = take_text(body, "place")?;
        body.insert("places".to_owned(), Value::Array(vec![Value::String(place)]));
        Ok(())
    }

    fn counted(body: &mut Body) -> Result<(), String> {
        let places = body.get("places").and_then(Value::as_array).ok_or("places is no list")?;
        let count = places.len();
        body.insert("count".to_owned(), count.into());
        Ok(())
    }

    const fn label(event_type: &'static str, event_version: &'static str) -> Label<'static> {
        Label { aggregate_type: "trip", event_type, event_version }
    }

    fn read(event_type: &'static str, version: &'static str, payload: &str) -> Result<TripEvent, DecodeError> {
        let read = decode(label(event_type, version), payload);
        if let Ok(value) = serde_json::from_str(payload) {
            let parsed = decode_value(label(event_type, version), value);
            // A text has lines and columns to name; what was parsed already has none.
            match (&parsed, &read) {
                (Err(DecodeError::Payload { .. }), Err(DecodeError::Payload { .. })) => {}
                (one, other) => assert_eq!(one, other),
            }
        }
        read
    }

    #[test]
    fn every_version_is_read_as_the_last_one_step_after_step() {
        let travelled = |places: &[&str], count| {
            TripEvent::Travelled(Travelled { places: places.iter().map(|place| (*place).to_owned()).collect(), count })
        };
        assert_eq!(read("travelled", "1", r#"{"travelled":{"place":"Rome"}}"#), Ok(travelled(&["Rome"], 1)));
        assert_eq!(
            read("travelled", "2", r#"{"travelled":{"places":["Rome","Pisa"]}}"#),
            Ok(travelled(&["Rome", "Pisa"], 2))
        );
        // What was counted already is not counted anew.
        assert_eq!(
            read("travelled", "3", r#"{"travelled":{"places":["Rome"],"count":7}}"#),
            Ok(travelled(&["Rome"], 7))
        );
        assert_eq!(read("rested", "1", r#"{"rested":{}}"#), Ok(TripEvent::Rested(Rested {})));
    }

    #[test]
    fn a_version_nobody_knows_is_an_error_that_names_it_and_never_read_as_another() {
        let (current, rested) = (r#"{"travelled":{"places":[],"count":0}}"#, r#"{"rested":{}}"#);
        for (event_type, version, payload) in [
            ("travelled", "0", r#"{"travelled":{"place":"Rome"}}"#),
            ("travelled", "4", current),
            ("travelled", "", current),
            ("rested", "2", rested),
            ("slept", "1", rested),
        ] {
            let unknown = DecodeError::unknown(label(event_type, version));
            assert!(unknown.to_string().contains(&format!("{event_type:?} version {version:?} of trip")));
            assert_eq!(read(event_type, version, payload), Err(unknown));
        }
    }

    #[test]
    fn a_payload_that_is_not_what_its_version_promises_says_which_version_that_was() {
        for (version, payload) in [
            ("1", r#"{"travelled":{"places":["Rome"],"count":1}}"#),
            ("1", r#"{"travelled":{"place":7}}"#),
            ("1", r#"{"travelled":[]}"#),
            ("1", r#"{"travelled":{"place":"Rome"},"more":1}"#),
            ("1", r#"{"rested":{}}"#),
            ("1", "[]"),
            ("1", "{"),
            ("2", r#"{"travelled":{"place":"Rome"}}"#),
            ("3", r#"{"travelled":{"places":["Rome"]}}"#),
        ] {
            let refused = read("travelled", version, payload).unwrap_err();
            assert!(matches!(refused, DecodeError::Payload { .. }), "{payload}: {refused}");
            assert!(refused.to_string().contains(&format!("travelled version {version}")), "{refused}");
        }
        let misnamed = read("rested", "1", r#"{"travelled":{"places":[],"count":0}}"#);
        assert_eq!(misnamed, Err(DecodeError::Misnamed { event_type: "rested".to_owned(), holds: "travelled" }));
    }

    #[test]
    fn a_record_is_raised_only_when_there_is_a_step_for_it_and_keeps_its_place() {
        let record = |aggregate_type, event_version, payload| Record {
            partition: 3,
            position: 17,
            aggregate_type,
            aggregate_id: "run",
            sequence: 1,
            event_type: "rebuild_started",
            event_version,
            payload,
            metadata: "{}",
            recorded_at: Timestamp::from_micros(5),
        };
        let written = r#"{"rebuild_started":{"projection":"all"}}"#;
        for (aggregate_type, version) in [("wallet", "1"), ("operation", "2"), ("operation", "9"), ("stranger", "1")] {
            assert_eq!(raised(&record(aggregate_type, version, written)), Ok(None));
        }
        let stored = record("operation", "1", written);
        let raised_record = raised(&stored).unwrap().unwrap();
        let read = raised_record.record(&stored);
        assert_eq!((read.event_version, read.payload), ("2", r#"{"rebuild_started":{"scope":"every"}}"#));
        assert_eq!((read.partition, read.position, read.recorded_at), (3, 17, Timestamp::from_micros(5)));
        let refused = raised(&record("operation", "1", r#"{"rebuild_started":{}}"#)).unwrap_err();
        assert!(refused.to_string().contains("rebuild_started version 1"), "{refused}");
    }
}
