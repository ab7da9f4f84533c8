//! A tenant's statement of a month: for programs (JSON, in pages), for spreadsheets (CSV, whole) and for the printer (HTML).
//!
//! A statement is as known at one moment, and all its figures are: the balances from the as-of sums and the movements
//! between them have to agree, or nothing is handed out.

mod csv;
mod cursor;
mod html;
mod shapes;
mod sheet;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::IntoParams;

use calos_domain::period::Month;
use calos_domain::{Asset, TenantId, Timestamp};
use calos_projections::Projection;
use calos_projections::as_of::{self, AsOf, WalletAt};
use calos_projections::journal::Journal;
use calos_projections::statement::{self, Behind, Movement, Span};
use calos_projections::wallet_days::WalletDays;
use calos_projections::wallet_ledger::WalletLedger;

use crate::auth::TenantCaller;
use crate::calendar;
use crate::error::{ApiError, Code};
use crate::ledger::{Cut, closing_before, closing_of, closings, tenant_name};
use crate::openapi::ErrorBody;
use crate::paging;
use crate::position::After;
use crate::request::{Query, now};
use crate::wiring::App;

use cursor::Cursor;
pub use shapes::StatementAnswer;
use sheet::{Head, Running, Section};

/// Movements on a JSON page when nothing else is asked for.
const PAGE_DEFAULT_ROWS: usize = 100;

/// The most movements on a JSON page.
const PAGE_MAX_ROWS: usize = 500;

/// The most movements on a printable page: some hundred sheets of paper.
const HTML_MAX_ROWS: usize = 5_000;

/// How long a CSV may take to be fetched.
const CSV_MAX_SECONDS: u64 = 600;

/// CSVs that are fetched at a time.
const CSV_MAX_STREAMS: usize = 8;

static CSV_STREAMS: std::sync::LazyLock<Arc<Semaphore>> =
    std::sync::LazyLock::new(|| Arc::new(Semaphore::new(CSV_MAX_STREAMS)));

/// Which statement, and how.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StatementQuery {
    /// The month, such as `2026-10`; the current one (UTC) when left out.
    month: Option<String>,
    /// `json` (the default), `csv` or `html`.
    format: Option<String>,
    /// Movements on the page: 1 to 500 as JSON, 100 when left out; 1 to 5,000 as HTML, 5,000 when left out. A CSV is
    /// always whole.
    limit: Option<usize>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    Json,
    Csv,
    Html,
}

/// A question that was found to be one.
struct Asked {
    month: Month,
    format: Format,
    limit: usize,
}

impl StatementQuery {
    /// Whether it is a question at all.
    ///
    /// # Errors
    /// 400 `invalid_field`, naming what is wrong.
    pub fn check(&self) -> Result<(), ApiError> {
        self.checked(now()).map(drop)
    }

    fn checked(&self, now: Timestamp) -> Result<Asked, ApiError> {
        let month = match &self.month {
            Some(text) => calendar::month("month", text)?,
            None => Month::of(now).map_err(ApiError::internal)?,
        };
        if month.starts_at() > now {
            return Err(ApiError::field("month", format!("{month} has not begun")));
        }
        let format = match self.format.as_deref() {
            None | Some("json") => Format::Json,
            Some("csv") => Format::Csv,
            Some("html") => Format::Html,
            Some(_) => return Err(ApiError::field("format", "must be json, csv or html")),
        };
        let (default, max) = match format {
            Format::Json => (PAGE_DEFAULT_ROWS, PAGE_MAX_ROWS),
            Format::Html => (HTML_MAX_ROWS, HTML_MAX_ROWS),
            Format::Csv if self.limit.is_some() => return Err(ApiError::field("limit", "a CSV is always whole")),
            Format::Csv if self.cursor.is_some() => return Err(ApiError::field("cursor", "a CSV is always whole")),
            Format::Csv => (PAGE_MAX_ROWS, PAGE_MAX_ROWS),
        };
        let limit = paging::limit_of(self.limit, default, max)?;
        Ok(Asked { month, format, limit })
    }
}

