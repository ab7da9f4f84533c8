//! What an operation's decisions remember: which facts the run has recorded.

use serde::{Deserialize, Serialize};

use crate::{Decider, OperationId};

use super::{OperationCommand, OperationEvent, OperationRefusal, decide};

/// Facts one run may record: a rebuild and a switch for every projection there will ever be.
pub const FACTS_MAX_COUNT: usize = 1_024;

/// One run of an operator's tool.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Operation {
    pub(super) operation_id: Option<OperationId>,
    /// What was recorded, in order. A run writes a handful, so they are kept whole.
    pub(super) facts: Vec<OperationEvent>,
}

impl Decider for Operation {
    const KIND: &'static str = "operation";
    // 2: the facts it keeps have a rebuild's scope.
    const SNAPSHOT_VERSION: i32 = 2;

    type Command = OperationCommand;
    type Event = OperationEvent;
    type Refusal = OperationRefusal;

    fn decide(&self, command: OperationCommand) -> Result<Vec<OperationEvent>, OperationRefusal> {
        decide::decide(self, command)
    }

    fn evolve(&mut self, event: &OperationEvent) {
        self.operation_id = Some(event.run().operation_id);
        self.facts.push(event.clone());
    }

    fn weight_bytes(&self) -> usize {
        std::mem::size_of::<Self>() + self.facts.len() * 2 * std::mem::size_of::<OperationEvent>()
    }
}

impl Operation {
    /// What the run recorded so far, oldest first.
    #[must_use]
    pub fn facts(&self) -> &[OperationEvent] {
        &self.facts
    }
}
