//! Erasing a person, as far as the log goes: the account is closed for ever, the claim on its address let go, sessions and
//! devices end, and what only this person could have tended to is switched off. Whoever calls destroys the data key after
//! it, so that no crash in between leaves a key that is gone without a fact that says why.

use calos_domain::account::{Account, AccountCommand, AccountRefusal};
use calos_domain::device::{Device, DeviceCommand, DeviceRefusal};
use calos_domain::email_claim::{EmailClaim, EmailClaimCommand, EmailClaimRefusal};
use calos_domain::operation::{Operation, OperationCommand, OperationRefusal, RunBy, SubjectErased};
use calos_domain::session::{Session, SessionCommand, SessionEndCause, SessionRefusal};
use calos_domain::tenant::{MemberRole, Tenant, TenantCommand, TenantRefusal};
use calos_domain::{DeviceId, SessionId, StreamId, SubjectId, TenantId, Timestamp, UserId};

use crate::accounts::{account_of, account_stream, claim_stream};
use crate::fault::Fault;
use crate::log::{Done, EventLog, Handle, Plan, Request, Unit};
use crate::metadata::{Actor, Metadata};
use crate::sessions::{device_stream, session_stream};
use crate::tenants::tenant_stream;

/// Sessions and devices ended in one append, at the most: each may have to be loaded first, and a command that has to load
/// many more is given up.
pub const ENDED_MAX_STREAMS: usize = 40;