/// A month's statement: what the wallet began with, every movement, what it ended with. As JSON in pages; as CSV whole;
/// as an HTML page to print.
#[utoipa::path(get, path = "/api/credits/statement", tag = "credits",
    params(StatementQuery, ("calos-after" = Option<String>, Header, description = "positions this read must have seen")),
    responses((status = 200, body = StatementAnswer, description = "as JSON, CSV or HTML"),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("tenantKey" = [])))]
pub async fn statement(
    State(app): State<App>,
    caller: TenantCaller,
    after: After,
    Query(query): Query<StatementQuery>,
) -> Result<Response, ApiError> {
    after.wait(&app, Journal::NAME).await?;
    answer(&app, caller.tenant_id(), &query).await
}

/// The statement of any tenant, for whoever may see it.
///
/// # Errors
/// 400 for a question that is none, 404 for an unknown tenant, 503 while the read models are behind.
pub async fn answer(app: &App, tenant: TenantId, query: &StatementQuery) -> Result<Response, ApiError> {
    let asked = query.checked(now())?;
    let cursor = match &query.cursor {
        Some(text) => Some(Cursor::read(text, &app.secrets, tenant, asked.month)?),
        None => None,
    };
    let sheet = Sheet::open(app, tenant, asked.month, cursor.map(|cursor| cursor.known_at)).await?;
    match asked.format {
        Format::Csv => sheet.csv(),
        Format::Json => sheet.page(cursor, asked.limit).await?.json(),
        Format::Html => sheet.page(cursor, asked.limit).await?.html(),
    }
}

/// A statement whose frame is known, and whose movements can be read.
struct Sheet {
    app: App,
    head: Head,
    span: Span,
}

impl Sheet {
    /// Fixes the moment it is known at, and looks up the balances around the month.
    async fn open(app: &App, tenant: TenantId, month: Month, known_at: Option<Timestamp>) -> Result<Self, ApiError> {
        let name = tenant_name(app, tenant).await?;
        let cut = Cut::of(app, tenant).await?;
        cut.seen_by(app, &[Journal::NAME, WalletDays::NAME, WalletLedger::NAME]).await?;
        let closings = closings(app).await?;
        let cut_at = known_at.unwrap_or(cut.known_at);
        let fixed = closing_of(&closings, month).map(|closed| closed.as_known_at);
        let fixed_before = closing_before(&closings, month).map(|closed| closed.as_known_at);
        let known_at = fixed.map_or(cut_at, |fixed| fixed.min(cut_at));
        let before = AsOf {
            effective: Some(Timestamp::from_micros(month.starts_at().micros() - 1)),
            recorded: Some(fixed_before.map_or(known_at, |fixed| fixed.min(known_at))),
        };
        let after = AsOf { effective: Some(month.last_moment()), recorded: Some(known_at) };
        let opening = as_of::wallet(&app.pool, tenant, before).await?;
        let closing = as_of::wallet(&app.pool, tenant, after).await?;
        let head = Head {
            tenant_id: tenant,
            name: Some(name),
            month,
            as_known_at: known_at,
            closed_at: closing_of(&closings, month).map(|closed| closed.closed_at),
            sections: Asset::ALL.map(|asset| section(asset, &opening, &closing)),
        };
        let span = Span {
            tenant,
            first: month.starts_at(),
            last: month.last_moment(),
            late_after: fixed_before.filter(|before| fixed != Some(*before)),
            known_at,
        };
        Ok(Self { app: app.clone(), head, span })
    }

    /// Movements behind a place, and whether there are more.
    async fn read(&self, behind: Option<Behind>, limit: usize) -> Result<(Vec<Movement>, Option<Behind>), ApiError> {
        let mut lines = Vec::with_capacity(limit.min(PAGE_MAX_ROWS));
        let mut behind = behind;
        loop {
            let wanted = (limit - lines.len()).min(PAGE_MAX_ROWS);
            let page = statement::movements(&self.app.pool, &self.span, behind, wanted).await?;
            lines.extend(page.rows);
            behind = page.next;
            if behind.is_none() || lines.len() >= limit {
                return Ok((lines, behind));
            }
        }
    }

