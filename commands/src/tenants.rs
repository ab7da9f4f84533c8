//! Tenants: creating them, and who belongs to them.

use calos_domain::account::{Account, AccountCommand, AccountRefusal};
use calos_domain::tenant::{MemberRole, Tenant, TenantCommand, TenantCreated, TenantRefusal, TenantRenamed};
use calos_domain::{StreamId, TenantId, Timestamp, UserId};

use crate::accounts::{account_stream, looking};
use crate::fault::Fault;
use crate::log::{Done, EventLog, Plan, Request, Unit};
use crate::opening::{OpeningRefusal, OpeningStreams};

/// The stream of a tenant.
#[must_use]
pub fn tenant_stream(tenant_id: TenantId) -> StreamId {
    StreamId::key(tenant_id)
}

/// Why a tenant was not created.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CreateTenantRefusal {
    /// The tenant's own rules.
    #[error(transparent)]
    Tenant(#[from] TenantRefusal),
    /// Whoever asks has created as many as one person may.
    #[error(transparent)]
    Account(#[from] AccountRefusal),
    /// Its wallet or licence was there already.
    #[error(transparent)]
    Opening(#[from] OpeningRefusal),
}

/// Creates a tenant with its licence and an empty wallet: the free start comes with a person, once.
///
/// # Errors
/// [`CreateTenantRefusal`]; the log's.
pub async fn create<L: EventLog>(
    log: &L,
    tenant_id: TenantId,
    name: &str,
    owner: UserId,
    at: Timestamp,
    request: Request,
) -> Result<Done<()>, Fault<CreateTenantRefusal>> {
    let mut plan = Plan::default();
    let account = plan.stream::<Account>(account_stream(owner));
    let tenant = plan.stream::<Tenant>(tenant_stream(tenant_id));
    let opening = OpeningStreams::plan(&mut plan, tenant_id);
    let name = name.trim();
    let decide = |unit: &mut Unit<'_>| -> Result<(), CreateTenantRefusal> {
        let created = TenantCreated { tenant_id, name: name.to_owned(), personal: false, owner, created_at: at };
        unit.decide(account, AccountCommand::FoundTenant { tenant_id, at })?;
        unit.decide(tenant, TenantCommand::Create(created))?;
        opening.open(unit, tenant_id, at)?;
        Ok(())
    };
    Ok(log.execute(&plan, request, decide).await?)
}

/// What is to change about a tenant; what is none stays as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TenantChange {
    /// What people are to call it, 1 to 200 characters.
    pub name: Option<String>,
    /// Whether a model beyond its tier is to be refused rather than substituted.
    pub strict_models: Option<bool>,
}

/// Changes a tenant's settings, for somebody who is an admin of it at least; answers their role and what it is then.
/// It holds for the next call.
///
/// # Errors
/// [`TenantRefusal`]; the log's.
pub async fn change<L: EventLog>(
    log: &L,
    tenant_id: TenantId,
    wanted: TenantChange,
    by: UserId,
    at: Timestamp,
    request: Request,
) -> Result<Done<(MemberRole, Tenant)>, Fault<TenantRefusal>> {
    let mut plan = Plan::default();
    let tenant = plan.stream::<Tenant>(tenant_stream(tenant_id));
    let decide = |unit: &mut Unit<'_>| -> Result<(MemberRole, Tenant), TenantRefusal> {
        let role = unit.with(tenant, |tenant| tenant.authorise(by, MemberRole::Admin))?;
        if let Some(name) = &wanted.name {
            let renamed = TenantRenamed { name: name.trim().to_owned(), renamed_by: by, renamed_at: at };
            unit.decide(tenant, TenantCommand::Rename(renamed))?;
        }
        if let Some(strict) = wanted.strict_models {
            unit.decide(tenant, TenantCommand::SetStrictModels { strict, at })?;
        }
        Ok((role, unit.read(tenant)))
    };
    Ok(log.execute(&plan, request, decide).await?)
}

/// A tenant, for somebody who belongs to it in at least this role.
///
/// # Errors
/// [`TenantRefusal::NotAMember`], [`TenantRefusal::RoleTooLow`]; the log's.
pub async fn membership<L: EventLog>(
    log: &L,
    tenant_id: TenantId,
    user_id: UserId,
    needs: MemberRole,
) -> Result<(MemberRole, Tenant), Fault<TenantRefusal>> {
    let mut plan = Plan::default();
    let tenant = plan.stream::<Tenant>(tenant_stream(tenant_id));
    let decide = |unit: &mut Unit<'_>| {
        let role = unit.with(tenant, |tenant| tenant.authorise(user_id, needs))?;
        Ok((role, unit.read(tenant)))
    };
    Ok(log.execute(&plan, looking().into(), decide).await?.answer)
}
