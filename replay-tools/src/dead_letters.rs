//! `dead-letters`: what projections set aside, and taking it up again.

use serde::Serialize;
use sqlx::PgPool;

use calos_projections::dead_letters::{DeadLetter, list, retry_dead_letters};

use crate::error::ToolError;
use crate::fold::ReadModel;
use crate::time_text::show;
use crate::write_guard::Confirmed;

/// Dead letters listed per projection.
pub const DEAD_LETTERS_LISTED_EVENTS: u32 = 1_000;

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

/// What is set aside, by projection and position.
///
/// # Errors
/// The database's.
pub async fn dead_letters(pool: &PgPool, models: &[ReadModel]) -> Result<Vec<SetAside>, ToolError> {
    let mut all = Vec::new();
    for model in models {
        let letters = list(pool, model.name(), DEAD_LETTERS_LISTED_EVENTS).await?;
        let shown = |letter: DeadLetter| SetAside {
            projection: model.name(),
            partition: letter.partition,
            position: letter.position,
            stream: format!("{}/{}", letter.aggregate_type, letter.aggregate_id),
            parked: letter.parked,
            error: letter.error,
            created_at: letter.created_at.map(show),
        };
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

/// Takes up what one projection set aside, stream by stream and in order.
///
/// # Errors
/// The database's; what was resumed before stays resumed.
pub async fn retry(pool: &PgPool, model: ReadModel, _confirmed: &Confirmed) -> Result<RetryReport, ToolError> {
    let retried = retry_dead_letters(pool, model).await?;
    let (resumed, streams_failing) = (retried.resumed, retried.streams_failing);
    Ok(RetryReport { projection: model.name(), resumed, streams_failing })
}
