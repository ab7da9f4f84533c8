//! Looks of the staff at tenants' ledgers, recorded before anything is shown.
//!
//! A look at one tenant's ledger stands with that tenant. One at everybody's at once (the whole journal, the whole list of
//! accounts, an export of everything) is recorded once, and counts as a look at each.

use calos_commands::ledger_access;
use calos_commands::log::Positions;
use calos_domain::TenantId;
use calos_domain::ledger_access::LedgerView;

use crate::auth::FinanceReader;
use crate::error::ApiError;
use crate::request::{RequestContext, now};
use crate::wiring::App;

/// Records a look; what was looked at may be shown once this answers.
///
/// # Errors
/// 404 for an unknown tenant; the log's.
pub async fn record(
    app: &App,
    reader: &FinanceReader,
    context: &RequestContext,
    tenant: Option<TenantId>,
    what: LedgerView,
) -> Result<Positions, ApiError> {
    let request = context.metadata(reader.actor()).into();
    let (log, by, at) = (&app.log, reader.user_id(), now());
    let done = match tenant {
        Some(tenant) => ledger_access::record(log, tenant, by, what, at, request).await?,
        None => ledger_access::record_of_all(log, by, what, at, request).await?,
    };
    Ok(done.positions)
}
