//! Who wants to follow a command to the place where it became durable.

use std::time::Instant;

use tracing::Span;
use uuid::Uuid;

use calos_commands::log::Positions;
use calos_commands::metadata::Metadata;

/// Hears of every command that became durable. It is called by the writer, so it must be quick and never wait.
pub trait AppendObserver: Send + Sync {
    /// This command is in the log; the read models do not know yet.
    fn durable(&self, command: &Durable<'_>);
}

/// A command that became durable.
pub struct Durable<'a> {
    /// The command.
    pub followed: &'a Followed,
    /// Where its events stand.
    pub positions: &'a Positions,
    /// When its batch was begun.
    pub began: Instant,
    /// How many commands the batch had.
    pub batch_commands: usize,
}

/// What is kept of a command to know it again.
#[derive(Clone, Debug)]
pub struct Followed {
    /// The span it was decided in.
    pub span: Span,
    /// The conversation it belongs to.
    pub correlation_id: Uuid,
    /// The event that led to it.
    pub causation_id: Option<Uuid>,
}

impl Followed {
    /// The command that is being decided, when its span is recorded.
    #[must_use]
    pub fn current(metadata: &Metadata) -> Option<Box<Self>> {
        let span = Span::current();
        let Metadata { correlation_id, causation_id, .. } = *metadata;
        (!span.is_disabled()).then(|| Box::new(Self { span, correlation_id, causation_id }))
    }
}