    async fn page(self, cursor: Option<Cursor>, limit: usize) -> Result<Page, ApiError> {
        let before = cursor.map_or_else(|| self.head.opening(), |cursor| cursor.running);
        let (lines, next) = self.read(cursor.map(|cursor| cursor.behind), limit).await?;
        let mut running = before;
        for line in &lines {
            running.take(line);
        }
        if next.is_none() {
            agree(&self.head, &running)?;
        }
        let next = next.map(|behind| {
            let cursor = Cursor { behind, known_at: self.head.as_known_at, running };
            cursor.write(&self.app.secrets, self.head.tenant_id, self.head.month)
        });
        Ok(Page { head: self.head, before, lines, next })
    }

    /// The whole statement as CSV, sent while it is read.
    fn csv(self) -> Result<Response, ApiError> {
        let permit = Arc::clone(&CSV_STREAMS).try_acquire_owned().map_err(|_| {
            ApiError::new(Code::Overloaded, "too many statements are being fetched; try again in a moment")
        })?;
        let name = format!("attachment; filename=\"calos-statement-{}.csv\"", self.head.month);
        let begun = csv::opening(&self.head)?;
        let running = self.head.opening();
        let deadline = Instant::now() + Duration::from_secs(CSV_MAX_SECONDS);
        let reading = Reading { sheet: self, running, behind: None, deadline, first: Some(begun), _permit: permit };
        let body = Body::from_stream(stream::try_unfold(Some(reading), |reading| async move {
            let Some(reading) = reading else { return Ok(None) };
            reading.next().await.map(Some).inspect_err(|error| {
                // The answer has begun, so all that can be done is to break it off: nobody takes it for a whole one.
                tracing::error!(%error, "a statement broke off");
            })
        }));
        let disposition = HeaderValue::from_str(&name).map_err(ApiError::internal)?;
        Ok(private(
            [
                (header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8; header=present")),
                (header::CONTENT_DISPOSITION, disposition),
            ],
            body,
        ))
    }
}

/// A CSV on its way.
struct Reading {
    sheet: Sheet,
    running: Running,
    behind: Option<Behind>,
    deadline: Instant,
    first: Option<String>,
    _permit: OwnedSemaphorePermit,
}

impl Reading {
    async fn next(mut self) -> Result<(Bytes, Option<Self>), ApiError> {
        if Instant::now() > self.deadline {
            return Err(ApiError::internal(format_args!("not fetched within {CSV_MAX_SECONDS} s")));
        }
        if self.sheet.app.stopping.is_cancelled() {
            return Err(ApiError::new(Code::ShuttingDown, "the server is stopping; fetch the statement again"));
        }
        let mut text = self.first.take().unwrap_or_default();
        let (lines, next) = self.sheet.read(self.behind, PAGE_MAX_ROWS).await?;
        for line in &lines {
            csv::movement(&mut text, &self.sheet.head, line, &mut self.running)?;
        }
        if next.is_some() {
            self.behind = next;
            return Ok((text.into(), Some(self)));
        }
        agree(&self.sheet.head, &self.running)?;
        text.push_str(&csv::closing(&self.sheet.head, &self.running)?);
        Ok((text.into(), None))
    }
}

/// A page of a statement.
struct Page {
    head: Head,
    before: Running,
    lines: Vec<Movement>,
    next: Option<String>,
}

impl Page {
    fn json(self) -> Result<Response, ApiError> {
        let answer = StatementAnswer::new(&self.head, self.before, self.lines, self.next)?;
        Ok(axum::Json(answer).into_response())
    }

