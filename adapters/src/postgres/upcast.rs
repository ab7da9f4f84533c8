//! Old versions of events for whatever is built on `cqrs-es`. The steps themselves are the domain's.

use cqrs_es::persist::{EventUpcaster, SerializedEvent};

use calos_domain::Fact;
use calos_domain::upcast::{Label, Upcast};

/// The steps of an aggregate's events, in the order of their versions.
#[must_use]
pub fn upcasters<E: Fact>() -> Vec<Box<dyn EventUpcaster>> {
    E::UPCASTS.iter().map(|step| Box::new(Step(*step)) as Box<dyn EventUpcaster>).collect()
}

/// What a stored event says it is.
#[must_use]
pub fn label(event: &SerializedEvent) -> Label<'_> {
    let SerializedEvent { aggregate_type, event_type, event_version, .. } = event;
    Label { aggregate_type, event_type, event_version }
}

struct Step(Upcast);

impl EventUpcaster for Step {
    fn can_upcast(&self, event_type: &str, event_version: &str) -> bool {
        self.0.begins_at(event_type, event_version)
    }

    /// One that is not what its version promises stays in it: the framework has no way to say so here, and whoever decodes
    /// the event then finds a version it does not know.
    fn upcast(&self, mut event: SerializedEvent) -> SerializedEvent {
        if let Ok(payload) = self.0.apply(event.payload.clone()) {
            event.payload = payload;
            self.0.to.clone_into(&mut event.event_version);
        }
        event
    }
}
