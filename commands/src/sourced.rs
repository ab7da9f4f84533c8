//! The bridge between pure deciders and `cqrs-es`.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};

use calos_domain::{Decider, Fact};

/// A domain event as `cqrs-es` carries it; transparent, so the stored payload is the domain's own JSON.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Recorded<E>(pub E);

impl<E: Fact> DomainEvent for Recorded<E> {
    fn event_type(&self) -> String {
        self.0.name().to_owned()
    }

    fn event_version(&self) -> String {
        self.0.version().to_owned()
    }
}

/// Any decider as a `cqrs-es` aggregate. `Services = ()`, so no I/O can enter a decision.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
#[serde(bound = "", transparent)]
pub struct Sourced<D: Decider>(pub D);

impl<D: Decider> Aggregate for Sourced<D> {
    const TYPE: &'static str = D::KIND;
    type Command = D::Command;
    type Event = Recorded<D::Event>;
    type Error = D::Refusal;
    type Services = ();

    async fn handle(&mut self, command: D::Command, _: &(), sink: &EventSink<Self>) -> Result<(), D::Refusal> {
        // Decided whole before anything is applied: a refusal leaves the state as it was.
        for event in self.0.decide(command)? {
            sink.write(Recorded(event), self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: Recorded<D::Event>) {
        self.0.evolve(&event.0);
    }
}
