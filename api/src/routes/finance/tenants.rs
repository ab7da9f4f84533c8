//! One tenant's ledger, for the staff. Every look at it is recorded, and who looked can be looked up.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use calos_adapters::postgres::reading::{StoredEvent, last_of_stream};
use calos_commands::ledger_access::{access_stream, access_to_all_stream};
use calos_domain::ledger_access::{LedgerAccess, LedgerAccessEvent, LedgerView};
use calos_domain::upcast::{Label, decode_value};
use calos_domain::{Decider, StreamId, TenantId};
use calos_projections::Projection;
use calos_projections::journal::Journal;
use calos_projections::wallet_ledger::WalletLedger;

use super::looks;
use crate::auth::FinanceReader;
use crate::error::ApiError;
use crate::idempotency::Answer;
use crate::ledger::tenant_name;
use crate::moment::rfc3339;
use crate::openapi::ErrorBody;
use crate::paging::{self, PageQuery};
use crate::position::After;
use crate::request::{Path, Query, RequestContext};
use crate::routes::credits::balance::{Balance, BalanceQuery};
use crate::routes::credits::statement::{StatementAnswer, StatementQuery};
use crate::routes::credits::{LedgerPage, balance as balances, ledger_page, receipts, statement as statements};
use crate::wiring::App;

