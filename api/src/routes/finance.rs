//! What finance sees and does: the trial balance, the journal, exports, the seal, adjustments with four eyes, closed
//! months, reconciliation, and single tenants' ledgers. For the staff: `finance` may look, `operator` may act as well.
//!
//! Whoever looks at tenants' ledgers is recorded before they see anything ([`looks`]).

mod accounts;
mod adjustments;
mod bare;
mod export;
mod journal;
mod looks;
mod periods;
mod reconciliation;
mod refusals;
mod span;
mod tenants;
mod trial_balance;
mod verify;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::wiring::App;

/// The endpoints.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(trial_balance::trial_balance))
        .routes(routes!(accounts::list))
        .routes(routes!(accounts::one))
        .routes(routes!(journal::list))
        .routes(routes!(journal::one))
        .routes(routes!(verify::look, verify::begin))
        .routes(routes!(export::export))
        .routes(routes!(adjustments::list, adjustments::propose))
        .routes(routes!(adjustments::one))
        .routes(routes!(adjustments::approve))
        .routes(routes!(adjustments::reject))
        .routes(routes!(periods::list))
        .routes(routes!(periods::close))
        .routes(routes!(reconciliation::list, reconciliation::run))
        .routes(routes!(reconciliation::one))
        .routes(routes!(reconciliation::assign))
        .routes(routes!(reconciliation::resolve))
        .routes(routes!(tenants::balance))
        .routes(routes!(tenants::ledger))
        .routes(routes!(tenants::statement))
        .routes(routes!(tenants::receipt))
        .routes(routes!(tenants::access))
}
