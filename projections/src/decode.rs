//! From a stored event to what a projection needs of it, borrowing whatever can be borrowed.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use uuid::Uuid;

use calos_domain::upcast::{self, Label};
use calos_domain::{Fact, Record};

use crate::ProjectError;

/// Reads the payload of an event whose name is known: `{"<event name>": T}`.
///
/// # Errors
/// [`ProjectError::Payload`] when the payload is not an object with that one key, or `T` cannot be read from it.
pub(crate) fn payload<'a, T: Deserialize<'a>>(record: &Record<'a>) -> Result<T, ProjectError> {
    let mut json = serde_json::Deserializer::from_str(record.payload);
    let only = Only { name: record.event_type, of: PhantomData };
    let value = only.deserialize(&mut json).map_err(|error| ProjectError::Payload(error.to_string()))?;
    json.end().map_err(|error| ProjectError::Payload(error.to_string()))?;
    Ok(value)
}

/// Reads the whole domain event, for aggregates whose events are few.
///
/// # Errors
/// [`ProjectError::UnknownEvent`] for a name or version the aggregate has none of, [`ProjectError::Payload`] for a payload
/// that is not what they promise.
pub(crate) fn fact<E: Fact>(record: &Record<'_>) -> Result<E, ProjectError> {
    Ok(upcast::decode(Label::from(record), record.payload)?)
}

/// The error for a name or version nobody knows.
pub(crate) fn unknown_event(record: &Record<'_>) -> ProjectError {
    ProjectError::UnknownEvent {
        aggregate_type: record.aggregate_type.to_owned(),
        event_type: record.event_type.to_owned(),
        event_version: record.event_version.to_owned(),
    }
}

/// The UUID that is the whole stream id: a tenant's or a user's.
///
/// # Errors
/// [`ProjectError::StreamId`]
pub(crate) fn stream_uuid(record: &Record<'_>) -> Result<Uuid, ProjectError> {
    Uuid::try_parse(record.aggregate_id).map_err(|_| ProjectError::StreamId(record.aggregate_id.to_owned()))
}

/// The two halves of a stream id that stands under a key: `<uuid>/<rest>`.
///
/// # Errors
/// [`ProjectError::StreamId`]
pub(crate) fn stream_uuid_and_rest<'a>(record: &Record<'a>) -> Result<(Uuid, &'a str), ProjectError> {
    let wrong = || ProjectError::StreamId(record.aggregate_id.to_owned());
    let (key, rest) = record.aggregate_id.split_once('/').ok_or_else(wrong)?;
    Ok((Uuid::try_parse(key).map_err(|_| wrong())?, rest))
}

/// The object with one key, whose value is what matters.
struct Only<'n, T> {
    name: &'n str,
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Only<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Only<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with the one key {:?}", self.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        #[derive(Deserialize)]
        struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
        match map.next_key::<Key<'de>>()? {
            Some(Key(key)) if key == self.name => {}
            Some(Key(key)) => return Err(A::Error::custom(format_args!("the key is {key:?}, not {:?}", self.name))),
            None => return Err(A::Error::custom("the object is empty")),
        }
        let value = map.next_value()?;
        match map.next_key::<Key<'de>>()? {
            None => Ok(value),
            Some(Key(key)) => Err(A::Error::custom(format_args!("there is a second key {key:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(payload: &str) -> Record<'_> {
        Record {
            partition: 0,
            position: 1,
            aggregate_type: "wallet",
            aggregate_id: "t",
            sequence: 1,
            event_type: "hold_placed",
            event_version: "1",
            payload,
            metadata: "",
            recorded_at: calos_domain::Timestamp::default(),
        }
    }

    #[derive(Deserialize, PartialEq, Debug)]
    struct Part<'a> {
        amount: i64,
        #[serde(borrow)]
        model: Cow<'a, str>,
    }

    #[test]
    fn a_payload_is_read_in_part_and_borrowed() {
        let read: Part<'_> =
            payload(&record(r#"{"hold_placed": {"x": [1, {}], "amount": 7, "model": "gpt-4"}}"#)).unwrap();
        assert_eq!(read, Part { amount: 7, model: Cow::Borrowed("gpt-4") });
        let read: Part<'_> = payload(&record(r#"{"hold_placed":{"amount":7,"model":"a\"b"}}"#)).unwrap();
        assert_eq!(read.model, "a\"b");
    }

    #[test]
    fn a_payload_with_another_name_or_with_more_than_one_is_refused() {
        for wrong in [
            r#"{"hold_released":{"amount":7,"model":""}}"#,
            r#"{"hold_placed":{"amount":7,"model":""},"more":1}"#,
            r#"{"hold_placed":{"amount":7,"model":""}} 1"#,
            r#"{"hold_placed":{"amount":7.5,"model":""}}"#,
            r#"{"hold_placed":{"model":""}}"#,
            "{}",
            "[]",
            "",
        ] {
            let read: Result<Part<'_>, _> = payload(&record(wrong));
            assert!(matches!(read, Err(ProjectError::Payload(_))), "{wrong} was read as {read:?}");
        }
    }
}
