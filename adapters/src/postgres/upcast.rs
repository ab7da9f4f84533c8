//! Old versions of events, read as the current ones.
//!
//! Every event is still at version 1, so the list is empty. The first changed event adds its upcaster here and its old
//! golden file stays where it is.

use cqrs_es::persist::{EventUpcaster, SerializedEvent};
use serde_json::Value;

/// The upcasters, applied in order, each to the version the one before left.
pub fn upcasters() -> Vec<Box<dyn EventUpcaster>> {
    Vec::new()
}

/// A stored payload in the shape of the event's current version.
#[must_use]
pub fn upcast(event_type: &str, event_version: &str, payload: Value) -> Value {
    let upcasters = upcasters();
    if upcasters.is_empty() {
        return payload;
    }
    let event = SerializedEvent::new(
        String::new(),
        0,
        String::new(),
        event_type.to_owned(),
        event_version.to_owned(),
        payload,
        Value::Null,
    );
    upcasters
        .iter()
        .fold(event, |event, upcaster| {
            if upcaster.can_upcast(&event.event_type, &event.event_version) { upcaster.upcast(event) } else { event }
        })
        .payload
}