    fn html(self) -> Result<Response, ApiError> {
        let text = html::page(&self.head, self.before, &self.lines, self.next.as_deref())?;
        let policy = HeaderValue::from_str(&html::CONTENT_SECURITY_POLICY).map_err(ApiError::internal)?;
        Ok(private(
            [
                (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
                (header::CONTENT_SECURITY_POLICY, policy),
            ],
            Body::from(text),
        ))
    }
}

/// An answer that nobody between here and the reader keeps, and no browser takes for something else.
fn private(headers: [(HeaderName, HeaderValue); 2], body: Body) -> Response {
    let mut response = body.into_response();
    response.headers_mut().extend(headers);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The movements lead from the one balance to the other, or the figures are not one story.
fn agree(head: &Head, running: &Running) -> Result<(), ApiError> {
    let closing = head.closing();
    if *running == closing {
        return Ok(());
    }
    let message = "the ledger moved while it was read; nothing was handed out, try again";
    let cause = format!("the movements of {} lead to {running:?}, the sums say {closing:?}", head.month);
    Err(ApiError::new(Code::Contended, message).because(cause))
}

fn section(asset: Asset, opening: &[WalletAt], closing: &[WalletAt]) -> Section {
    let of = |all: &[WalletAt]| all.iter().find(|wallet| wallet.asset == asset).copied();
    let balance = |wallet: &WalletAt| wallet.available.saturating_add(wallet.held);
    let (before, after) = (of(opening), of(closing));
    Section {
        asset,
        opening: before.as_ref().map_or(0, balance),
        closing: after.as_ref().map_or(0, balance),
        held: after.map_or(0, |wallet| wallet.held),
        debt_opening: before.map_or(0, |wallet| wallet.debt),
        debt_closing: after.map_or(0, |wallet| wallet.debt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The middle of October 2026.
    const NOW: Timestamp = Timestamp::from_micros(1_792_000_000_000_000);

    fn query(month: Option<&str>, format: Option<&str>, limit: Option<usize>, cursor: Option<&str>) -> StatementQuery {
        let own = |text: Option<&str>| text.map(str::to_owned);
        StatementQuery { month: own(month), format: own(format), limit, cursor: own(cursor) }
    }

    #[test]
    fn a_question_has_its_defaults() {
        let asked = query(None, None, None, None).checked(NOW).ok().unwrap();
        assert_eq!((asked.month.to_string().as_str(), asked.format, asked.limit), ("2026-10", Format::Json, 100));
        let asked = query(Some("2026-09"), Some("html"), None, None).checked(NOW).ok().unwrap();
        assert_eq!((asked.month.to_string().as_str(), asked.format, asked.limit), ("2026-09", Format::Html, 5_000));
    }

    #[test]
    fn what_cannot_be_asked_is_refused_by_its_name() {
        for (wrong, name) in [
            (query(Some("2026-11"), None, None, None), "month"),
            (query(Some("2026"), None, None, None), "month"),
            (query(None, Some("pdf"), None, None), "format"),
            (query(None, Some("JSON"), None, None), "format"),
            (query(None, None, Some(0), None), "limit"),
            (query(None, None, Some(501), None), "limit"),
            (query(None, Some("html"), Some(5_001), None), "limit"),
            (query(None, Some("csv"), Some(5), None), "limit"),
            (query(None, Some("csv"), None, Some("x")), "cursor"),
        ] {
            let refused = wrong.checked(NOW).err().unwrap();
            assert!(refused.message().starts_with(&format!("{name}: ")), "{}", refused.message());
            assert_eq!(refused.status().as_u16(), 400);
        }
    }

    #[test]
    fn figures_that_do_not_lead_to_each_other_are_not_handed_out() {
        let head = sheet::samples::head();
        let mut running = head.opening();
        for line in sheet::samples::lines() {
            running.take(&line);
        }
        assert!(agree(&head, &running).is_ok());
        running.balance[0] += 1;
        assert_eq!(agree(&head, &running).unwrap_err().status().as_u16(), 503);
    }
}
