//! What every read model is: a pure function from an event to row changes, and two ways to write the changes down.

use std::future::Future;

use sqlx::PgConnection;

use calos_domain::Record;
use calos_domain::upcast::DecodeError;

use crate::copy_in::{CopyError, CopySink};
use crate::table::{Growth, Schema, TableSpec};

/// A read model.
///
/// Everything a row says comes from the events of streams in one partition, so partitions can be folded in parallel.
pub trait Projection: Send + Sync + 'static {
    /// The projection's name, and its first table's in the schema `read`. Never renamed once stored.
    const NAME: &'static str;

    /// Whether its rows are one per event or one per key.
    const GROWTH: Growth;

    /// How soon after an event its rows are wanted.
    const PACE: Pace = Pace::Live;

    /// Net changes of the rows, folded in memory.
    ///
    /// Folding a batch and storing it is the same as storing its two halves one after the other, wherever it is cut.
    type Changes: Default + Send + 'static;

    /// Its tables, the one named like the projection first.
    fn tables() -> &'static [TableSpec];

    /// Folds one event in. Pure: no clock, no I/O, nothing remembered but `changes`.
    ///
    /// Events of one partition arrive in the order of their positions, each once. Their metadata is not read for
    /// projections: [`Record::metadata`] is empty here. An event that was written in an older version arrives as today's.
    ///
    /// # Errors
    /// The event cannot be read, or its figures leave the range of the row. `changes` are then as they were before.
    fn project(changes: &mut Self::Changes, record: &Record<'_>) -> Result<(), ProjectError>;

    /// Writes the changes into rows that may exist already, in the caller's transaction.
    fn store(
        changes: Self::Changes,
        schema: Schema,
        connection: &mut PgConnection,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Writes the changes as binary rows for `COPY` into tables that hold no row of theirs yet, in the order of
    /// [`TableSpec::columns`]. Where rows grow per key, `changes` are the fold of whole streams from their start.
    ///
    /// # Errors
    /// A value has no binary form.
    fn copy(changes: Self::Changes, sink: &mut CopySink) -> Result<(), CopyError>;
}

/// How soon after an event a read model's rows are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// As soon as may be.
    Live,
    /// A moment later, together with what else has happened by then: net changes of many events cost less than those of
    /// few, where most rows are sums.
    Relaxed,
}

/// Why an event cannot be taken by a projection.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProjectError {
    /// The aggregate type is not one this binary knows.
    #[error("the aggregate type {0:?} is unknown")]
    UnknownAggregate(String),
    /// The aggregate is known, the event's name or version is not.
    #[error("the event {event_type:?} version {event_version:?} of {aggregate_type} is unknown")]
    UnknownEvent {
        /// The aggregate's stored type.
        aggregate_type: String,
        /// The event's stored name.
        event_type: String,
        /// The event's stored version.
        event_version: String,
    },
    /// The stream id does not have the shape of its aggregate.
    #[error("the stream id {0:?} does not fit its aggregate")]
    StreamId(String),
    /// The payload is not what the event's name and version promise.
    #[error("the payload cannot be read: {0}")]
    Payload(String),
    /// A figure would leave the range of a 64-bit integer.
    #[error("{figure} would leave the range of a 64-bit integer")]
    OutOfRange {
        /// Which figure.
        figure: &'static str,
    },
    /// What the event means for the book is no entry that may stand in it.
    #[error("the book refuses it: {0}")]
    Book(String),
}

impl From<DecodeError> for ProjectError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Unknown { aggregate_type, event_type, event_version } => {
                Self::UnknownEvent { aggregate_type, event_type, event_version }
            }
            DecodeError::Payload { .. } | DecodeError::Misnamed { .. } => Self::Payload(error.to_string()),
        }
    }
}
