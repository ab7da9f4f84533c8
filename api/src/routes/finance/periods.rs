//! Closed months.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use calos_commands::periods;
use calos_domain::period::{Month, PERIODS_STREAM, PeriodClosed};
use calos_projections::Projection;
use calos_projections::periods::{self as rows, Periods};

use super::bare::BarePost;
use crate::auth::{FinanceOperator, FinanceReader};
use crate::error::ApiError;
use crate::idempotency::{Answer, Claimer};
use crate::moment::rfc3339;
use crate::openapi::ErrorBody;
use crate::position::After;
use crate::request::{Path, RequestContext, now};
use crate::wiring::App;

/// How far a partition of the log was.
#[derive(Serialize, ToSchema)]
pub struct HeadLine {
    /// The partition.
    partition: i32,
    /// Its last position.
    position: i64,
}

/// A closed month. Its trial balance is `GET /api/finance/trial-balance?period=`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeriodLine {
    /// Which.
    month: String,
    /// When it was closed, RFC 3339.
    closed_at: String,
    /// Who closed it.
    closed_by: Uuid,
    /// Its figures hold what was recorded up to and with this moment, RFC 3339.
    as_known_at: String,
    /// How far the log was then.
    heads: Vec<HeadLine>,
    /// SHA-256 of its figures, hexadecimal.
    hash: String,
    /// The hash of the month before; null for the first.
    previous_hash: Option<String>,
}

/// The closed months, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeriodsAnswer {
    /// The months.
    periods: Vec<PeriodLine>,
    /// The month to close next; null while none was closed yet, when it may be any that is over.
    next: Option<String>,
}

/// The closed months, newest first.
#[utoipa::path(get, path = "/api/finance/periods", tag = "finance",
    params(("calos-after" = Option<String>, Header, description = "positions this read must have seen")),
    responses((status = 200, body = PeriodsAnswer), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn list(
    State(app): State<App>,
    _reader: FinanceReader,
    after: After,
) -> Result<Json<PeriodsAnswer>, ApiError> {
    after.wait(&app, Periods::NAME).await?;
    let closed = rows::list(&app.pool).await?;
    let next = closed.first().map(|last| last.month.next().to_string());
    let periods = closed.into_iter().map(PeriodLine::new).collect::<Result<_, _>>()?;
    Ok(Json(PeriodsAnswer { periods, next }))
}

impl PeriodLine {
    fn new(closed: PeriodClosed) -> Result<Self, ApiError> {
        let heads = closed.heads.iter().map(|head| HeadLine { partition: head.partition, position: head.position });
        Ok(Self {
            month: closed.month.to_string(),
            closed_at: rfc3339(closed.closed_at)?,
            closed_by: closed.closed_by.0,
            as_known_at: rfc3339(closed.as_known_at)?,
            heads: heads.collect(),
            hash: closed.hash,
            previous_hash: closed.previous_hash,
        })
    }
}

/// A month that was closed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CloseAnswer {
    /// Which.
    month: String,
    /// When, RFC 3339.
    closed_at: String,
    /// By whom.
    closed_by: Uuid,
    /// Its figures hold what was recorded up to and with this moment, RFC 3339.
    as_known_at: String,
}

/// Close a month that is over: fix its trial balance, hash it and chain it to the month before. Months close in order; what
/// is recorded later posts to the open month, with its true effective date.
#[utoipa::path(post, path = "/api/finance/periods/{month}/close", tag = "finance",
    params(("month" = String, Path, description = "such as 2026-10"),
        ("Idempotency-Key" = Option<String>, Header, description = "repeats are answered with the first answer")),
    responses((status = 200, body = CloseAnswer), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 409, body = ErrorBody), (status = 429, body = ErrorBody),
        (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn close(
    State(app): State<App>,
    operator: FinanceOperator,
    context: RequestContext,
    Path(month): Path<String>,
    post: BarePost,
) -> Result<Response, ApiError> {
    let month: Month = crate::calendar::month("month", &month)?;
    let (actor, by) = (operator.actor(), operator.user_id());
    let who = actor.to_string();
    let work = async |claimer: Claimer| {
        app.auth.changes.make(by)?;
        let at = now();
        let moment = rfc3339(at)?;
        let shown =
            CloseAnswer { month: month.to_string(), closed_at: moment.clone(), closed_by: by.0, as_known_at: moment };
        let answer = Answer::json(StatusCode::OK, &shown)?;
        let request = claimer.request(context.metadata(actor), &answer)?;
        let done = periods::close(&app.log, &*app.books, month, by, at, request).await?;
        Ok(answer.respond(&done.positions))
    };
    post.attempt.once(&app, &who, PERIODS_STREAM, work).await
}
