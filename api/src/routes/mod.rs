//! Every path there is. A handler parses, calls, renders; what it may be refused for stands in [`crate::codes`].

pub mod auth;
pub mod byok;
pub mod chat;
pub mod credits;
pub mod finance;
pub mod gateway;
pub mod health;
pub mod keys;
pub mod metrics;
pub mod models;
pub mod ops;
pub mod sessions;
pub mod tenants;

use std::sync::Arc;

use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Router, middleware};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::boundary::{Boundary, REQUESTS_IN_FLIGHT_MAX, boundary};
use crate::error::ApiError;
use crate::openapi;
use crate::wiring::App;

/// The documented paths of every area.
pub fn all() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::base())
        .merge(health::router())
        .merge(metrics::router())
        .merge(credits::router())
        .merge(finance::router())
        .merge(auth::router())
        .merge(sessions::router())
        .merge(tenants::router())
        .merge(keys::router())
        .merge(byok::router())
        .merge(chat::router())
        .merge(gateway::router())
        .merge(models::router())
        .merge(ops::router())
}

/// What the listener serves.
pub fn service(app: &App) -> Router {
    let (router, document) = all().split_for_parts();
    let document = Arc::new(document);
    let state = Boundary::new(REQUESTS_IN_FLIGHT_MAX, &app.config.server.trusted_proxies)
        .counting(Arc::clone(&app.metrics.http))
        .watching(app.log.pulse().clone());
    router
        .route("/openapi.json", get(move || std::future::ready(json(&document))))
        .with_state(app.clone())
        .layer(middleware::from_fn_with_state(state, boundary))
}

fn json(document: &OpenApi) -> Result<impl IntoResponse + use<>, ApiError> {
    let text = document.to_pretty_json().map_err(ApiError::internal)?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], text))
}
