//! Adjustments: proposed by one of the staff, approved by others, applied once.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use calos_commands::adjustments;
use calos_domain::adjustment::{LAPSE_SECONDS, Proposal, approvals_needed};
use calos_domain::wallet::AdjustmentReason;
use calos_domain::{AdjustmentId, TenantId, Units};
use calos_projections::Projection;
use calos_projections::adjustments::{self as rows, Adjustments, Status};

use super::bare::BarePost;
use super::span;
use crate::auth::{FinanceOperator, FinanceReader};
use crate::error::ApiError;
use crate::idempotency::{Answer, Claimer};
use crate::moment::{parse_rfc3339, rfc3339};
use crate::openapi::ErrorBody;
use crate::paging;
use crate::position::After;
use crate::request::{Path, Post, Query, RequestContext, now};
use crate::wiring::App;

/// Which adjustments.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AdjustmentsQuery {
    /// Only this tenant's.
    tenant: Option<Uuid>,
    /// Only `open`, `applied`, `rejected` or `lapsed` ones.
    status: Option<String>,
    /// Lines on the page, 1 to 200; 50 when left out.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// An approval.
#[derive(Serialize, ToSchema)]
pub struct ApprovalLine {
    /// Whose.
    by: Uuid,
    /// When, RFC 3339.
    at: String,
}

/// An adjustment.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdjustmentLine {
    /// Its id.
    adjustment_id: Uuid,
    /// Whose wallet.
    tenant_id: Uuid,
    /// `USD` or `CREDIT`.
    asset: &'static str,
    /// How much is given, or taken when negative: micro-dollars for `USD`, whole credits for `CREDIT`.
    amount: i64,
    /// `billing_error`, `service_credit`, `goodwill`, `migration`, `fraud`, `write_off` or `other`.
    reason: String,
    /// Where the evidence is found.
    evidence: String,
    /// From when it counts, RFC 3339.
    effective_at: String,
    /// Who proposed it.
    proposed_by: Uuid,
    /// When, RFC 3339.
    proposed_at: String,
    /// From when on it can no longer be approved, RFC 3339.
    lapses_at: String,
    /// How many people other than its author have to approve it.
    approvals_needed: i64,
    /// Who did.
    approvals: Vec<ApprovalLine>,
    /// `open`, `applied`, `rejected` or `lapsed`.
    status: &'static str,
    /// When it was applied, rejected or found lapsed, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    /// Who rejected it.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected_by: Option<Uuid>,
    /// Why it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection: Option<String>,
    /// The grant it became.
    #[serde(skip_serializing_if = "Option::is_none")]
    grant_id: Option<Uuid>,
}

/// A page of adjustments, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdjustmentsPage {
    /// The adjustments.
    adjustments: Vec<AdjustmentLine>,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

