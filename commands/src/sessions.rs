//! Sessions: how one starts, whether it still stands, and how it ends.

use calos_domain::account::Account;
use calos_domain::device::{DeviceCommand, DeviceSeen, DeviceTrusted, TrustLevel, TrustPath};
use calos_domain::session::{Session, SessionCommand, SessionEndCause, SessionRefusal, SessionStarted, Started};
use calos_domain::{DeviceId, SessionId, StreamId, SubjectId, TenantId, Timestamp, UserId};

use crate::accounts::{account_stream, looking};
use crate::client::{Client, DEVICE_SECRET_MAX_BYTES};
use crate::fault::Fault;
use crate::log::{Done, EventLog, Plan, Request, Unit};
use crate::ports::{SecretText, SessionClaims, World, label};

/// How long a session lasts at the most: seven days.
pub const SESSION_MAX_SECONDS: i64 = 7 * 24 * 60 * 60;

/// The stream of a session.
#[must_use]
pub fn session_stream(user_id: UserId, session_id: SessionId) -> StreamId {
    StreamId::under(user_id, session_id)
}

/// The stream of a device.
#[must_use]
pub fn device_stream(user_id: UserId, device_id: DeviceId) -> StreamId {
    StreamId::under(user_id, device_id)
}

/// A session that is ready to start: sealed, named and signed, so that its answer can be written down beside it.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// What will be recorded.
    pub start: SessionStarted,
    /// What will be recorded of the device.
    pub device: DeviceCommand,
    /// What the caller shows from now on.
    pub token: SecretText,
    /// What the device keeps from now on.
    pub device_secret: SecretText,
}

/// Whether the device may act for its user from the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trust {
    /// It is the one the account is registered on.
    First,
    /// It is whatever it was before; an unknown one is only recorded.
    AsBefore,
}

/// Prepares a session for a user whose key exists and who has proved who they are.
pub(crate) async fn prepare<E>(
    world: &World,
    user_id: UserId,
    tenant_id: TenantId,
    client: &Client,
    trust: Trust,
) -> Result<NewSession, Fault<E>> {
    let now = world.clock.now();
    // A token's end is in whole seconds; the session ends in the same one.
    let whole = Timestamp::from_micros(now.micros() - now.micros().rem_euclid(calos_domain::time::MICROS_PER_SECOND));
    let expires_at = whole.plus_seconds(SESSION_MAX_SECONDS);
    let kept = client.device_secret.clone().filter(|secret| secret.expose().len() <= DEVICE_SECRET_MAX_BYTES);
    let device_secret = kept.unwrap_or_else(|| world.randomness.secret());
    let (device_id, fingerprint) = world.digests.device(user_id, &device_secret);
    let session_id = SessionId(world.randomness.ordered_id());
    let subject = SubjectId(user_id.0);
    let seal = |label, text: String| async move { world.personal_data.seal(subject, label, &text).await };
    let nickname = seal(label::NICKNAME, client.nickname()).await?;
    let platform = client.platform().to_owned();
    let device = match trust {
        Trust::First => DeviceCommand::Trust(DeviceTrusted {
            device_id,
            user_id,
            fingerprint,
            nickname,
            platform,
            trust_level: TrustLevel::Password,
            path: TrustPath::Registration,
            trusted_at: now,
        }),
        Trust::AsBefore => {
            DeviceCommand::See(DeviceSeen { device_id, user_id, fingerprint, nickname, platform, seen_at: now })
        }
    };
    let user_agent = match client.kept_user_agent() {
        Some(text) => Some(seal(label::USER_AGENT, text).await?),
        None => None,
    };
    let start = SessionStarted {
        session_id,
        user_id,
        tenant_id,
        device_id,
        started_at: now,
        expires_at,
        address: Some(seal(label::ADDRESS, client.address.to_string()).await?),
        user_agent,
    };
    let token = world.tokens.sign(&SessionClaims { user_id, tenant_id, session_id, expires_at })?;
    Ok(NewSession { start, device, token, device_secret })
}

/// Whether the session a token names still stands.
///
/// # Errors
/// [`SessionRefusal`] when it does not; the log's.
pub async fn check<L: EventLog>(
    log: &L,
    claims: &SessionClaims,
    now: Timestamp,
) -> Result<Started, Fault<SessionRefusal>> {
    let mut plan = Plan::default();
    let session = plan.stream::<Session>(session_stream(claims.user_id, claims.session_id));
    let account = plan.stream::<Account>(account_stream(claims.user_id));
    let standing = |unit: &mut Unit<'_>| {
        // The sessions of somebody who was erased end with the account, whether or not each has been ended by then.
        if unit.with(account, |account| account.erased.is_some()) {
            return Err(SessionRefusal::Ended { cause: SessionEndCause::Erased });
        }
        unit.with(session, |session| session.standing(now))
    };
    Ok(log.execute(&plan, looking().into(), standing).await?.answer)
}

/// Ends a session of this user. Ending it again changes nothing.
///
/// # Errors
/// [`SessionRefusal::NotStarted`] for a session the user does not have; the log's.
pub async fn end<L: EventLog>(
    log: &L,
    user_id: UserId,
    session_id: SessionId,
    cause: SessionEndCause,
    at: Timestamp,
    request: Request,
) -> Result<Done<()>, Fault<SessionRefusal>> {
    let mut plan = Plan::default();
    let session = plan.stream::<Session>(session_stream(user_id, session_id));
    let done =
        log.execute(&plan, request, |unit| unit.decide(session, SessionCommand::End { cause, at }).map(drop)).await?;
    Ok(done)
}
