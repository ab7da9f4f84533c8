//! `/metrics`, for Prometheus.

use axum::extract::State as Shared;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::{ApiError, Code};
use crate::metrics::exposition::{CONTENT_TYPE, render};
use crate::openapi::ErrorBody;
use crate::wiring::App;

/// The endpoint.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// What the server counts about itself, from memory: it asks nobody and is answered while the database is away. With
/// `CALOS_METRICS_TOKEN` set it takes that token as a bearer token; without, a proxy should keep this path inside.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses(
    (status = 200, body = String, content_type = "application/openmetrics-text"), (status = 401, body = ErrorBody)))]
async fn metrics(Shared(app): Shared<App>, headers: HeaderMap) -> Result<Response, ApiError> {
    if let Some(token) = &app.config.server.metrics_token
        && !is_shown(&headers, token.expose())
    {
        let message = "send the header authorization: Bearer with the token of CALOS_METRICS_TOKEN";
        return Err(ApiError::new(Code::Unauthenticated, message));
    }
    let page = render(&app).map_err(ApiError::internal)?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))], page).into_response())
}

/// Whether the token stands in the request. Digests are compared, so that how long it takes tells nothing of the token.
fn is_shown(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer "));
    given.is_some_and(|given| Sha256::digest(given) == Sha256::digest(token))
}
