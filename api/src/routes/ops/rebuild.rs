//! Rebuilding a read model from the log, beside everything else.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use calos_projections::registry;
use calos_replay::operation::envelope;
use calos_replay::progress::Progress;
use calos_replay::progress::estimate::Outlook;
use calos_replay::rebuild::RebuildReport;
use calos_replay::status::status;

use super::failure::{OPS_KEY, failed, model, run_of};
use crate::auth::FinanceOperator as Operator;
use crate::error::{ApiError, Code};
use crate::idempotency::{Answer, Claimer};
use crate::moment::rfc3339;
use crate::openapi::ErrorBody;
use crate::rebuilds::{Begun, Ended, NotBegun};
use crate::request::{Path, Post, now};
use crate::to_the_end::to_the_end;
use crate::wiring::App;

/// Why something is done.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// In words; it stands in the log.
    reason: String,
}

/// The rebuilds of this server since its start.
#[derive(Serialize, ToSchema)]
pub struct RebuildAnswer {
    /// The one that is running; null when none is.
    running: Option<RunningRebuild>,
    /// The last one that ended; null when there was none.
    last: Option<EndedRebuild>,
}

/// A rebuild that is running.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunningRebuild {
    /// The projection, or `all`.
    projection: String,
    /// The run, as it stands in the log.
    operation_id: Uuid,
    /// Who began it.
    by: Uuid,
    /// Why.
    reason: String,
    /// When, RFC 3339.
    started_at: String,
    /// Partitions of the new versions that are folded, over all of its projections.
    partitions_done: i64,
    /// Partitions to fold.
    partitions: i64,
    /// How it goes; null before it is known how much there is to do.
    progress: Option<ProgressLine>,
}

/// How a rebuild goes.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgressLine {
    /// Events read and folded.
    events_done: u64,
    /// Events there are to read, those that came meanwhile included.
    events: u64,
    /// How much of them that is, in whole percent.
    percent: u64,
    /// Events a second.
    events_per_second: u64,
    /// How long the rest will take, keys and comparison included; null before anything can be said.
    seconds_left: Option<f64>,
}

/// A rebuild that ended.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndedRebuild {
    /// The projection, or `all`.
    projection: String,
    /// The run, as it stands in the log.
    operation_id: Uuid,
    /// Who began it.
    by: Uuid,
    /// Why.
    reason: String,
    /// When, RFC 3339.
    started_at: String,
    /// When it ended, RFC 3339.
    ended_at: String,
    /// What was rebuilt.
    rebuilt: Vec<RebuiltLine>,
    /// Why it broke off; null when it did not.
    error: Option<String>,
}

/// One projection that was rebuilt.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RebuiltLine {
    /// Its name.
    projection: &'static str,
    /// The version before.
    from_version: i32,
    /// The version since.
    to_version: i32,
    /// Events folded.
    events: u64,
    /// How long it took.
    seconds: f64,
    /// Events the new version could not take.
    dead_letters: i64,
    /// Rows in which the versions differed; null when those that stood could not be read.
    differences: Option<i64>,
}

