//! `dead-letters`: what projections set aside, taking it up again, and leaving an event out.

use serde::Serialize;
use sqlx::PgPool;

use calos_commands::log::EventLog;
use calos_domain::operation::{DeadLetterSkipped, DeadLettersRetried, OperationCommand, RunBy};
use calos_projections::dead_letters::{DeadLetter, behind, find, list, retry_dead_letters, skip_dead_letter};

use crate::error::ToolError;
use crate::events::{EventLine, event_at};
use crate::fold::ReadModel;
use crate::operation::{now, record};
use crate::place::Place;
use crate::time_text::show;
use crate::turn::{Deed, Reach, Turn};
use crate::write_guard::Confirmed;

/// Dead letters listed per projection.
pub const DEAD_LETTERS_LISTED_EVENTS: u32 = 1_000;

/// Positions listed of those that wait behind a dead letter; all are counted.
pub const PARKED_LISTED_POSITIONS: u32 = 100;

/// One event a projection set aside.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SetAside {
    /// The projection.
    pub projection: &'static str,
    /// The partition.
    pub partition: i32,
    /// The position.
    pub position: i64,
    /// `<aggregate type>/<id>`
    pub stream: String,
    /// Whether it only waits behind another one of its stream.
    pub parked: bool,
    /// What was wrong, or what it waits for.
    pub error: String,
    /// When it was set aside.
    pub created_at: Option<String>,
}

impl SetAside {
    fn of(model: ReadModel, letter: DeadLetter) -> Self {
        Self {
            projection: model.name(),
            partition: letter.partition,
            position: letter.position,
            stream: format!("{}/{}", letter.aggregate_type, letter.aggregate_id),
            parked: letter.parked,
            error: letter.error,
            created_at: letter.created_at.map(show),
        }
    }
}

/// One dead letter, with everything an operator decides by.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// The letter.
    #[serde(flatten)]
    pub letter: SetAside,
    /// The live version it is set aside for.
    pub version: i32,
    /// The event.
    pub event: EventLine,
    /// Where the later events of its stream wait, at most [`PARKED_LISTED_POSITIONS`] of them.
    pub parked_positions: Vec<i64>,
    /// How many wait.
    pub parked_events: i64,
}

/// One event that a projection set aside, why, and what waits behind it.
///
/// # Errors
/// [`ToolError::Refused`] when it is not set aside; the database's.
pub async fn show_letter(pool: &PgPool, model: ReadModel, place: Place) -> Result<Shown, ToolError> {
    let (version, letter) = found(pool, model, place).await?;
    let event = event_at(pool, place).await?;
    let event = event.ok_or_else(|| ToolError::Corrupt(format!("{place} is set aside and not in the log")))?;
    let (parked_positions, parked_events) =
        behind(pool, model.name(), version, &letter, PARKED_LISTED_POSITIONS).await?;
    Ok(Shown { letter: SetAside::of(model, letter), version, event, parked_positions, parked_events })
}

async fn found(pool: &PgPool, model: ReadModel, place: Place) -> Result<(i32, DeadLetter), ToolError> {
    let letter = find(pool, model.name(), place.partition, place.position).await?;
    letter.ok_or_else(|| ToolError::Refused(format!("{} has nothing set aside at {place}", model.name())))
}

/// What is set aside, by projection and position.
///
/// # Errors
/// The database's.
pub async fn dead_letters(pool: &PgPool, models: &[ReadModel]) -> Result<Vec<SetAside>, ToolError> {
    let mut all = Vec::new();
    for model in models {
        let letters = list(pool, model.name(), DEAD_LETTERS_LISTED_EVENTS).await?;
        let shown = |letter| SetAside::of(*model, letter);
        all.extend(letters.into_iter().map(shown));
    }
    Ok(all)
}

/// What a retry achieved for one projection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryReport {
    /// The projection.
    pub projection: &'static str,
    /// Events taken after all.
    pub resumed: u64,
    /// Streams that failed again.
    pub streams_failing: u64,
}

/// Takes up what one projection set aside, stream by stream and in order, and records what came of it.
///
/// # Errors
/// [`ToolError::Busy`] while somebody else works on the projection; the database's, or that it could not be recorded.
/// What was resumed stays resumed.
pub async fn retry<L: EventLog>(
    pool: &PgPool,
    log: &L,
    model: ReadModel,
    run: &RunBy,
    _confirmed: &Confirmed,
) -> Result<RetryReport, ToolError> {
    let turn = Turn::take(pool, Deed::Retry, run, Reach::Models(&[model])).await?;
    let retried = retry_dead_letters(pool, model).await?;
    let (projection, resumed, streams_failing) = (model.name(), retried.resumed, retried.streams_failing);
    if resumed + streams_failing > 0 {
        let fact = DeadLettersRetried {
            run: run.clone(),
            projection: projection.to_owned(),
            resumed,
            streams_failing,
            retried_at: now(),
        };
        record(log, run, OperationCommand::RecordDeadLettersRetried(fact)).await?;
    }
    turn.end().await?;
    Ok(RetryReport { projection, resumed, streams_failing })
}

/// What leaving an event out led to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SkipReport {
    /// What was left out.
    pub skipped: SetAside,
    /// Events that had waited behind it and were taken.
    pub resumed: u64,
    /// Whether its stream failed again, at a later event.
    pub stream_failing: bool,
}

/// Leaves one event out of a projection, which is recorded before it happens, and takes up what waited behind it.
///
/// The event stays in the log. A version that is built later takes it if it can, and leaves it out if it cannot.
///
/// # Errors
/// [`ToolError::Refused`] for what is not set aside or only waits behind another one; [`ToolError::Busy`] while somebody
/// else works on the projection; the database's, or that it could not be recorded: then nothing was left out.
pub async fn skip<L: EventLog>(
    pool: &PgPool,
    log: &L,
    model: ReadModel,
    place: Place,
    run: &RunBy,
    _confirmed: &Confirmed,
) -> Result<SkipReport, ToolError> {
    let turn = Turn::take(pool, Deed::Skip, run, Reach::Models(&[model])).await?;
    let (version, letter) = found(pool, model, place).await?;
    let name = model.name();
    if letter.parked {
        let why = format!("{place} is not what {name} fails at: it {}; skip that one", letter.error);
        return Err(ToolError::Refused(why));
    }
    let fact = DeadLetterSkipped {
        run: run.clone(),
        projection: name.to_owned(),
        version,
        partition: place.partition,
        position: place.position,
        skipped_at: now(),
    };
    record(log, run, OperationCommand::RecordDeadLetterSkipped(fact)).await?;
    let taken_up = skip_dead_letter(pool, model, place.partition, place.position).await?;
    let taken_up = taken_up.ok_or_else(|| {
        ToolError::Refused(format!("{place} was taken up by somebody else meanwhile; {name} lacks nothing there"))
    })?;
    turn.end().await?;
    let (resumed, stream_failing) = (taken_up.resumed, taken_up.streams_failing > 0);
    Ok(SkipReport { skipped: SetAside::of(model, letter), resumed, stream_failing })
}
