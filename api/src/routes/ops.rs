//! What operators see and do: how far the read models are, rebuilding them, looking for events, dead letters, the log's heads
//! and anchors. For the role `operator` alone; what changes something, and every look at events, is recorded.

mod dead_letters;
mod events;
mod failure;
mod log;
mod projections;
mod rebuild;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::wiring::App;

/// The endpoints.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(projections::list))
        .routes(routes!(rebuild::begin))
        .routes(routes!(rebuild::look, rebuild::cancel))
        .routes(routes!(events::search))
        .routes(routes!(events::one))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::retry))
        .routes(routes!(dead_letters::skip))
        .routes(routes!(log::look))
}