/// Rebuild a projection, or `all`, from the log. There is one rebuild at a time; reads and writes go on meanwhile.
#[utoipa::path(post, path = "/api/ops/projections/{name}/rebuild", tag = "operations", request_body = Reason,
    params(("name" = String, Path, description = "the projection, or all"),
        ("Idempotency-Key" = Option<String>, Header, description = "repeats are answered with the first answer")),
    responses((status = 202, body = RunningRebuild), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn begin(
    State(app): State<App>,
    operator: Operator,
    Path(name): Path<String>,
    post: Post<Reason>,
) -> Result<Response, ApiError> {
    let models = if name == "all" { registry::ALL.to_vec() } else { vec![model(&name)?] };
    let (by, who) = (operator.user_id(), operator.actor().to_string());
    let run = run_of(by, &post.body.reason)?;
    let begun = Begun { projection: name, by, run, at: now() };
    let work = async |claimer: Claimer| {
        app.auth.changes.make(by)?;
        let answer = Answer::json(StatusCode::ACCEPTED, &RunningRebuild::new(begun.clone(), 0, 0)?)?;
        let request = claimer.request(envelope(&begun.run), &answer)?;
        let server = app.clone();
        // Once it is recorded that it begins, it does, also when nobody waits for the answer any more.
        let begin = async move { server.rebuilds.begin(&server, begun, models, request).await.map_err(not_begun) };
        Ok(answer.respond(&to_the_end(begin).await?))
    };
    post.attempt.once(&app, &who, OPS_KEY, work).await
}

fn not_begun(why: NotBegun) -> ApiError {
    match why {
        NotBegun::Failed(error) => failed(error),
        NotBegun::Running(running) => {
            let since = match rfc3339(running.at) {
                Ok(since) => since,
                Err(error) => return error,
            };
            let name = &running.projection;
            let message =
                format!("{name} has been rebuilt since {since}; GET /api/ops/rebuild shows it, DELETE stops it");
            ApiError::new(Code::Conflict, message).with_fact("startedAt", since)
        }
    }
}

/// The running rebuild, and the last one that ended.
#[utoipa::path(get, path = "/api/ops/rebuild", tag = "operations",
    responses((status = 200, body = RebuildAnswer), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn look(State(app): State<App>, _operator: Operator) -> Result<Json<RebuildAnswer>, ApiError> {
    let (running, last) = app.rebuilds.look();
    let running = match running {
        None => None,
        Some(begun) => {
            let projections = status(&app.pool).await.map_err(failed)?.projections;
            let building = projections.iter().filter_map(|projection| {
                let mine = begun.projection == "all" || begun.projection == projection.name;
                projection
                    .building
                    .filter(|_| mine)
                    .map(|building| (building.partitions_done, projection.partitions.len()))
            });
            let (done, all) = building.fold((0, 0), |(done, all), (more, of)| (done + more, all + of));
            let mut running = RunningRebuild::new(begun, done, i64::try_from(all).unwrap_or(i64::MAX))?;
            running.progress = app.rebuilds.progress().map(|progress| ProgressLine::new(&progress));
            Some(running)
        }
    };
    Ok(Json(RebuildAnswer { running, last: last.map(EndedRebuild::new).transpose()? }))
}

/// Stop the running rebuild. What it has finished is kept, and one begun again goes on from there; the live version is as it
/// was.
#[utoipa::path(delete, path = "/api/ops/rebuild", tag = "operations",
    responses((status = 204), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn cancel(State(app): State<App>, operator: Operator) -> Result<StatusCode, ApiError> {
    let run = run_of(operator.user_id(), "cancelled over HTTP")?;
    // What was stopped is recorded as that, also when nobody waits for the answer any more.
    match to_the_end(async move { app.rebuilds.cancel(&app, run).await.map_err(failed) }).await? {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(ApiError::not_found("running rebuild")),
    }
}

impl RunningRebuild {
    fn new(begun: Begun, partitions_done: i64, partitions: i64) -> Result<Self, ApiError> {
        Ok(Self {
            started_at: rfc3339(begun.at)?,
            projection: begun.projection,
            operation_id: begun.run.operation_id.0,
            by: begun.by.0,
            reason: begun.run.reason,
            partitions_done,
            partitions,
            progress: None,
        })
    }
}

impl ProgressLine {
    fn new(progress: &Progress) -> Self {
        let Outlook { events_per_second, percent, left } = progress.outlook();
        let (events_done, events) = (progress.events(), progress.total());
        Self { events_done, events, percent, events_per_second, seconds_left: left.map(|left| left.as_secs_f64()) }
    }
}

impl EndedRebuild {
    fn new(ended: Ended) -> Result<Self, ApiError> {
        let Ended { begun, at, outcome } = ended;
        let (rebuilt, error) = match outcome {
            Ok(reports) => (reports.into_iter().map(RebuiltLine::new).collect(), None),
            Err(why) => (Vec::new(), Some(why)),
        };
        Ok(Self {
            started_at: rfc3339(begun.at)?,
            ended_at: rfc3339(at)?,
            projection: begun.projection,
            operation_id: begun.run.operation_id.0,
            by: begun.by.0,
            reason: begun.run.reason,
            rebuilt,
            error,
        })
    }
}

impl RebuiltLine {
    fn new(report: RebuildReport) -> Self {
        Self {
            projection: report.projection,
            from_version: report.from_version,
            to_version: report.to_version,
            events: report.events,
            seconds: report.seconds,
            dead_letters: report.dead_letters,
            differences: report.parity.differences.map(|differences| differences.count),
        }
    }
}
