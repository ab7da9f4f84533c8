//! From a stored event to the domain's own: by its name and version, old versions through their upcasters.

use calos_adapters::postgres::upcast::upcast;
use calos_domain::{Fact, Record};

/// The names and versions of an aggregate's events.
pub(crate) type Catalogue = &'static [(&'static str, &'static str)];

/// The domain event that its name and version say it is; or says why it is not.
pub(crate) fn event<E: Fact>(record: &Record<'_>, catalogue: Catalogue) -> Result<E, String> {
    let (name, version) = (record.event_type, record.event_version);
    let unreadable =
        |error: serde_json::Error| format!("the payload of {name} version {version} does not decode: {error}");
    let event: E = if catalogue.contains(&(name, version)) {
        serde_json::from_str(record.payload).map_err(unreadable)?
    } else {
        let current = upcast(name, version, serde_json::from_str(record.payload).map_err(unreadable)?);
        serde_json::from_value(current)
            .map_err(|error| format!("{name} version {version} is no event of {}: {error}", record.aggregate_type))?
    };
    if event.name() == name {
        Ok(event)
    } else {
        Err(format!("the payload holds {}, but the event is called {name}", event.name()))
    }
}