/// Why nobody was erased.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ErasureRefusal {
    /// The account's own rules.
    #[error(transparent)]
    Account(#[from] AccountRefusal),
    /// The claim on the address is not this account's.
    #[error(transparent)]
    Claim(#[from] EmailClaimRefusal),
    /// A session's own rules.
    #[error(transparent)]
    Session(#[from] SessionRefusal),
    /// A device's own rules.
    #[error(transparent)]
    Device(#[from] DeviceRefusal),
    /// A tenant's own rules.
    #[error(transparent)]
    Tenant(#[from] TenantRefusal),
    /// The run cannot be recorded: its reason is missing or too long.
    #[error(transparent)]
    Operation(#[from] OperationRefusal),
}

/// What a person has signed in with: bounded by the caller to [`ENDED_MAX_STREAMS`] in all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SignedIn {
    /// Sessions, standing or not.
    pub sessions: Vec<SessionId>,
    /// Devices, trusted or not.
    pub devices: Vec<DeviceId>,
}

/// How many of them ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ended {
    /// Sessions that stood.
    pub sessions: u64,
    /// Devices that were trusted.
    pub devices: u64,
}

/// The envelope of everything an erasure appends.
#[must_use]
pub fn envelope(run: &RunBy) -> Request {
    let mut metadata = Metadata::new(Actor::Console(run.operator.clone()));
    metadata.correlation_id = run.operation_id.0;
    metadata.reason = Some(run.reason.clone());
    metadata.into()
}

/// Closes the account, lets its address go, ends what is signed in, and records who did that and why: one append.
/// Answers none for somebody who was erased before; nothing changes then.
///
/// # Errors
/// [`AccountRefusal::NotRegistered`] for somebody who never registered; the log's.
pub async fn close<L: EventLog>(
    log: &L,
    user_id: UserId,
    signed_in: &SignedIn,
    run: &RunBy,
    at: Timestamp,
) -> Result<Done<Option<Ended>>, Fault<ErasureRefusal>> {
    // The claim is named by the account, so it has to be known before the streams are.
    let known = account_of(log, user_id).await.map_err(|fault| fault.map(|never| match never {}))?;
    let email_hash = known.profile.map(|profile| profile.email_hash);
    let mut plan = Plan::default();
    let account = plan.stream::<Account>(account_stream(user_id));
    let claim = email_hash.as_deref().map(|hash| plan.stream::<EmailClaim>(claim_stream(hash)));
    let operation = plan.stream::<Operation>(StreamId::key(run.operation_id));
    let ending = Ending::plan(&mut plan, user_id, signed_in);
    let decide = |unit: &mut Unit<'_>| -> Result<Option<Ended>, ErasureRefusal> {
        let erase = AccountCommand::Erase { operation_id: run.operation_id, at };
        if unit.decide(account, erase)?.is_empty() {
            return Ok(None);
        }
        if let Some(claim) = claim
            && unit.with(claim, |claim| claim.holder == Some(user_id))
        {
            unit.decide(claim, EmailClaimCommand::Release { user_id, at })?;
        }
        let fact = SubjectErased { run: run.clone(), subject: SubjectId(user_id.0), erased_at: at };
        unit.decide(operation, OperationCommand::RecordErased(fact))?;
        ending.end(unit, at).map(Some)
    };
    Ok(log.execute(&plan, envelope(run), decide).await?)
}

/// Ends what an erased person is signed in with beyond what [`close`] ended.
///
/// # Errors
/// The log's.
pub async fn end_rest<L: EventLog>(
    log: &L,
    user_id: UserId,
    signed_in: &SignedIn,
    run: &RunBy,
    at: Timestamp,
) -> Result<Done<Ended>, Fault<ErasureRefusal>> {
    let mut plan = Plan::default();
    let ending = Ending::plan(&mut plan, user_id, signed_in);
    Ok(log.execute(&plan, envelope(run), |unit| ending.end(unit, at)).await?)
}

/// Sessions and devices to be ended.
struct Ending {
    sessions: Vec<Handle<Session>>,
    devices: Vec<(DeviceId, Handle<Device>)>,
}

impl Ending {
    fn plan<L: EventLog>(plan: &mut Plan<L>, user_id: UserId, signed_in: &SignedIn) -> Self {
        let sessions =
            signed_in.sessions.iter().map(|id| plan.stream::<Session>(session_stream(user_id, *id))).collect();
        let devices =
            signed_in.devices.iter().map(|id| (*id, plan.stream::<Device>(device_stream(user_id, *id)))).collect();
        Self { sessions, devices }
    }

    fn end(&self, unit: &mut Unit<'_>, at: Timestamp) -> Result<Ended, ErasureRefusal> {
        let mut ended = Ended::default();
        for session in &self.sessions {
            // One that has run out ended by itself.
            if unit.with(*session, |session| session.standing(at).is_ok()) {
                let cause = SessionEndCause::Erased;
                ended.sessions += unit.decide(*session, SessionCommand::End { cause, at })?.len() as u64;
            }
        }
        for (device_id, device) in &self.devices {
            ended.devices += unit.decide(*device, DeviceCommand::Revoke { device_id: *device_id, at })?.len() as u64;
        }
        Ok(ended)
    }
}

/// What becomes of a tenant whose member was erased.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Left {
    /// They were not in it.
    NotAMember,
    /// Nobody else belongs to it: what it has switched on has to be switched off, since nobody is left who could.
    Alone(Box<Tenant>),
    /// Others go on with it.
    ToOthers,
    /// Others belong to it, and none of them is an owner: their membership stays, so that the tenant is not without one.
    WithoutAnOwner,
}

/// Takes an erased person out of a tenant that has other members. A tenant of their own stays theirs, by their random id:
/// its books outlive them.
///
/// # Errors
/// The log's.
pub async fn leave<L: EventLog>(
    log: &L,
    tenant_id: TenantId,
    user_id: UserId,
    run: &RunBy,
    at: Timestamp,
) -> Result<Left, Fault<ErasureRefusal>> {
    let mut plan = Plan::default();
    let tenant = plan.stream::<Tenant>(tenant_stream(tenant_id));
    let decide = |unit: &mut Unit<'_>| -> Result<Left, ErasureRefusal> {
        let known = unit.read(tenant);
        let Some(role) = known.members.get(&user_id) else { return Ok(Left::NotAMember) };
        if known.members.len() == 1 {
            return Ok(Left::Alone(Box::new(known)));
        }
        let others = |(member, role): (&UserId, &MemberRole)| *member != user_id && *role == MemberRole::Owner;
        if *role == MemberRole::Owner && !known.members.iter().any(others) {
            return Ok(Left::WithoutAnOwner);
        }
        unit.decide(tenant, TenantCommand::RemoveMember { user_id, at })?;
        Ok(Left::ToOthers)
    };
    Ok(log.execute(&plan, envelope(run), decide).await?.answer)
}

#[cfg(test)]
mod tests;
