//! What the read models set aside.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use calos_projections::registry;
use calos_replay::ReadModel;
use calos_replay::dead_letters::{self as letters, RetryReport, SetAside};
use calos_replay::place::Place;
use calos_replay::write_guard::{Assent, confirm};

use super::failure::{OPS_KEY, failed, kept, model, run_of};
use crate::auth::FinanceOperator as Operator;
use crate::error::ApiError;
use crate::idempotency::{Answer, Claimer};
use crate::openapi::ErrorBody;
use crate::request::{Post, Query};
use crate::to_the_end::to_the_end;
use crate::wiring::App;

/// Whose.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LettersQuery {
    /// Only this projection's.
    projection: Option<String>,
}

/// What is set aside.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LettersAnswer {
    /// By projection and position, at most a thousand of each.
    dead_letters: Vec<LetterLine>,
}

/// An event that is set aside.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LetterLine {
    /// The projection.
    projection: &'static str,
    /// The partition.
    partition: i32,
    /// The position.
    position: i64,
    /// `<aggregate type>/<id>`
    stream: String,
    /// Whether it only waits behind another one of its stream.
    parked: bool,
    /// What was wrong, or what it waits for.
    error: String,
    /// When it was set aside, RFC 3339.
    created_at: Option<String>,
}

/// What to take up again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryBody {
    /// The projection, or `all`.
    projection: String,
    /// Why; it stands in the log.
    reason: String,
}

/// What a retry achieved.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryAnswer {
    /// The run, as it stands in the log.
    operation_id: Uuid,
    /// By projection.
    retried: Vec<RetriedLine>,
}

/// What a retry achieved for one projection.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetriedLine {
    /// The projection.
    projection: &'static str,
    /// Events taken after all.
    resumed: u64,
    /// Streams that failed again.
    streams_failing: u64,
}

/// What to leave out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SkipBody {
    /// The projection.
    projection: String,
    /// The partition of the event.
    partition: i32,
    /// Its position.
    position: i64,
    /// Why; it stands in the log.
    reason: String,
}

/// What leaving an event out led to.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SkipAnswer {
    /// The run, as it stands in the log.
    operation_id: Uuid,
    /// What was left out.
    skipped: LetterLine,
    /// Events that had waited behind it and were taken.
    resumed: u64,
    /// Whether its stream failed again, at a later event.
    stream_failing: bool,
}

fn models(name: &str) -> Result<Vec<ReadModel>, ApiError> {
    if name == "all" { Ok(registry::ALL.to_vec()) } else { Ok(vec![model(name)?]) }
}

/// What is set aside.
#[utoipa::path(get, path = "/api/ops/dead-letters", tag = "operations", params(LettersQuery),
    responses((status = 200, body = LettersAnswer), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn list(
    State(app): State<App>,
    _operator: Operator,
    Query(query): Query<LettersQuery>,
) -> Result<Json<LettersAnswer>, ApiError> {
    let models = models(query.projection.as_deref().unwrap_or("all"))?;
    let found = letters::dead_letters(&app.pool, &models).await.map_err(failed)?;
    Ok(Json(LettersAnswer { dead_letters: found.into_iter().map(LetterLine::new).collect() }))
}

/// Take up again what was set aside, stream by stream and in order.
#[utoipa::path(post, path = "/api/ops/dead-letters/retry", tag = "operations", request_body = RetryBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "repeats are answered with the first answer")),
    responses((status = 200, body = RetryAnswer), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn retry(State(app): State<App>, operator: Operator, post: Post<RetryBody>) -> Result<Response, ApiError> {
    let body = post.body;
    let models = models(&body.projection)?;
    let (by, who) = (operator.user_id(), operator.actor().to_string());
    let run = run_of(by, &body.reason)?;
    let asked = app.clone();
    let work = move |claimer: Claimer| async move {
        app.auth.changes.make(by)?;
        // What was taken up is recorded, also when nobody waits for the answer any more.
        to_the_end(async move {
            let confirmed = confirm(Assent::Given, "dead-letters retry").map_err(failed)?;
            let mut retried = Vec::with_capacity(models.len());
            for model in models {
                let report = letters::retry(&app.pool, &app.log, model, &run, &confirmed).await.map_err(failed)?;
                retried.push(RetriedLine::new(report));
            }
            let answer = Answer::json(StatusCode::OK, &RetryAnswer { operation_id: run.operation_id.0, retried })?;
            kept(&app, &run, &claimer, answer).await
        })
        .await
    };
    post.attempt.once(&asked, &who, OPS_KEY, work).await
}

/// Leave one event out of a projection and take up those that waited behind it. The event stays in the log.
#[utoipa::path(post, path = "/api/ops/dead-letters/skip", tag = "operations", request_body = SkipBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "repeats are answered with the first answer")),
    responses((status = 200, body = SkipAnswer), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn skip(State(app): State<App>, operator: Operator, post: Post<SkipBody>) -> Result<Response, ApiError> {
    let body = post.body;
    let model = model(&body.projection)?;
    let (by, who) = (operator.user_id(), operator.actor().to_string());
    let run = run_of(by, &body.reason)?;
    let place = Place { partition: body.partition, position: body.position };
    let asked = app.clone();
    let work = move |claimer: Claimer| async move {
        app.auth.changes.make(by)?;
        // Once it is recorded that the event is left out, it is, also when nobody waits for the answer any more.
        to_the_end(async move {
            let confirmed = confirm(Assent::Given, "dead-letters skip").map_err(failed)?;
            let report = letters::skip(&app.pool, &app.log, model, place, &run, &confirmed).await.map_err(failed)?;
            let skipped = SkipAnswer {
                operation_id: run.operation_id.0,
                skipped: LetterLine::new(report.skipped),
                resumed: report.resumed,
                stream_failing: report.stream_failing,
            };
            kept(&app, &run, &claimer, Answer::json(StatusCode::OK, &skipped)?).await
        })
        .await
    };
    post.attempt.once(&asked, &who, OPS_KEY, work).await
}

impl LetterLine {
    fn new(letter: SetAside) -> Self {
        let SetAside { projection, partition, position, stream, parked, error, created_at } = letter;
        Self { projection, partition, position, stream, parked, error, created_at }
    }
}

impl RetriedLine {
    fn new(report: RetryReport) -> Self {
        let RetryReport { projection, resumed, streams_failing } = report;
        Self { projection, resumed, streams_failing }
    }
}
