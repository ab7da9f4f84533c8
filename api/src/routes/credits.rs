//! What a tenant has, what moved it, and what it was used for: now, by month, and with a receipt. For a session or a
//! tenant key.

pub mod balance;
pub mod receipts;
pub mod statement;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use calos_domain::{MicroUsd, TenantId};
use calos_projections::Projection;
use calos_projections::usage_log::{self, UsageLog};
use calos_projections::wallet_ledger::{self, WalletLedger};

use crate::auth::TenantCaller;
use crate::error::ApiError;
use crate::moment::rfc3339;
use crate::openapi::ErrorBody;
use crate::paging::PageQuery;
use crate::position::After;
use crate::request::Query;
use crate::wiring::App;

/// The endpoints.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(balance::balance))
        .routes(routes!(ledger))
        .routes(routes!(usage))
        .routes(routes!(statement::statement))
        .routes(routes!(receipts::receipt))
}

/// One movement of the wallet.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerLine {
    /// The partition of the event behind it.
    partition: i32,
    /// The position of the event behind it.
    position: i64,
    /// When the log took it, RFC 3339.
    recorded_at: String,
    /// When it counts from, RFC 3339.
    effective_at: String,
    /// The event: `credits_granted`, `credits_deducted`, ….
    r#type: String,
    /// `USD` or `CREDIT`.
    asset: String,
    /// What it added, or took when negative: micro-dollars for `USD`, whole credits for `CREDIT`.
    amount: i64,
    /// The available balance afterwards; null where the balance was not moved.
    balance_after: Option<i64>,
    /// The use it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_id: Option<Uuid>,
    /// Why: a grant's kind, a debt's cause, the words of a reversal.
    reason: String,
}

/// A page of the ledger, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerPage {
    /// The lines.
    entries: Vec<LedgerLine>,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

/// What moved the tenant's wallet, newest first.
#[utoipa::path(get, path = "/api/credits/ledger", tag = "credits",
    params(PageQuery, ("calos-after" = Option<String>, Header, description = "positions this read must have seen")),
    responses((status = 200, body = LedgerPage), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 503, body = ErrorBody)),
    security(("session" = []), ("tenantKey" = [])))]
async fn ledger(
    State(app): State<App>,
    caller: TenantCaller,
    after: After,
    Query(query): Query<PageQuery>,
) -> Result<Json<LedgerPage>, ApiError> {
    let (limit, before) = query.by_place()?;
    after.wait(&app, WalletLedger::NAME).await?;
    ledger_page(&app, caller.tenant_id(), before, limit).await.map(Json)
}

/// A page of a tenant's ledger, for whoever may see it.
///
/// # Errors
/// The database's.
pub async fn ledger_page(
    app: &App,
    tenant: TenantId,
    before: Option<i64>,
    limit: usize,
) -> Result<LedgerPage, ApiError> {
    let page = wallet_ledger::page(&app.pool, tenant, before, limit).await?;
    let lines = page.rows.into_iter().map(|line| {
        Ok(LedgerLine {
            partition: line.partition,
            position: line.position,
            recorded_at: rfc3339(line.recorded_at)?,
            effective_at: rfc3339(line.effective_at)?,
            r#type: line.event,
            asset: line.asset,
            amount: line.amount,
            balance_after: line.balance_after,
            usage_id: line.usage_id,
            reason: line.reason,
        })
    });
    let entries = lines.collect::<Result<Vec<_>, ApiError>>()?;
    Ok(LedgerPage { entries, next_cursor: page.next.map(|position| position.to_string()) })
}

/// One metered use.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageLine {
    /// The use.
    usage_id: Uuid,
    /// When it was recorded, RFC 3339.
    at: String,
    /// Who served it.
    provider: String,
    /// The model that answered.
    model: String,
    /// Tokens in.
    prompt_tokens: i64,
    /// Tokens out.
    completion_tokens: i64,
    /// What the provider charges.
    provider_cost_micros: i64,
    /// What CALOS adds.
    markup_micros: i64,
    /// What was charged.
    total_micros: i64,
    /// What was charged, in cents, rounded half up.
    cost_cents: i64,
    /// Whether the tenant's own provider key was used.
    byok: bool,
    /// From admission to the last byte.
    latency_ms: i64,
    /// The task the router was asked for.
    task_type: String,
}

/// A page of uses, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsagePage {
    /// The uses.
    usage: Vec<UsageLine>,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

/// What the tenant's credit was used for, newest first.
#[utoipa::path(get, path = "/api/credits/usage", tag = "credits",
    params(PageQuery, ("calos-after" = Option<String>, Header, description = "positions this read must have seen")),
    responses((status = 200, body = UsagePage), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 503, body = ErrorBody)),
    security(("session" = []), ("tenantKey" = [])))]
async fn usage(
    State(app): State<App>,
    caller: TenantCaller,
    after: After,
    Query(query): Query<PageQuery>,
) -> Result<Json<UsagePage>, ApiError> {
    let (limit, before) = query.by_place()?;
    after.wait(&app, UsageLog::NAME).await?;
    let page = usage_log::page(&app.pool, caller.tenant_id(), before, limit).await?;
    let lines = page.rows.into_iter().map(|line| {
        Ok(UsageLine {
            usage_id: line.usage_id,
            at: rfc3339(line.at)?,
            provider: line.provider,
            model: line.model,
            prompt_tokens: line.prompt_tokens,
            completion_tokens: line.completion_tokens,
            provider_cost_micros: line.provider_cost,
            markup_micros: line.markup,
            total_micros: line.total,
            cost_cents: MicroUsd::new(line.total).cents_half_up(),
            byok: line.byok,
            latency_ms: line.latency_ms,
            task_type: line.task_type,
        })
    });
    let usage = lines.collect::<Result<Vec<_>, ApiError>>()?;
    Ok(Json(UsagePage { usage, next_cursor: page.next.map(|position| position.to_string()) }))
}
