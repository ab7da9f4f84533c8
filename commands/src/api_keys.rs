//! Tenant keys: issuing, changing, rotating and revoking them, and reading one that was presented.

use std::collections::BTreeMap;

use calos_domain::api_key::{
    ApiKey, ApiKeyCommand, ApiKeyIssued, ApiKeyRefusal, ApiKeyRotated, KeyChange, KeySettings,
};
use calos_domain::tenant::{MemberRole, Tenant, TenantCommand, TenantRefusal};
use calos_domain::wallet::{BudgetPeriod, Caller, Spending, Wallet};
use calos_domain::{Decider, KeyId, StreamId, TenantId, Timestamp, UserId};

use crate::accounts::looking;
use crate::fault::{Fault, Never};
use crate::log::{Done, EventLog, Handle, Plan, Request, Unit};
use crate::ports::{SecretText, World};
use crate::tenants::{membership, tenant_stream};

/// The stream of a key.
#[must_use]
pub fn key_stream(tenant_id: TenantId, key_id: &KeyId) -> StreamId {
    StreamId::under(tenant_id, key_id)
}

/// Why a key was not issued, changed or revoked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyRefusal {
    /// Whoever asks may not, or the tenant has too many.
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
    wish: KeySettings,
) -> Result<NewKey, Fault<KeyRefusal>> {
    let member = membership(log, tenant_id, user_id, MemberRole::Admin).await;
    member.map_err(|fault| fault.map(KeyRefusal::Tenant))?;
    let at = world.clock.now();
    // Before anything is hashed, so that a wish that makes no sense costs nothing.
    wish.check(at).and_then(|()| wish.check_size()).map_err(|refusal| Fault::Refused(KeyRefusal::Key(refusal)))?;
    forge(world, tenant_id, user_id, wish, Place::default(), at).await
}

/// Whose place a new key takes, and in which line.
#[derive(Default)]
struct Place {
    replaces: Option<KeyId>,
    line: Option<KeyId>,
}

async fn forge(
    world: &World,
    tenant_id: TenantId,
    user_id: UserId,
    settings: KeySettings,
    Place { replaces, line }: Place,
    at: Timestamp,
) -> Result<NewKey, Fault<KeyRefusal>> {
    let forged = world.keys.forge(tenant_id, world.randomness.key_id()).await?;
    let KeySettings { name, endpoints, models, ip_allowlist, limits, budgets, expires_at } = settings;
    let issue = ApiKeyIssued {
        tenant_id,
        key_id: forged.key_id,
        secret_hash: forged.secret_hash,
        last_four: forged.last_four,
        name,
        endpoints,
        models,
        ip_allowlist,
        limits,
        budgets,
        expires_at,
        replaces,
        line,
        issued_by: user_id,
        issued_at: at,
    };
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
            issue_counted(unit, tenant, key, issue.clone())
        };
        Ok(log.execute(&plan, request, decide).await?)
    }
}

fn issue_counted(
    unit: &mut Unit<'_>,
    tenant: Handle<Tenant>,
    key: Handle<ApiKey>,
    issue: ApiKeyIssued,
) -> Result<(), KeyRefusal> {
    let (key_id, ends_at, at) = (issue.key_id.clone(), issue.expires_at, issue.issued_at);
    unit.decide(tenant, TenantCommand::CountApiKey { key_id, ends_at, at })?;
    unit.decide(key, ApiKeyCommand::Issue(issue))?;
    Ok(())
}

/// A key that is ready to take another's place.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The new key. It begins with what the old one may do when the rotation is recorded.
    pub new: NewKey,
    old: KeyId,
    ends_at: Timestamp,
}

/// Checks that the user may rotate this key, then draws the one that takes its place. Both open for `overlap_seconds`.
///
/// # Errors
/// [`KeyRefusal`], or what the world could not carry out.
pub async fn prepare_rotation<L: EventLog>(
    log: &L,
    world: &World,
    tenant_id: TenantId,
    user_id: UserId,
    old: &KeyId,
    overlap_seconds: i64,
) -> Result<Rotation, Fault<KeyRefusal>> {
    let at = world.clock.now();
    let ends_at = at.plus_seconds(overlap_seconds);
    let mut plan = Plan::default();
    let tenant = plan.stream::<Tenant>(tenant_stream(tenant_id));
    let key = plan.stream::<ApiKey>(key_stream(tenant_id, old));
    let may = |unit: &mut Unit<'_>| -> Result<(KeySettings, KeyId), KeyRefusal> {
        unit.with(tenant, |tenant| tenant.authorise(user_id, MemberRole::Admin))?;
        // Asked with an id no key has yet, before anything is hashed.
        let replaced_by = world.randomness.key_id();
        let asked = ApiKeyRotated { replaced_by, ends_at, rotated_by: user_id, rotated_at: at };
        unit.with(key, |key| {
            key.decide(ApiKeyCommand::Rotate(asked))?;
            let current = key.current.as_ref().ok_or(ApiKeyRefusal::NotIssued)?;
            Ok((current.settings(), current.counted_as().clone()))
        })
    };
    let (settings, line) = log.execute(&plan, looking().into(), may).await?.answer;
    let place = Place { replaces: Some(old.clone()), line: Some(line) };
    let new = forge(world, tenant_id, user_id, settings, place, at).await?;
    Ok(Rotation { new, old: old.clone(), ends_at })
}

