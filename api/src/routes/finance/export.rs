//! The journal as a file, sent while it is read from the log.

use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use tokio::sync::Semaphore;
use utoipa::IntoParams;
use uuid::Uuid;

use calos_domain::TenantId;
use calos_domain::ledger_access::LedgerView;
use calos_replay::ToolError;
use calos_replay::export::{Format, Holds, JournalExport, journal};
use calos_replay::progress::Show;

use super::looks;
use super::span::Stretch;
use crate::auth::FinanceReader;
use crate::error::{ApiError, Code};
use crate::openapi::ErrorBody;
use crate::request::{Query, RequestContext};
use crate::wiring::App;

/// Exports on their way at a time: each reads the log over connections of its own.
const EXPORTS_MAX: usize = 2;

static EXPORTS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(EXPORTS_MAX)));

/// What is exported, and how.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// `csv` (the default), `parquet`, `hledger` or `jsonl`.
    format: Option<String>,
    /// Only this tenant's entries.
    tenant: Option<Uuid>,
    /// Only what takes effect from this moment (RFC 3339) or day on.
    from: Option<String>,
    /// Only what takes effect up to and with this moment or day.
    to: Option<String>,
    /// `each` (the default): one account per hold; `together`: one per tenant.
    holds: Option<String>,
}

impl ExportQuery {
    fn checked(&self) -> Result<JournalExport, ApiError> {
        let format = match self.format.as_deref() {
            None | Some("csv") => Format::Csv,
            Some("parquet") => Format::Parquet,
            Some("hledger") => Format::Hledger,
            Some("jsonl") => Format::Jsonl,
            Some(_) => return Err(ApiError::field("format", "must be csv, parquet, hledger or jsonl")),
        };
        let holds = match self.holds.as_deref() {
            None | Some("each") => Holds::Each,
            Some("together") => Holds::Together,
            Some(_) => return Err(ApiError::field("holds", "must be each or together")),
        };
        let Stretch { from, to } = Stretch::of(self.from.as_deref(), self.to.as_deref())?;
        Ok(JournalExport { format, tenant: self.tenant.map(TenantId), from, to, holds })
    }
}

/// The journal as a file: CSV, Parquet, hledger's journal or JSON lines, of everything that is in the log now. Each format
/// says at its end that it is whole; an export that fails is broken off.
#[utoipa::path(get, path = "/api/finance/export", tag = "finance", params(ExportQuery),
    responses((status = 200, description = "the file", content_type = "text/csv"), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn export(
    State(app): State<App>,
    reader: FinanceReader,
    context: RequestContext,
    Query(query): Query<ExportQuery>,
) -> Result<Response, ApiError> {
    let export = query.checked()?;
    let permit = Arc::clone(&EXPORTS).try_acquire_owned().map_err(|_| {
        let message = format!("{EXPORTS_MAX} exports are on their way; try again when one of them has ended");
        ApiError::new(Code::Overloaded, message)
    })?;
    looks::record(&app, &reader, &context, export.tenant, LedgerView::Export).await?;
    let pieces = journal(app.pool.clone(), export, Show::Silent).into_stream().boxed();
    let stopping = app.stopping.clone();
    let body = stream::unfold(Some((pieces, stopping, permit)), async |sending| {
        let (mut pieces, stopping, permit) = sending?;
        let piece = tokio::select! {
            piece = pieces.next() => piece?,
            () = stopping.cancelled() => Err(ToolError::Cancelled),
        };
        match piece {
            Ok(piece) => Some((Ok(piece), Some((pieces, stopping, permit)))),
            Err(error) => {
                // The answer has begun, so all that can be done is to break it off: nobody takes it for a whole one.
                tracing::error!(%error, "an export broke off");
                Some((Err(error), None))
            }
        }
    });
    let name = format!("attachment; filename=\"calos-journal.{}\"", export.format.extension());
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(export.format.content_type()));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_str(&name).map_err(ApiError::internal)?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(format: Option<&str>, holds: Option<&str>, to: Option<&str>) -> ExportQuery {
        let own = |text: Option<&str>| text.map(str::to_owned);
        ExportQuery { format: own(format), tenant: None, from: None, to: own(to), holds: own(holds) }
    }

    #[test]
    fn every_format_is_known_by_its_name_and_nothing_else_is_one() {
        for (name, format) in [
            (None, Format::Csv),
            (Some("csv"), Format::Csv),
            (Some("parquet"), Format::Parquet),
            (Some("hledger"), Format::Hledger),
            (Some("jsonl"), Format::Jsonl),
        ] {
            assert_eq!(query(name, None, None).checked().unwrap().format, format);
        }
        assert!(query(Some("CSV"), None, None).checked().unwrap_err().message().starts_with("format: "));
        assert!(query(None, Some("x"), None).checked().unwrap_err().message().starts_with("holds: "));
        assert!(query(None, None, Some("x")).checked().unwrap_err().message().starts_with("to: "));
    }
}
