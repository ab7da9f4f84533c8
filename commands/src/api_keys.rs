//! Tenant keys: issuing and revoking them, and reading one that was presented.

use calos_domain::api_key::{ApiKey, ApiKeyCommand, ApiKeyIssued, ApiKeyRefusal, KeyBudgets, KeyLimits};
use calos_domain::tenant::{MemberRole, Tenant, TenantRefusal};
use calos_domain::{KeyId, StreamId, TenantId, Timestamp, UserId};

use crate::accounts::looking;
use crate::fault::{Fault, Never};
use crate::log::{Done, EventLog, Plan, Request, Unit};
use crate::ports::{SecretText, World};
use crate::tenants::{membership, tenant_stream};

/// The stream of a key.
#[must_use]
pub fn key_stream(tenant_id: TenantId, key_id: &KeyId) -> StreamId {
    StreamId::under(tenant_id, key_id)
}

/// What a new key is to be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeyWish {
    /// What people call it.
    pub name: Option<String>,
    /// The only paths it may call.
    pub endpoints: Option<Vec<String>>,
    /// The only models it may name.
    pub models: Option<Vec<String>>,
    /// The only networks it may call from.
    pub ip_allowlist: Option<Vec<String>>,
    /// How often it may call.
    pub limits: KeyLimits,
    /// What it may spend.
    pub budgets: KeyBudgets,
    /// Until when.
    pub expires_at: Option<Timestamp>,
}

/// Why a key was not issued or revoked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyRefusal {
    /// Whoever asks may not.
    #[error(transparent)]
    Tenant(#[from] TenantRefusal),
    /// The key's own rules.
    #[error(transparent)]
    Key(#[from] ApiKeyRefusal),
}

/// A key that is ready: drawn and hashed, nothing recorded.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// The key, shown once.
    pub key: SecretText,
    /// What will be recorded.
    pub issue: ApiKeyIssued,
}

/// Checks that the user may issue keys and that the wish makes sense, then draws the key.
///
/// # Errors
/// [`KeyRefusal`], or what the world could not carry out.
pub async fn prepare<L: EventLog>(
    log: &L,
    world: &World,
    tenant_id: TenantId,
    user_id: UserId,
    wish: KeyWish,
) -> Result<NewKey, Fault<KeyRefusal>> {
    let member = membership(log, tenant_id, user_id, MemberRole::Admin).await;
    member.map_err(|fault| fault.map(KeyRefusal::Tenant))?;
    let at = world.clock.now();
    let key_id = world.randomness.key_id();
    let mut issue = ApiKeyIssued {
        tenant_id,
        key_id: key_id.clone(),
        secret_hash: String::new(),
        last_four: String::new(),
        name: wish.name,
        endpoints: wish.endpoints,
        models: wish.models,
        ip_allowlist: wish.ip_allowlist,
        limits: wish.limits,
        budgets: wish.budgets,
        expires_at: wish.expires_at,
        issued_by: user_id,
        issued_at: at,
    };
    // Before anything is hashed, so that a wish that makes no sense costs nothing.
    issue.check().map_err(|refusal| Fault::Refused(KeyRefusal::Key(refusal)))?;
    let forged = world.keys.forge(tenant_id, key_id).await?;
    issue.secret_hash = forged.secret_hash;
    issue.last_four = forged.last_four;
    Ok(NewKey { key: forged.key, issue })
}

impl NewKey {
    /// Issues it.
    ///
    /// # Errors
    /// [`KeyRefusal`]; the log's.
    pub async fn append<L: EventLog>(&self, log: &L, request: Request) -> Result<Done<()>, Fault<KeyRefusal>> {
        let issue = &self.issue;
        let mut plan = Plan::default();
        let tenant = plan.stream::<Tenant>(tenant_stream(issue.tenant_id));
        let key = plan.stream::<ApiKey>(key_stream(issue.tenant_id, &issue.key_id));
        let decide = |unit: &mut Unit<'_>| -> Result<(), KeyRefusal> {
            unit.with(tenant, |tenant| tenant.authorise(issue.issued_by, MemberRole::Admin))?;
            unit.decide(key, ApiKeyCommand::Issue(issue.clone()))?;
            Ok(())
        };
        Ok(log.execute(&plan, request, decide).await?)
    }
}

/// Revokes a key. Revoking it again changes nothing.
///
/// # Errors
/// [`KeyRefusal`]; the log's.
pub async fn revoke<L: EventLog>(
    log: &L,
    tenant_id: TenantId,
    key_id: &KeyId,
    by: UserId,
    at: Timestamp,
    request: Request,
) -> Result<Done<()>, Fault<KeyRefusal>> {
    let mut plan = Plan::default();
    let tenant = plan.stream::<Tenant>(tenant_stream(tenant_id));
    let key = plan.stream::<ApiKey>(key_stream(tenant_id, key_id));
    let decide = |unit: &mut Unit<'_>| -> Result<(), KeyRefusal> {
        unit.with(tenant, |tenant| tenant.authorise(by, MemberRole::Admin))?;
        unit.decide(key, ApiKeyCommand::Revoke { by, at })?;
        Ok(())
    };
    Ok(log.execute(&plan, request, decide).await?)
}

/// A key's state; the default one for an unknown key.
///
/// # Errors
/// The log's.
pub async fn key_of<L: EventLog>(log: &L, tenant_id: TenantId, key_id: &KeyId) -> Result<ApiKey, Fault<Never>> {
    let mut plan = Plan::default();
    let key = plan.stream::<ApiKey>(key_stream(tenant_id, key_id));
    let found = log.execute(&plan, looking().into(), |unit| Ok::<_, Never>(unit.read(key))).await?;
    Ok(found.answer)
}
