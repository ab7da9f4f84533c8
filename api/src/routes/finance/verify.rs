//! The seal: is the log still what was written?

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use calos_replay::verify::Check;

use super::bare::BarePost;
use crate::auth::{FinanceOperator, FinanceReader};
use crate::error::{ApiError, Code};
use crate::moment::rfc3339;
use crate::openapi::ErrorBody;
use crate::seal_check::{Ended, Underway};
use crate::wiring::App;

/// The seal checks of this server since its start.
#[derive(Serialize, ToSchema)]
pub struct SealAnswer {
    /// The one that is running; null when none is.
    running: Option<RunningCheck>,
    /// The last one that ended; null when there was none.
    last: Option<EndedCheck>,
}

/// A seal check that is running.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunningCheck {
    /// Who began it.
    by: Uuid,
    /// When, RFC 3339.
    started_at: String,
    /// Events checked so far.
    events: u64,
    /// Events to check; null while that is being counted.
    of_events: Option<u64>,
}

/// A seal check that ended.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndedCheck {
    /// Who began it.
    by: Uuid,
    /// When, RFC 3339.
    started_at: String,
    /// When it ended, RFC 3339.
    ended_at: String,
    /// Whether everything is as it has to be; null when it broke off.
    passed: Option<bool>,
    /// Events checked.
    events: u64,
    /// What was checked.
    checks: Vec<CheckLine>,
    /// Why it broke off.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// One part of a seal check.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckLine {
    /// Its name.
    name: String,
    /// What it looked at.
    looked_at: String,
    /// How much it found.
    findings: u64,
    /// The first of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<FindingLine>,
}

/// What is not as it has to be.
#[derive(Serialize, ToSchema)]
pub struct FindingLine {
    /// The partition, where there is one to name.
    partition: Option<i32>,
    /// The position, where there is one to name.
    position: Option<i64>,
    /// What is wrong.
    what: String,
}

/// The running seal check, and the last one that ended.
#[utoipa::path(get, path = "/api/finance/verify", tag = "finance",
    responses((status = 200, body = SealAnswer), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn look(State(app): State<App>, _reader: FinanceReader) -> Result<Json<SealAnswer>, ApiError> {
    let (running, last) = app.seal_checks.look();
    let running = running.map(|underway| RunningCheck::new(&underway)).transpose()?;
    Ok(Json(SealAnswer { running, last: last.map(EndedCheck::new).transpose()? }))
}

/// Begin a seal check: every hash recomputed, every head held against the anchors. There is one at a time; it changes
/// nothing, so a repetition needs no key.
#[utoipa::path(post, path = "/api/finance/verify", tag = "finance",
    responses((status = 202, body = RunningCheck), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 409, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn begin(State(app): State<App>, operator: FinanceOperator, _post: BarePost) -> Result<Response, ApiError> {
    match app.seal_checks.begin(&app, operator.user_id()) {
        Ok(begun) => {
            let underway = Underway { begun, events: 0, of_events: None };
            Ok((StatusCode::ACCEPTED, Json(RunningCheck::new(&underway)?)).into_response())
        }
        Err(running) => {
            let since = rfc3339(running.at)?;
            let message = format!("a seal check has been running since {since}; GET /api/finance/verify shows it");
            Err(ApiError::new(Code::Conflict, message).with_fact("startedAt", since))
        }
    }
}

impl RunningCheck {
    fn new(underway: &Underway) -> Result<Self, ApiError> {
        let Underway { begun, events, of_events } = *underway;
        Ok(Self { by: begun.by.0, started_at: rfc3339(begun.at)?, events, of_events })
    }
}

impl EndedCheck {
    fn new(ended: Ended) -> Result<Self, ApiError> {
        let (by, started_at, ended_at) = (ended.begun.by.0, rfc3339(ended.begun.at)?, rfc3339(ended.at)?);
        Ok(match ended.outcome {
            Ok(report) => Self {
                by,
                started_at,
                ended_at,
                passed: Some(report.passed),
                events: report.events,
                checks: report.checks.into_iter().map(CheckLine::new).collect(),
                error: None,
            },
            Err(why) => {
                Self { by, started_at, ended_at, passed: None, events: 0, checks: Vec::new(), error: Some(why) }
            }
        })
    }
}

impl CheckLine {
    fn new(check: Check) -> Self {
        let first = check.first.map(|first| FindingLine {
            partition: first.partition,
            position: first.position,
            what: first.what,
        });
        Self { name: check.name, looked_at: check.looked_at, findings: check.findings, first }
    }
}
