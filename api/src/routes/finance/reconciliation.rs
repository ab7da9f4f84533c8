//! Reconciliation: the books against what Stripe says moved, and what becomes of the exceptions.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use calos_adapters::stripe_statement::StripeStatement;
use calos_commands::reconciliation::{self, Comparison};
use calos_domain::reconciliation::{Resolution, Side};
use calos_domain::{ReconciliationId, UserId};
use calos_projections::Projection;
use calos_projections::reconciliations::{self as rows, ExceptionRow, ReconciliationRow, Reconciliations};

use super::bare::LargePost;
use super::span;
use super::span::Stretch;
use crate::auth::{FinanceOperator, FinanceReader};
use crate::error::ApiError;
use crate::idempotency::{Answer, Claimer};
use crate::moment::rfc3339;
use crate::openapi::ErrorBody;
use crate::paging::{self, PageQuery};
use crate::position::After;
use crate::request::{Path, Post, Query, RequestContext, now, off_the_loop};
use crate::wiring::App;

/// The stream key under which the runs stand.
const RUNS_KEY: &str = "reconciliation";

/// A run.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunLine {
    /// The run.
    reconciliation_id: Uuid,
    /// Who keeps the account: `stripe`.
    source: String,
    /// From when, RFC 3339.
    from: String,
    /// Up to when, that moment left out, RFC 3339.
    to: String,
    /// Movements on which both sides agree.
    matched: i64,
    /// Exceptions found.
    found: i64,
    /// Exceptions that nobody has resolved.
    open: i64,
    /// Of their transactions: outside the span, and so not compared.
    outside: i64,
    /// SHA-256 of what they said, hexadecimal.
    statement_hash: String,
    /// Who ran it.
    run_by: Uuid,
    /// When, RFC 3339.
    run_at: String,
}

/// A page of runs, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunsPage {
    /// The runs.
    reconciliations: Vec<RunLine>,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

/// The runs, newest first.
#[utoipa::path(get, path = "/api/finance/reconciliation", tag = "finance",
    params(PageQuery, ("calos-after" = Option<String>, Header, description = "positions this read must have seen")),
    responses((status = 200, body = RunsPage), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn list(
    State(app): State<App>,
    _reader: FinanceReader,
    after: After,
    Query(query): Query<PageQuery>,
) -> Result<Json<RunsPage>, ApiError> {
    let limit = paging::limit(query.limit)?;
    let before = paging::cursor::<ReconciliationId>(query.cursor.as_deref())?;
    after.wait(&app, Reconciliations::NAME).await?;
    let page = rows::page(&app.pool, before, limit).await?;
    let reconciliations = page.rows.into_iter().map(RunLine::new).collect::<Result<_, _>>()?;
    Ok(Json(RunsPage { reconciliations, next_cursor: page.next.map(|id| id.to_string()) }))
}

impl RunLine {
    fn new(row: ReconciliationRow) -> Result<Self, ApiError> {
        Ok(Self {
            reconciliation_id: row.reconciliation_id.0,
            source: row.source,
            from: rfc3339(row.from)?,
            to: rfc3339(row.to)?,
            matched: row.matched,
            found: row.found,
            open: row.open,
            outside: row.outside,
            statement_hash: row.statement_hash,
            run_by: row.run_by.0,
            run_at: rfc3339(row.run_at)?,
        })
    }
}

/// One side of an exception.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SideLine {
    /// What came in before the fee, in micro-dollars; below zero what went out.
    amount_micros: i64,
    /// The fee, in micro-dollars.
    fee_micros: i64,
    /// When it moved, RFC 3339.
    at: String,
}

/// An exception.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExceptionLine {
    /// Counted from 1 within the run.
    number: i64,
    /// `missing_here`, `missing_there`, `different` or `duplicate`.
    kind: String,
    /// What both sides call it.
    reference: String,
    /// What the books say.
    ours: Option<SideLine>,
    /// What Stripe says.
    theirs: Option<SideLine>,
    /// Who is to find out about it.
    owner: Option<Uuid>,
    /// What became of it: `timing`, `corrected_here`, `corrected_there`, `not_ours` or `written_off`.
    resolution: Option<String>,
    /// How that is known.
    note: Option<String>,
    /// Who resolved it.
    resolved_by: Option<Uuid>,
    /// When, RFC 3339.
    resolved_at: Option<String>,
}

/// A run with a page of its exceptions, by number.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunAnswer {
    /// The run.
    #[serde(flatten)]
    run: RunLine,
    /// Its exceptions.
    exceptions: Vec<ExceptionLine>,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