impl Rotation {
    /// Until when both keys open, unless the old one ends by itself before.
    #[must_use]
    pub const fn ends_at(&self) -> Timestamp {
        self.ends_at
    }

    /// Issues the new key and gives the old one its end, in one append.
    ///
    /// # Errors
    /// [`KeyRefusal`]; the log's.
    pub async fn append<L: EventLog>(&self, log: &L, request: Request) -> Result<Done<()>, Fault<KeyRefusal>> {
        let issue = &self.new.issue;
        let (by, at) = (issue.issued_by, issue.issued_at);
        let mut plan = Plan::default();
        let tenant = plan.stream::<Tenant>(tenant_stream(issue.tenant_id));
        let old = plan.stream::<ApiKey>(key_stream(issue.tenant_id, &self.old));
        let new = plan.stream::<ApiKey>(key_stream(issue.tenant_id, &issue.key_id));
        let decide = |unit: &mut Unit<'_>| -> Result<(), KeyRefusal> {
            unit.with(tenant, |tenant| tenant.authorise(by, MemberRole::Admin))?;
            let mut issue = issue.clone();
            // What the old key may do now, should it have been changed while the new one was drawn.
            if let Some(settings) = unit.with(old, |old| old.current.as_ref().map(ApiKeyIssued::settings)) {
                issue.set(settings);
            }
            let rotated = ApiKeyRotated {
                replaced_by: issue.key_id.clone(),
                ends_at: self.ends_at,
                rotated_by: by,
                rotated_at: at,
            };
            unit.decide(old, ApiKeyCommand::Rotate(rotated))?;
            count(unit, tenant, old, &self.old, at)?;
            issue_counted(unit, tenant, new, issue)
        };
        Ok(log.execute(&plan, request, decide).await?)
    }
}

/// Tells the tenant until when a key counts among its live ones, after something happened to the key.
fn count(
    unit: &mut Unit<'_>,
    tenant: Handle<Tenant>,
    key: Handle<ApiKey>,
    key_id: &KeyId,
    at: Timestamp,
) -> Result<(), KeyRefusal> {
    let ends_at = unit.with(key, |key| {
        let own = key.current.as_ref().and_then(|current| current.expires_at);
        key.revoked_at.or(own)
    });
    unit.decide(tenant, TenantCommand::CountApiKey { key_id: key_id.clone(), ends_at, at })?;
    Ok(())
}

/// Changes what a key may do; answers what it is then. It holds for the next call.
///
/// # Errors
/// [`KeyRefusal`]; the log's.
pub async fn change<L: EventLog>(
    log: &L,
    tenant_id: TenantId,
    key_id: &KeyId,
    wanted: KeyChange,
    by: UserId,
    at: Timestamp,
    request: Request,
) -> Result<Done<KeySettings>, Fault<KeyRefusal>> {
    let mut plan = Plan::default();
    let tenant = plan.stream::<Tenant>(tenant_stream(tenant_id));
    let key = plan.stream::<ApiKey>(key_stream(tenant_id, key_id));
    let decide = |unit: &mut Unit<'_>| -> Result<KeySettings, KeyRefusal> {
        unit.with(tenant, |tenant| tenant.authorise(by, MemberRole::Admin))?;
        unit.decide(key, ApiKeyCommand::Change { change: wanted.clone(), by, at })?;
        count(unit, tenant, key, key_id, at)?;
        Ok(unit.with(key, |key| key.current.as_ref().map(ApiKeyIssued::settings).unwrap_or_default()))
    };
    Ok(log.execute(&plan, request, decide).await?)
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
        count(unit, tenant, key, key_id, at)
    };
    Ok(log.execute(&plan, request, decide).await?)
}

/// What each of these keys has spent, and keeps, today and this month.
///
/// # Errors
/// The log's.
pub async fn spending<L: EventLog>(
    log: &L,
    tenant_id: TenantId,
    keys: Vec<KeyId>,
    at: Timestamp,
) -> Result<BTreeMap<KeyId, [Spending; 2]>, Fault<Never>> {
    let mut plan = Plan::default();
    let wallet = plan.stream::<Wallet>(StreamId::key(tenant_id));
    let look = |unit: &mut Unit<'_>| {
        let spent = unit.with(wallet, |wallet| {
            let of = |key: &KeyId| {
                let caller = Caller::Key(key.clone());
                let both = [BudgetPeriod::Day, BudgetPeriod::Month];
                (key.clone(), both.map(|period| wallet.spending(&caller, period, at)))
            };
            keys.iter().map(of).collect()
        });
        Ok::<_, Never>(spent)
    };
    Ok(log.execute(&plan, looking().into(), look).await?.answer)
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
