//! Looks of the staff at a tenant's ledger: recorded before anything is shown.

use uuid::Uuid;

use calos_domain::ledger_access::{LedgerAccess, LedgerAccessCommand, LedgerAccessRefusal, LedgerView};
use calos_domain::wallet::Wallet;
use calos_domain::{StreamId, TenantId, Timestamp, UserId};

use crate::fault::Fault;
use crate::log::{Done, EventLog, Plan, Request, Unit};

/// The stream of looks at a tenant's ledger.
#[must_use]
pub fn access_stream(tenant_id: TenantId) -> StreamId {
    StreamId::under(tenant_id, "access")
}

/// The stream of looks at everybody's ledger at once.
#[must_use]
pub fn access_to_all_stream() -> StreamId {
    access_stream(TenantId(Uuid::nil()))
}

/// Records a look at everybody's ledger at once: it counts as a look at each tenant's.
///
/// # Errors
/// The log's.
pub async fn record_of_all<L: EventLog>(
    log: &L,
    by: UserId,
    what: LedgerView,
    at: Timestamp,
    request: Request,
) -> Result<Done<()>, Fault<LedgerAccessRefusal>> {
    let mut plan = Plan::default();
    let access = plan.stream::<LedgerAccess>(access_to_all_stream());
    let decide = |unit: &mut Unit<'_>| unit.decide(access, LedgerAccessCommand::RecordView { by, what, at }).map(drop);
    Ok(log.execute(&plan, request, decide).await?)
}

/// Records a look; once it answers, it is durable, and what was looked at may be shown.
///
/// # Errors
/// [`LedgerAccessRefusal::NoSuchTenant`]; the log's.
pub async fn record<L: EventLog>(
    log: &L,
    tenant_id: TenantId,
    by: UserId,
    what: LedgerView,
    at: Timestamp,
    request: Request,
) -> Result<Done<()>, Fault<LedgerAccessRefusal>> {
    let mut plan = Plan::default();
    let wallet = plan.stream::<Wallet>(StreamId::key(tenant_id));
    let access = plan.stream::<LedgerAccess>(access_stream(tenant_id));
    let decide = |unit: &mut Unit<'_>| -> Result<(), LedgerAccessRefusal> {
        if !unit.with(wallet, Wallet::is_open) {
            return Err(LedgerAccessRefusal::NoSuchTenant);
        }
        unit.decide(access, LedgerAccessCommand::RecordView { by, what, at }).map(drop)
    };
    Ok(log.execute(&plan, request, decide).await?)
}