/// A run and its exceptions.
#[utoipa::path(get, path = "/api/finance/reconciliation/{id}", tag = "finance",
    params(("id" = Uuid, Path, description = "the run"), PageQuery,
        ("calos-after" = Option<String>, Header, description = "positions this read must have seen")),
    responses((status = 200, body = RunAnswer), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn one(
    State(app): State<App>,
    _reader: FinanceReader,
    Path(id): Path<Uuid>,
    after: After,
    Query(query): Query<PageQuery>,
) -> Result<Json<RunAnswer>, ApiError> {
    let limit = paging::limit(query.limit)?;
    let behind = paging::cursor::<u32>(query.cursor.as_deref())?.unwrap_or_default();
    after.wait(&app, Reconciliations::NAME).await?;
    let id = ReconciliationId(id);
    let run = rows::find(&app.pool, id).await?.ok_or_else(|| ApiError::not_found("reconciliation"))?;
    let page = rows::exceptions(&app.pool, id, false, behind.into(), limit).await?;
    let exceptions = page.rows.into_iter().map(ExceptionLine::new).collect::<Result<_, _>>()?;
    let next_cursor = page.next.map(|number| number.to_string());
    Ok(Json(RunAnswer { run: RunLine::new(run)?, exceptions, next_cursor }))
}

impl ExceptionLine {
    fn new(row: ExceptionRow) -> Result<Self, ApiError> {
        Ok(Self {
            number: row.number,
            kind: row.kind,
            reference: row.reference,
            ours: row.ours.map(SideLine::new).transpose()?,
            theirs: row.theirs.map(SideLine::new).transpose()?,
            owner: row.owner.map(|owner| owner.0),
            resolution: row.resolution,
            note: row.note,
            resolved_by: row.resolved_by.map(|by| by.0),
            resolved_at: span::shown(row.resolved_at)?,
        })
    }
}

impl SideLine {
    fn new(side: Side) -> Result<Self, ApiError> {
        Ok(Self { amount_micros: side.amount.get(), fee_micros: side.fee.get(), at: rfc3339(side.at)? })
    }
}

/// What is to be compared. Unknown fields are refused.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunBody {
    /// From this moment (RFC 3339) or day on.
    from: String,
    /// Up to and with this moment or day; not one to come.
    to: String,
    /// Stripe's balance transactions of the span, as its API prints them: one list object (`{"object": "list", "data": […],
    /// "has_more": false}`), or an array of list objects or of transactions.
    #[schema(value_type = Object)]
    transactions: Box<RawValue>,
}

/// A run that was recorded. What it found, `GET /api/finance/reconciliation/{id}` says.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunRecorded {
    /// The run.
    reconciliation_id: Uuid,
    /// From when, RFC 3339.
    from: String,
    /// Up to when, that moment left out, RFC 3339.
    to: String,
}

/// Compare the books with Stripe's balance transactions of a span, and record what agrees and what does not.
#[utoipa::path(post, path = "/api/finance/reconciliation", tag = "finance", request_body = RunBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "repeats are answered with the first answer")),
    responses((status = 201, body = RunRecorded), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 409, body = ErrorBody), (status = 413, body = ErrorBody),
        (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn run(
    State(app): State<App>,
    operator: FinanceOperator,
    context: RequestContext,
    post: LargePost<RunBody>,
) -> Result<Response, ApiError> {
    let (actor, by) = (operator.actor(), operator.user_id());
    let who = actor.to_string();
    let stretch = Stretch::of(Some(&post.body.from), Some(&post.body.to))?;
    let (Some(from), Some(to)) = (stretch.from, stretch.to) else {
        return Err(ApiError::field("from", "must be there, and to as well"));
    };
    let transactions = post.body.transactions;
    let bytes = transactions.get().len();
    let statement = off_the_loop(bytes, move || StripeStatement::read(objects(transactions.get()).as_bytes())).await?;
    let mut statement = statement.map_err(ApiError::from)?;
    let id = ReconciliationId(Uuid::now_v7());
    let work = async |claimer: Claimer| {
        app.auth.changes.make(by)?;
        let shown = RunRecorded { reconciliation_id: id.0, from: rfc3339(from)?, to: rfc3339(to)? };
        let answer = Answer::json(StatusCode::CREATED, &shown)?;
        let request = claimer.request(context.metadata(actor), &answer)?;
        let comparison = Comparison { id, from, to, by, at: now() };
        let done = reconciliation::run(&app.log, &*app.books, &mut statement, comparison, request).await?;
        Ok(answer.respond(&done.positions))
    };
    let answered = post.attempt.once(&app, &who, RUNS_KEY, work).await;
    drop(post.room);
    answered
}

/// The objects one after the other, as they stand in a file: an array's brackets and commas are taken away.
fn objects(transactions: &str) -> String {
    match serde_json::from_str::<Vec<&RawValue>>(transactions) {
        Ok(objects) => objects.into_iter().map(RawValue::get).collect::<Vec<_>>().join("\n"),
        Err(_) => transactions.to_owned(),
    }
}

/// Who is to find out. Unknown fields are refused.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignBody {
    /// The member of the staff; oneself when left out.
    owner: Option<Uuid>,
}