/// The adjustments, newest first.
#[utoipa::path(get, path = "/api/finance/adjustments", tag = "finance",
    params(AdjustmentsQuery, ("calos-after" = Option<String>, Header, description = "positions this read must have seen")),
    responses((status = 200, body = AdjustmentsPage), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn list(
    State(app): State<App>,
    _reader: FinanceReader,
    after: After,
    Query(query): Query<AdjustmentsQuery>,
) -> Result<Json<AdjustmentsPage>, ApiError> {
    let limit = paging::limit(query.limit)?;
    let before = paging::cursor::<AdjustmentId>(query.cursor.as_deref())?;
    let status = query.status.as_deref().map(status).transpose()?;
    after.wait(&app, Adjustments::NAME).await?;
    let page = rows::page(&app.pool, query.tenant.map(TenantId), status, before, limit).await?;
    let adjustments = page.rows.into_iter().map(AdjustmentLine::new).collect::<Result<_, _>>()?;
    Ok(Json(AdjustmentsPage { adjustments, next_cursor: page.next.map(|id| id.to_string()) }))
}

fn status(name: &str) -> Result<Status, ApiError> {
    let known = Status::ALL.into_iter().find(|status| status.as_str() == name);
    known.ok_or_else(|| ApiError::field("status", "must be open, applied, rejected or lapsed"))
}

/// One adjustment.
#[utoipa::path(get, path = "/api/finance/adjustments/{id}", tag = "finance",
    params(("id" = Uuid, Path, description = "the adjustment"),
        ("calos-after" = Option<String>, Header, description = "positions this read must have seen")),
    responses((status = 200, body = AdjustmentLine), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn one(
    State(app): State<App>,
    _reader: FinanceReader,
    Path(id): Path<Uuid>,
    after: After,
) -> Result<Json<AdjustmentLine>, ApiError> {
    after.wait(&app, Adjustments::NAME).await?;
    Ok(Json(AdjustmentLine::new(found(&app, AdjustmentId(id)).await?)?))
}

async fn found(app: &App, id: AdjustmentId) -> Result<rows::Adjustment, ApiError> {
    rows::find(&app.pool, id).await?.ok_or_else(|| ApiError::not_found("adjustment"))
}

/// Whose it is; whether it may be decided on, the adjustment itself decides.
async fn owner(app: &App, id: AdjustmentId, after: &After) -> Result<TenantId, ApiError> {
    after.wait(app, Adjustments::NAME).await?;
    Ok(found(app, id).await?.tenant_id)
}

impl AdjustmentLine {
    fn new(row: rows::Adjustment) -> Result<Self, ApiError> {
        let approvals = row.approvals.iter().map(|one| Ok(ApprovalLine { by: one.by.0, at: rfc3339(one.at)? }));
        Ok(Self {
            adjustment_id: row.adjustment_id.0,
            tenant_id: row.tenant_id.0,
            asset: row.asset.as_str(),
            amount: row.amount,
            approvals: approvals.collect::<Result<_, ApiError>>()?,
            reason: row.reason,
            evidence: row.evidence,
            effective_at: rfc3339(row.effective_at)?,
            proposed_by: row.proposed_by.0,
            proposed_at: rfc3339(row.proposed_at)?,
            lapses_at: rfc3339(row.lapses_at)?,
            approvals_needed: row.approvals_needed.into(),
            status: row.status.as_str(),
            ended_at: span::shown(row.ended_at)?,
            rejected_by: row.rejected_by.map(|by| by.0),
            rejection: row.rejection,
            grant_id: row.grant_id.map(|grant| grant.0),
        })
    }
}

/// An adjustment to be. Unknown fields are refused.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProposalBody {
    /// Whose wallet.
    tenant_id: Uuid,
    /// `USD` or `CREDIT`.
    asset: String,
    /// How much to give, or to take when negative: micro-dollars for `USD`, whole credits for `CREDIT`.
    amount: i64,
    /// `billing_error`, `service_credit`, `goodwill`, `migration`, `fraud`, `write_off` or `other`.
    reason: String,
    /// Where the evidence is found, 1 to 1,000 bytes: a ticket, an invoice. A reference, no personal data.
    evidence: String,
    /// From when it counts, RFC 3339, not a moment to come; now when left out.
    effective_at: Option<String>,
}

impl ProposalBody {
    fn proposal(self, adjustment_id: AdjustmentId) -> Result<Proposal, ApiError> {
        let reason = AdjustmentReason::ALL.into_iter().find(|reason| reason.as_str() == self.reason);
        let reasons = || AdjustmentReason::ALL.map(AdjustmentReason::as_str).join(", ");
        let effective_at = match &self.effective_at {
            Some(text) => parse_rfc3339("effectiveAt", text)?,
            None => now(),
        };
        Ok(Proposal {
            adjustment_id,
            tenant_id: TenantId(self.tenant_id),
            asset: self.asset.parse().map_err(|_| ApiError::field("asset", "must be USD or CREDIT"))?,
            amount: Units::new(self.amount),
            reason: reason.ok_or_else(|| ApiError::field("reason", format!("must be one of {}", reasons())))?,
            evidence: self.evidence,
            effective_at,
        })
    }
}

/// Propose an adjustment. Up to $50.00 or 500 credits somebody else has to approve it, up to $1,000.00 or 10,000 credits two
/// others; beyond that there is none. It lapses after seven days.
#[utoipa::path(post, path = "/api/finance/adjustments", tag = "finance", request_body = ProposalBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "repeats are answered with the first answer")),
    responses((status = 201, body = AdjustmentLine), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn propose(
    State(app): State<App>,
    operator: FinanceOperator,
    context: RequestContext,
    post: Post<ProposalBody>,
) -> Result<Response, ApiError> {
    let (actor, by) = (operator.actor(), operator.user_id());
    let who = actor.to_string();
    let proposal = post.body.proposal(AdjustmentId(Uuid::now_v7()))?;
    let key = proposal.tenant_id.to_string();
    let work = async |claimer: Claimer| {
        app.auth.changes.make(by)?;
        let at = now();
        // The same that its events will say.
        let needed = approvals_needed(proposal.asset, proposal.amount).map_err(ApiError::from)?;
        let line = AdjustmentLine {
            adjustment_id: proposal.adjustment_id.0,
            tenant_id: proposal.tenant_id.0,
            asset: proposal.asset.as_str(),
            amount: proposal.amount.get(),
            reason: proposal.reason.as_str().to_owned(),
            evidence: proposal.evidence.clone(),
            effective_at: rfc3339(proposal.effective_at)?,
            proposed_by: by.0,
            proposed_at: rfc3339(at)?,
            lapses_at: rfc3339(at.plus_seconds(LAPSE_SECONDS))?,
            approvals_needed: needed.into(),
            approvals: Vec::new(),
            status: Status::Open.as_str(),
            ended_at: None,
            rejected_by: None,
            rejection: None,
            grant_id: None,
        };
        let answer = Answer::json(StatusCode::CREATED, &line)?;
        let request = claimer.request(context.metadata(actor), &answer)?;
        let done = adjustments::propose(&app.log, proposal, by, at, request).await?;
        Ok(answer.respond(&done.positions))
    };
    post.attempt.once(&app, &who, &key, work).await
}

/// A decision on an adjustment. Whether it was the last one needed, `GET /api/finance/adjustments/{id}` says.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecisionAnswer {
    /// The adjustment.
    adjustment_id: Uuid,
    /// Whose wallet.
    tenant_id: Uuid,
    /// `approved` or `rejected`.
    decision: &'static str,
    /// By whom.
    by: Uuid,
    /// When, RFC 3339.
    at: String,
}

/// Approve an adjustment of somebody else's. The last approval it needs applies it, in one append.
#[utoipa::path(post, path = "/api/finance/adjustments/{id}/approve", tag = "finance",
    params(("id" = Uuid, Path, description = "the adjustment"),
        ("Idempotency-Key" = Option<String>, Header, description = "repeats are answered with the first answer"),
        ("calos-after" = Option<String>, Header, description = "where the proposal stands")),
    responses((status = 200, body = DecisionAnswer), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn approve(
    State(app): State<App>,
    operator: FinanceOperator,
    context: RequestContext,
    Path(id): Path<Uuid>,
    after: After,
    post: BarePost,
) -> Result<Response, ApiError> {
    let (actor, by, id) = (operator.actor(), operator.user_id(), AdjustmentId(id));
    let who = actor.to_string();
    let tenant_id = owner(&app, id, &after).await?;
    let work = async |claimer: Claimer| {
        app.auth.changes.make(by)?;
        let at = now();
        let (adjustment_id, tenant) = (id.0, tenant_id.0);
        let shown =
            DecisionAnswer { adjustment_id, tenant_id: tenant, decision: "approved", by: by.0, at: rfc3339(at)? };
        let answer = Answer::json(StatusCode::OK, &shown)?;
        let request = claimer.request(context.metadata(actor), &answer)?;
        let done = adjustments::approve(&app.log, tenant_id, id, by, at, request).await?;
        Ok(answer.respond(&done.positions))
    };
    post.attempt.once(&app, &who, &tenant_id.to_string(), work).await
}

/// Why an adjustment is turned down. Unknown fields are refused.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RejectionBody {
    /// In words an auditor can read, 1 to 500 bytes.
    reason: String,
}

/// Turn an adjustment down, or withdraw one's own.
#[utoipa::path(post, path = "/api/finance/adjustments/{id}/reject", tag = "finance", request_body = RejectionBody,
    params(("id" = Uuid, Path, description = "the adjustment"),
        ("Idempotency-Key" = Option<String>, Header, description = "repeats are answered with the first answer"),
        ("calos-after" = Option<String>, Header, description = "where the proposal stands")),
    responses((status = 200, body = DecisionAnswer), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn reject(
    State(app): State<App>,
    operator: FinanceOperator,
    context: RequestContext,
    Path(id): Path<Uuid>,
    after: After,
    post: Post<RejectionBody>,
) -> Result<Response, ApiError> {
    let (actor, by, id) = (operator.actor(), operator.user_id(), AdjustmentId(id));
    let who = actor.to_string();
    let tenant_id = owner(&app, id, &after).await?;
    let reason = post.body.reason;
    let work = async |claimer: Claimer| {
        app.auth.changes.end(by)?;
        let at = now();
        let (adjustment_id, tenant) = (id.0, tenant_id.0);
        let shown =
            DecisionAnswer { adjustment_id, tenant_id: tenant, decision: "rejected", by: by.0, at: rfc3339(at)? };
        let answer = Answer::json(StatusCode::OK, &shown)?;
        let request = claimer.request(context.metadata(actor), &answer)?;
        let done = adjustments::reject(&app.log, (tenant_id, id), by, &reason, at, request).await?;
        Ok(answer.respond(&done.positions))
    };
    post.attempt.once(&app, &who, &tenant_id.to_string(), work).await
}
