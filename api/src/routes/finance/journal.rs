//! The journal, entry by entry, and the event behind each.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use calos_adapters::postgres::reading::{StoredEvent, event_at};
use calos_domain::TenantId;
use calos_domain::ledger_access::LedgerView;
use calos_projections::Projection;
use calos_projections::journal::{self, Cursor, Entry, Journal, JournalFilter};

use super::looks;
use super::span::Stretch;
use crate::auth::FinanceReader;
use crate::error::ApiError;
use crate::moment::rfc3339;
use crate::openapi::ErrorBody;
use crate::paging;
use crate::position::After;
use crate::request::{Path, Query, RequestContext};
use crate::wiring::App;

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JournalQuery {
    /// Only this tenant's.
    tenant: Option<Uuid>,
    /// Only what was recorded from this moment (RFC 3339) or day on.
    from: Option<String>,
    /// Only what was recorded up to and with this moment or day.
    to: Option<String>,
    /// Lines on the page, 1 to 200; 50 when left out.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// A posting.
#[derive(Serialize, ToSchema)]
pub struct PostingLine {
    /// The account's full name.
    account: String,
    /// Positive for a debit, negative for a credit, in the smallest unit of the entry's asset.
    amount: i64,
}

/// An entry: what one event means in one asset.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EntryLine {
    /// The partition of the event behind it.
    partition: i32,
    /// The position of the event behind it.
    position: i64,
    /// Whose wallet or payment it is about; null for entries about nobody in particular.
    tenant_id: Option<Uuid>,
    /// When the log took it, RFC 3339.
    recorded_at: String,
    /// When it counts from, RFC 3339.
    effective_at: String,
    /// The event.
    r#type: String,
    /// `USD` or `CREDIT`.
    asset: &'static str,
    /// The sum of its debits.
    amount: i64,
    /// What is posted where; it sums to 0.
    postings: Vec<PostingLine>,
    /// The use behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_id: Option<Uuid>,
    /// Where it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    source_ref: Option<String>,
}

/// A page of the journal, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JournalPageAnswer {
    /// The entries.
    entries: Vec<EntryLine>,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

/// The journal, newest first.
#[utoipa::path(get, path = "/api/finance/journal", tag = "finance",
    params(JournalQuery, ("calos-after" = Option<String>, Header, description = "positions this read must have seen")),
    responses((status = 200, body = JournalPageAnswer), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn list(
    State(app): State<App>,
    reader: FinanceReader,
    context: RequestContext,
    after: After,
    Query(query): Query<JournalQuery>,
) -> Result<Json<JournalPageAnswer>, ApiError> {
    let limit = paging::limit(query.limit)?;
    let cursor = paging::cursor::<Cursor>(query.cursor.as_deref())?;
    let Stretch { from, to } = Stretch::of(query.from.as_deref(), query.to.as_deref())?;
    let tenant = query.tenant.map(TenantId);
    looks::record(&app, &reader, &context, tenant, LedgerView::Journal).await?;
    after.wait(&app, Journal::NAME).await?;
    let page = journal::page(&app.pool, JournalFilter { tenant, from, to }, cursor, limit).await?;
    let entries = page.rows.into_iter().map(EntryLine::new).collect::<Result<_, _>>()?;
    Ok(Json(JournalPageAnswer { entries, next_cursor: page.next.map(|next| next.to_string()) }))
}

impl EntryLine {
    fn new(entry: Entry) -> Result<Self, ApiError> {
        let postings = entry.postings.into_iter().map(|posting| {
            let amount = i64::try_from(posting.amount).map_err(ApiError::internal)?;
            Ok(PostingLine { account: posting.account.to_string(), amount })
        });
        Ok(Self {
            partition: entry.partition,
            position: entry.position,
            tenant_id: entry.tenant_id.map(|tenant| tenant.0),
            recorded_at: rfc3339(entry.recorded_at)?,
            effective_at: rfc3339(entry.effective_at)?,
            r#type: entry.event_type,
            asset: entry.asset.as_str(),
            amount: entry.amount,
            postings: postings.collect::<Result<_, ApiError>>()?,
            usage_id: entry.usage_id,
            source_ref: entry.source_ref,
        })
    }
}

/// An event as it stands in the log.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventLine {
    /// The partition.
    partition: i32,
    /// The position.
    position: i64,
    /// What kind of aggregate it happened to.
    aggregate_type: String,
    /// Which one.
    aggregate_id: String,
    /// Its place in its stream, counted from 1.
    sequence: i64,
    /// The event's name.
    r#type: String,
    /// Its version.
    version: String,
    /// When the log took it, RFC 3339.
    recorded_at: String,
    /// What happened.
    #[schema(value_type = Object)]
    payload: Value,
    /// Who did it and why.
    #[schema(value_type = Object)]
    metadata: Value,
    /// The hash of the chain up to and with it, hexadecimal.
    hash: String,
}

impl EventLine {
    fn new(event: StoredEvent) -> Result<Self, ApiError> {
        Ok(Self {
            partition: event.partition,
            position: event.position,
            aggregate_type: event.aggregate_type,
            aggregate_id: event.aggregate_id,
            sequence: event.sequence,
            r#type: event.event_type,
            version: event.event_version,
            recorded_at: rfc3339(event.recorded_at)?,
            payload: event.payload,
            metadata: event.metadata,
            hash: hex::encode(event.hash),
        })
    }
}

/// What an event means for the book, and the event.
#[derive(Serialize, ToSchema)]
pub struct EntryAnswer {
    /// One entry per asset.
    entries: Vec<EntryLine>,
    /// The event behind them.
    event: EventLine,
}

/// One event's entries, and the event.
#[utoipa::path(get, path = "/api/finance/journal/{partition}/{position}", tag = "finance",
    params(("partition" = i32, Path, description = "the event's partition"),
        ("position" = i64, Path, description = "its position there"),
        ("calos-after" = Option<String>, Header, description = "positions this read must have seen")),
    responses((status = 200, body = EntryAnswer), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn one(
    State(app): State<App>,
    reader: FinanceReader,
    context: RequestContext,
    Path((partition, position)): Path<(i32, i64)>,
    after: After,
) -> Result<Json<EntryAnswer>, ApiError> {
    after.wait(&app, Journal::NAME).await?;
    let entries = journal::entry(&app.pool, partition, position).await?;
    let first = entries.first().ok_or_else(|| ApiError::not_found("entry"))?;
    if let Some(tenant) = first.tenant_id {
        looks::record(&app, &reader, &context, Some(tenant), LedgerView::Journal).await?;
    }
    let event = event_at(&app.pool, partition, position).await?.ok_or_else(|| ApiError::not_found("entry"))?;
    let entries = entries.into_iter().map(EntryLine::new).collect::<Result<_, _>>()?;
    Ok(Json(EntryAnswer { entries, event: EventLine::new(event)? }))
}