/// What became of an exception. Unknown fields are refused.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveBody {
    /// `timing`, `corrected_here`, `corrected_there`, `not_ours` or `written_off`.
    resolution: String,
    /// How that is known, in words an auditor can read, 1 to 1,000 bytes.
    note: String,
}

/// An exception that was dealt with.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DealtWith {
    /// The run.
    reconciliation_id: Uuid,
    /// The exception.
    number: u32,
    /// Who is to find out.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Uuid>,
    /// What became of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    resolution: Option<&'static str>,
}

/// Have somebody find out about an exception.
#[utoipa::path(post, path = "/api/finance/reconciliation/{id}/exceptions/{number}/assign", tag = "finance",
    request_body = AssignBody,
    params(("id" = Uuid, Path, description = "the run"), ("number" = u32, Path, description = "the exception"),
        ("Idempotency-Key" = Option<String>, Header, description = "repeats are answered with the first answer")),
    responses((status = 200, body = DealtWith), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn assign(
    State(app): State<App>,
    operator: FinanceOperator,
    context: RequestContext,
    Path((id, number)): Path<(Uuid, u32)>,
    post: Post<AssignBody>,
) -> Result<Response, ApiError> {
    let (actor, by) = (operator.actor(), operator.user_id());
    let who = actor.to_string();
    let owner = post.body.owner.map_or(by, UserId);
    let work = async |claimer: Claimer| {
        app.auth.changes.make(by)?;
        known_staff(&app, owner).await?;
        let shown = DealtWith { reconciliation_id: id, number, owner: Some(owner.0), resolution: None };
        let answer = Answer::json(StatusCode::OK, &shown)?;
        let request = claimer.request(context.metadata(actor), &answer)?;
        let place = (ReconciliationId(id), number);
        let done = reconciliation::assign(&app.log, place, owner, by, now(), request).await?;
        Ok(answer.respond(&done.positions))
    };
    post.attempt.once(&app, &who, RUNS_KEY, work).await
}

/// Only somebody who may look at the books can find out about them.
async fn known_staff(app: &App, owner: UserId) -> Result<(), ApiError> {
    use calos_domain::account::StaffRole;

    let account = calos_commands::accounts::account_of(&app.log, owner).await?;
    let may = [StaffRole::Finance, StaffRole::Operator].iter().any(|role| account.staff_roles.contains(role));
    if may { Ok(()) } else { Err(ApiError::field("owner", "must have the role finance or operator")) }
}

/// Say what became of an exception, once.
#[utoipa::path(post, path = "/api/finance/reconciliation/{id}/exceptions/{number}/resolve", tag = "finance",
    request_body = ResolveBody,
    params(("id" = Uuid, Path, description = "the run"), ("number" = u32, Path, description = "the exception"),
        ("Idempotency-Key" = Option<String>, Header, description = "repeats are answered with the first answer")),
    responses((status = 200, body = DealtWith), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn resolve(
    State(app): State<App>,
    operator: FinanceOperator,
    context: RequestContext,
    Path((id, number)): Path<(Uuid, u32)>,
    post: Post<ResolveBody>,
) -> Result<Response, ApiError> {
    let (actor, by) = (operator.actor(), operator.user_id());
    let who = actor.to_string();
    let resolution = Resolution::ALL.into_iter().find(|known| known.as_str() == post.body.resolution);
    let resolution = resolution.ok_or_else(|| {
        ApiError::field("resolution", format!("must be one of {}", Resolution::ALL.map(Resolution::as_str).join(", ")))
    })?;
    let note = post.body.note;
    let work = async |claimer: Claimer| {
        app.auth.changes.make(by)?;
        let shown = DealtWith { reconciliation_id: id, number, owner: None, resolution: Some(resolution.as_str()) };
        let answer = Answer::json(StatusCode::OK, &shown)?;
        let request = claimer.request(context.metadata(actor), &answer)?;
        let place = (ReconciliationId(id), number);
        let done = reconciliation::resolve(&app.log, place, (resolution, &note), by, now(), request).await?;
        Ok(answer.respond(&done.positions))
    };
    post.attempt.once(&app, &who, RUNS_KEY, work).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_an_array_stand_one_after_the_other() {
        assert_eq!(objects(r#"[{"a": 1}, {"b": [2]}]"#), "{\"a\": 1}\n{\"b\": [2]}");
        assert_eq!(objects(r#"{"data": []}"#), r#"{"data": []}"#);
    }
}
