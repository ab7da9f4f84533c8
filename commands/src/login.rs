//! Signing in with a password.

use calos_domain::account::{Account, Profile};
use calos_domain::device::{Device, DeviceRefusal};
use calos_domain::email_claim::EmailAddress;
use calos_domain::session::{Session, SessionCommand, SessionEndCause, SessionRefusal};
use calos_domain::{DeviceId, SessionId, TenantId, UserId};

use crate::accounts::{account_stream, profile_by_email};
use crate::client::Client;
use crate::fault::Fault;
use crate::log::{Done, EventLog, Plan, Request, Unit};
use crate::ports::{SealError, SecretText, World, label};
use crate::sessions::{self, NewSession, Trust, device_stream, session_stream};

/// Why nobody was signed in.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoginRefusal {
    /// Unknown address or wrong password; which of the two is not said, and both take the same time.
    #[error("the email address or the password is wrong")]
    InvalidCredentials,
    /// The password was changed while it was being checked.
    #[error("the password has just been changed; sign in with the new one")]
    PasswordChanged,
    /// Something new was not new: a drawn id was in use. Trying again draws another.
    #[error("what was to be created was there already: {0}")]
    NotNew(String),
}

impl From<DeviceRefusal> for LoginRefusal {
    fn from(refusal: DeviceRefusal) -> Self {
        Self::NotNew(refusal.to_string())
    }
}

impl From<SessionRefusal> for LoginRefusal {
    fn from(refusal: SessionRefusal) -> Self {
        Self::NotNew(refusal.to_string())
    }
}

/// Somebody who has proved who they are.
#[derive(Clone, Debug)]
pub struct Proven(Profile);

impl Proven {
    /// Who.
    #[must_use]
    pub fn user_id(&self) -> UserId {
        self.0.user_id
    }

    /// Their own tenant.
    #[must_use]
    pub fn tenant_id(&self) -> TenantId {
        self.0.personal_tenant_id
    }
}

/// Checks an address and a password.
///
/// # Errors
/// [`LoginRefusal::InvalidCredentials`], or what the world could not carry out.
pub async fn prove<L: EventLog>(
    log: &L,
    world: &World,
    email: &EmailAddress,
    password: &SecretText,
) -> Result<Proven, Fault<LoginRefusal>> {
    let found =
        profile_by_email(log, &*world.digests, email).await.map_err(|fault| fault.map(|never| match never {}))?;
    let hash = match &found {
        Some(profile) => match world.personal_data.open(&profile.password_hash, label::PASSWORD_HASH).await {
            Ok(hash) => Some(SecretText::new(hash)),
            // An erased account is like one that never was.
            Err(SealError::Erased(_)) => None,
            Err(error) => return Err(error.into()),
        },
        None => None,
    };
    let right = world.passwords.verify(password.expose(), hash.as_ref()).await?;
    match found {
        Some(profile) if right => Ok(Proven(profile)),
        _ => Err(Fault::Refused(LoginRefusal::InvalidCredentials)),
    }
}

/// A login that is ready: its session is signed, nothing is recorded.
#[derive(Clone, Debug)]
pub struct NewLogin {
    /// The session.
    pub session: NewSession,
    proven: Proven,
    replaces: Option<SessionId>,
}

/// Prepares a session for somebody who has proved who they are. `replaces` is the session the same client came with:
/// it ends when the new one starts.
///
/// # Errors
/// What the world could not carry out.
pub async fn prepare(
    world: &World,
    proven: Proven,
    client: &Client,
    replaces: Option<SessionId>,
) -> Result<NewLogin, Fault<LoginRefusal>> {
    let session = sessions::prepare(world, proven.user_id(), proven.tenant_id(), client, Trust::AsBefore).await?;
    Ok(NewLogin { session, proven, replaces })
}

impl NewLogin {
    /// The device it happens on.
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        self.session.start.device_id
    }

    /// Signs them in.
    ///
    /// # Errors
    /// [`LoginRefusal`], or what the world could not carry out.
    pub async fn append<L: EventLog>(&self, log: &L, request: Request) -> Result<Done<()>, Fault<LoginRefusal>> {
        let start = &self.session.start;
        let user_id = self.proven.user_id();
        let mut plan = Plan::default();
        let account = plan.stream::<Account>(account_stream(user_id));
        let device = plan.stream::<Device>(device_stream(user_id, start.device_id));
        let session = plan.stream::<Session>(session_stream(user_id, start.session_id));
        let replaced = self.replaces.map(|id| plan.stream::<Session>(session_stream(user_id, id)));
        let decide = |unit: &mut Unit<'_>| -> Result<(), LoginRefusal> {
            let unchanged = unit.with(account, |account| {
                account.profile.as_ref().map(|now| now.password_hash == self.proven.0.password_hash)
            });
            match unchanged {
                Some(true) => {}
                Some(false) => return Err(LoginRefusal::PasswordChanged),
                // Erased while the password was being checked.
                None => return Err(LoginRefusal::InvalidCredentials),
            }
            unit.decide(device, self.session.device.clone())?;
            if let Some(replaced) = replaced
                && unit.with(replaced, |session| session.started.is_some())
            {
                let end = SessionCommand::End { cause: SessionEndCause::Replaced, at: start.started_at };
                unit.decide(replaced, end)?;
            }
            unit.decide(session, SessionCommand::Start(start.clone()))?;
            Ok(())
        };
        Ok(log.execute(&plan, request, decide).await?)
    }
}
