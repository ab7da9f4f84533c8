//! What a tenant is licensed for. Decided at the console of the machine, until payments decide it too.

use calos_domain::licence::{Licence, LicenceCommand, LicenceRefusal};
use calos_domain::tiers::Tier;
use calos_domain::{StreamId, TenantId, Timestamp};

use crate::fault::Fault;
use crate::log::{Done, EventLog, Plan, Request};

/// Moves a tenant to a tier on that tier's usual terms. Grants no credit: included credit comes with a paid period.
/// Moving it there again changes nothing.
///
/// # Errors
/// [`LicenceRefusal::NotIssued`] for an unknown tenant; the log's.
pub async fn change_tier<L: EventLog>(
    log: &L,
    tenant_id: TenantId,
    tier: Tier,
    at: Timestamp,
    request: Request,
) -> Result<Done<()>, Fault<LicenceRefusal>> {
    let terms = tier.terms();
    let change = LicenceCommand::ChangeTier {
        tier,
        markup_percent: terms.markup_percent,
        token_limit: terms.token_limit,
        changed_at: at,
    };
    let mut plan = Plan::default();
    let licence = plan.stream::<Licence>(StreamId::key(tenant_id));
    Ok(log.execute(&plan, request, |unit| unit.decide(licence, change).map(drop)).await?)
}
