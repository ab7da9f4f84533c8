//! What decisions about a reconciliation remember.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Decider, Timestamp, UserId};

use super::{
    Exception, ReconciliationCommand, ReconciliationEvent, ReconciliationRefusal, ReconciliationRun, Resolution, decide,
};

/// One run, folded from its events.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Reconciliation {
    pub(super) run: Option<ReconciliationRun>,
    pub(super) exceptions: BTreeMap<u32, ExceptionState>,
}

/// How far an exception is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct ExceptionState {
    /// Who is to find out about it.
    pub owner: Option<UserId>,
    /// What became of it, and when.
    pub resolved: Option<(Resolution, Timestamp)>,
}

impl Decider for Reconciliation {
    const KIND: &'static str = "reconciliation";
    const SNAPSHOT_VERSION: i32 = 1;

    type Command = ReconciliationCommand;
    type Event = ReconciliationEvent;
    type Refusal = ReconciliationRefusal;

    fn decide(&self, command: ReconciliationCommand) -> Result<Vec<ReconciliationEvent>, ReconciliationRefusal> {
        decide::decide(self, command)
    }

    fn evolve(&mut self, event: &ReconciliationEvent) {
        match event {
            ReconciliationEvent::ReconciliationRun(run) => {
                self.exceptions =
                    run.exceptions.iter().map(|found| (found.number, ExceptionState::default())).collect();
                self.run = Some(run.clone());
            }
            ReconciliationEvent::ExceptionAssigned(assigned) => {
                self.exceptions.entry(assigned.number).or_default().owner = Some(assigned.owner);
            }
            ReconciliationEvent::ExceptionResolved(resolved) => {
                self.exceptions.entry(resolved.number).or_default().resolved = Some((resolved.resolution, resolved.at));
            }
        }
    }

    fn weight_bytes(&self) -> usize {
        const EXCEPTION_BYTES: usize = std::mem::size_of::<Exception>() + std::mem::size_of::<ExceptionState>() + 64;
        std::mem::size_of::<Self>() + self.exceptions.len() * EXCEPTION_BYTES
    }
}

impl Reconciliation {
    /// What was found; none where nothing was compared.
    #[must_use]
    pub const fn run(&self) -> Option<&ReconciliationRun> {
        self.run.as_ref()
    }

    /// How far each exception is, by its number.
    #[must_use]
    pub const fn exceptions(&self) -> &BTreeMap<u32, ExceptionState> {
        &self.exceptions
    }
}