/// What a tenant has, now or as of a date.
#[utoipa::path(get, path = "/api/finance/tenants/{id}/balance", tag = "finance",
    params(("id" = Uuid, Path, description = "the tenant"), BalanceQuery,
        ("calos-after" = Option<String>, Header, description = "positions this read must have seen")),
    responses((status = 200, body = Balance), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn balance(
    State(app): State<App>,
    reader: FinanceReader,
    context: RequestContext,
    Path(id): Path<Uuid>,
    after: After,
    Query(query): Query<BalanceQuery>,
) -> Result<Response, ApiError> {
    let tenant = TenantId(id);
    let at = query.checked()?;
    let positions = looks::record(&app, &reader, &context, Some(tenant), LedgerView::Balance).await?;
    Ok(Answer::json(StatusCode::OK, &balances::of(&app, tenant, at, &after).await?)?.respond(&positions))
}

/// What moved a tenant's wallet, newest first.
#[utoipa::path(get, path = "/api/finance/tenants/{id}/ledger", tag = "finance",
    params(("id" = Uuid, Path, description = "the tenant"), PageQuery,
        ("calos-after" = Option<String>, Header, description = "positions this read must have seen")),
    responses((status = 200, body = LedgerPage), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn ledger(
    State(app): State<App>,
    reader: FinanceReader,
    context: RequestContext,
    Path(id): Path<Uuid>,
    after: After,
    Query(query): Query<PageQuery>,
) -> Result<Response, ApiError> {
    let (limit, before) = query.by_place()?;
    let tenant = TenantId(id);
    let positions = looks::record(&app, &reader, &context, Some(tenant), LedgerView::Ledger).await?;
    after.wait(&app, WalletLedger::NAME).await?;
    Ok(Answer::json(StatusCode::OK, &ledger_page(&app, tenant, before, limit).await?)?.respond(&positions))
}

/// A tenant's statement of a month, as the tenant sees it.
#[utoipa::path(get, path = "/api/finance/tenants/{id}/statement", tag = "finance",
    params(("id" = Uuid, Path, description = "the tenant"), StatementQuery,
        ("calos-after" = Option<String>, Header, description = "positions this read must have seen")),
    responses((status = 200, body = StatementAnswer, description = "as JSON, CSV or HTML"),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn statement(
    State(app): State<App>,
    reader: FinanceReader,
    context: RequestContext,
    Path(id): Path<Uuid>,
    after: After,
    Query(query): Query<StatementQuery>,
) -> Result<Response, ApiError> {
    let tenant = TenantId(id);
    query.check()?;
    looks::record(&app, &reader, &context, Some(tenant), LedgerView::Statement).await?;
    after.wait(&app, Journal::NAME).await?;
    statements::answer(&app, tenant, &query).await
}

/// A signed receipt for one of a tenant's entries.
#[utoipa::path(get, path = "/api/finance/tenants/{id}/receipts/{partition}/{position}", tag = "finance",
    params(("id" = Uuid, Path, description = "the tenant"),
        ("partition" = i32, Path, description = "the event's partition"),
        ("position" = i64, Path, description = "its position there")),
    responses((status = 200, body = receipts::ReceiptAnswer), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn receipt(
    State(app): State<App>,
    reader: FinanceReader,
    context: RequestContext,
    Path((id, partition, position)): Path<(Uuid, i32, i64)>,
) -> Result<Response, ApiError> {
    let tenant = TenantId(id);
    let positions = looks::record(&app, &reader, &context, Some(tenant), LedgerView::Receipt).await?;
    let receipt = receipts::of(&app, tenant, partition, position).await?;
    Ok(Answer::json(StatusCode::OK, &receipt)?.respond(&positions))
}

/// A look of the staff at a tenant's ledger.
#[derive(Serialize, ToSchema)]
pub struct LookLine {
    /// Who looked.
    by: Uuid,
    /// At what: `balance`, `ledger`, `statement`, `journal`, `receipt` or `export`.
    what: &'static str,
    /// When, RFC 3339.
    at: String,
    /// `tenant` for a look at this tenant's ledger, `all` for one at everybody's.
    scope: &'static str,
}

/// Looks of the staff, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessAnswer {
    /// The looks.
    looks: Vec<LookLine>,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

/// Who of the staff looked at a tenant's ledger, newest first. This is read from the log itself; asking is no look.
#[utoipa::path(get, path = "/api/finance/tenants/{id}/access", tag = "finance",
    params(("id" = Uuid, Path, description = "the tenant"), PageQuery),
    responses((status = 200, body = AccessAnswer), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn access(
    State(app): State<App>,
    _reader: FinanceReader,
    Path(id): Path<Uuid>,
    Query(query): Query<PageQuery>,
) -> Result<Json<AccessAnswer>, ApiError> {
    let limit = paging::limit(query.limit)?;
    let place = query.cursor.as_deref().map(Place::read).transpose()?.unwrap_or_default();
    let tenant = TenantId(id);
    tenant_name(&app, tenant).await?;
    let own = read(&app, &access_stream(tenant), place.own, limit, "tenant").await?;
    let all = read(&app, &access_to_all_stream(), place.all, limit, "all").await?;
    let more = own.len() + all.len() > limit;
    let mut looks: Vec<Look> = own.into_iter().chain(all).collect();
    looks.sort_by_key(|look| std::cmp::Reverse((look.event.recorded_at, look.event.sequence)));
    looks.truncate(limit);
    let place = looks.iter().fold(place, |place, look| place.behind(look));
    let shown = looks.iter().map(LookLine::new).collect::<Result<_, _>>()?;
    Ok(Json(AccessAnswer { looks: shown, next_cursor: more.then(|| place.write()) }))
}

/// A look as it stands in the log, and at how much.
struct Look {
    event: StoredEvent,
    scope: &'static str,
}

async fn read(
    app: &App,
    stream: &StreamId,
    before: Option<i64>,
    limit: usize,
    scope: &'static str,
) -> Result<Vec<Look>, ApiError> {
    // One more than fits says that there is another page.
    let rows = i64::try_from(limit).map_err(ApiError::internal)? + 1;
    let events = last_of_stream(&app.pool, LedgerAccess::KIND, &stream.to_string(), before, rows).await?;
    Ok(events.into_iter().map(|event| Look { event, scope }).collect())
}

impl LookLine {
    fn new(look: &Look) -> Result<Self, ApiError> {
        let StoredEvent { aggregate_type, event_type, event_version, payload, .. } = &look.event;
        let label = Label { aggregate_type, event_type, event_version };
        let event: LedgerAccessEvent = decode_value(label, payload.clone()).map_err(ApiError::internal)?;
        let LedgerAccessEvent::LedgerViewed(viewed) = event;
        let at = rfc3339(viewed.at)?;
        Ok(Self { by: viewed.by.0, what: viewed.what.as_str(), at, scope: look.scope })
    }
}

/// How far a reader has come in both streams: the sequences of the last looks shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Place {
    own: Option<i64>,
    all: Option<i64>,
}

impl Place {
    fn behind(mut self, look: &Look) -> Self {
        let last = if look.scope == "tenant" { &mut self.own } else { &mut self.all };
        *last = Some(look.event.sequence);
        self
    }

    fn write(self) -> String {
        let part = |sequence: Option<i64>| sequence.map_or_else(|| "-".to_owned(), |sequence| sequence.to_string());
        format!("{}.{}", part(self.own), part(self.all))
    }

    fn read(text: &str) -> Result<Self, ApiError> {
        let part = |text: &str| match text {
            "-" => Ok(None),
            number => paging::place(number).map(Some),
        };
        let (own, all) = text.split_once('.').ok_or_else(paging::no_cursor)?;
        Ok(Self { own: part(own)?, all: part(all)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        for place in [Place { own: Some(7), all: None }, Place { own: None, all: Some(1) }, Place::default()] {
            assert_eq!(Place::read(&place.write()).unwrap(), place);
        }
        for text in ["", ".", "7", "-.x", "0.-", "-1.-", "7.7.7"] {
            assert!(Place::read(text).is_err(), "{text}");
        }
    }
}
