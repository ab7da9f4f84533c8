//! Signed receipts: one event of the tenant's own ledger, to keep and to check offline.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use calos_adapters::postgres::reading::event_at;
use calos_adapters::receipt::{Receipt, ReceiptError};
use calos_domain::adjustment::Adjustment;
use calos_domain::payment::Payment;
use calos_domain::wallet::Wallet;
use calos_domain::{Decider, TenantId};

use crate::auth::TenantCaller;
use crate::error::ApiError;
use crate::openapi::ErrorBody;
use crate::request::Path;
use crate::wiring::App;

/// What belongs to a ledger; a tenant's other streams are none of it.
const LEDGER_KINDS: [&str; 3] = [Wallet::KIND, Payment::KIND, Adjustment::KIND];

/// A receipt: the event as it was sealed, the hash before it, its own, and the ledger's signature. Its fields are what
/// `calos-replay receipt check` reads; keep it as it is.
#[derive(Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub struct ReceiptAnswer(Receipt);

/// A signed receipt for one entry of one's own ledger. `calos-replay receipt check FILE` checks it against the key at
/// `/.well-known/calos-ledger-key`.
#[utoipa::path(get, path = "/api/credits/receipts/{partition}/{position}", tag = "credits",
    params(("partition" = i32, Path, description = "the event's partition, as the ledger shows it"),
        ("position" = i64, Path, description = "its position there")),
    responses((status = 200, body = ReceiptAnswer), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 503, body = ErrorBody)),
    security(("session" = []), ("tenantKey" = [])))]
pub async fn receipt(
    State(app): State<App>,
    caller: TenantCaller,
    Path((partition, position)): Path<(i32, i64)>,
) -> Result<Json<ReceiptAnswer>, ApiError> {
    of(&app, caller.tenant_id(), partition, position).await.map(Json)
}

/// The receipt for an entry of a tenant's ledger. Another tenant's entry looks like none.
///
/// # Errors
/// 404; 500 when what is stored is not what was sealed, which the log then says.
pub async fn of(app: &App, tenant: TenantId, partition: i32, position: i64) -> Result<ReceiptAnswer, ApiError> {
    let none = || ApiError::not_found("entry");
    let event = event_at(&app.pool, partition, position).await?.ok_or_else(none)?;
    if !LEDGER_KINDS.contains(&event.aggregate_type.as_str()) || !is_of(tenant, &event.aggregate_id) {
        return Err(none());
    }
    let issued = Receipt::issue(&app.pool, app.secrets.ledger_signing_key(), partition, position).await;
    issued.map(ReceiptAnswer).map_err(|error| match error {
        ReceiptError::NoEvent { .. } => none(),
        ReceiptError::Database(error) => error.into(),
        error => ApiError::internal(error),
    })
}

/// Whether a stream is a tenant's: its id is the tenant's, or begins with it.
fn is_of(tenant: TenantId, aggregate_id: &str) -> bool {
    let rest = aggregate_id.strip_prefix(&tenant.to_string());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_stream_is_a_tenants_by_its_whole_id_or_what_stands_before_the_first_slash() {
        let tenant = TenantId(Uuid::from_u128(7));
        assert!(is_of(tenant, &tenant.to_string()) && is_of(tenant, &format!("{tenant}/x")));
        for other in [Uuid::from_u128(8).to_string(), format!("{tenant}0"), format!("x/{tenant}"), String::new()] {
            assert!(!is_of(tenant, &other), "{other}");
        }
    }
}
