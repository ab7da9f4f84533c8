//! Signing up: one append for the account, the claim on its address, its tenant, its licence, its wallet with the free
//! start, its first device and its first session. All of it happens, or none.

use calos_domain::account::{Account, AccountCommand, AccountRefusal, AccountRegistered, StaffRole};
use calos_domain::device::{Device, DeviceRefusal};
use calos_domain::email_claim::{EmailAddress, EmailClaim, EmailClaimCommand, EmailClaimRefusal};
use calos_domain::session::{Session, SessionCommand, SessionRefusal};
use calos_domain::tenant::{Tenant, TenantCommand, TenantCreated, TenantRefusal};
use calos_domain::{StreamId, SubjectId, TenantId, Timestamp, UserId};

use crate::accounts::{account_of, account_stream, claim_stream, holder_of};
use crate::client::Client;
use crate::fault::Fault;
use crate::log::{Done, EventLog, Plan, Request, Unit};
use crate::opening::{FreeStart, OpeningRefusal, OpeningStreams};
use crate::ports::{PersonalData, SecretText, WeakPassword, World, label};
use crate::sessions::{self, NewSession, Trust, device_stream, session_stream};

/// The longest name a person can ask to be called by, in characters.
pub const DISPLAY_NAME_MAX_CHARACTERS: usize = 100;

/// What a personal tenant is called: not after its person, since a tenant's name is not sealed.
pub const PERSONAL_TENANT_NAME: &str = "Personal";

/// What somebody signs up with.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The address.
    pub email: EmailAddress,
    /// The password.
    pub password: SecretText,
    /// What they want to be called.
    pub display_name: Option<String>,
    /// The code of whoever brought them: that account's user id.
    pub referral_code: Option<String>,
    /// The role they have for CALOS itself from the start: the address the configuration names is an operator's.
    pub staff_role: Option<StaffRole>,
    /// The client they sign up on.
    pub client: Client,
}

/// Why nobody was signed up.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RegisterRefusal {
    /// The password is not good enough.
    #[error(transparent)]
    Password(WeakPassword),
    /// The name is too long.
    #[error("a display name has {DISPLAY_NAME_MAX_CHARACTERS} characters at most, this one has {characters}")]
    DisplayName {
        /// How long it is.
        characters: usize,
    },
    /// Another account holds the address.
    #[error(transparent)]
    Email(#[from] EmailClaimRefusal),
    /// The code names no account.
    #[error("no account has this referral code; check it, or leave it out")]
    UnknownReferralCode,
    /// Something new was not new: a drawn id was in use. Trying again draws others.
    #[error("what was to be created was there already: {0}")]
    NotNew(String),
}

macro_rules! not_new {
    ($($refusal:ty),+) => {$(
        impl From<$refusal> for RegisterRefusal {
            fn from(refusal: $refusal) -> Self {
                Self::NotNew(refusal.to_string())
            }
        }
    )+};
}

not_new!(AccountRefusal, DeviceRefusal, SessionRefusal, TenantRefusal, OpeningRefusal);

/// Somebody about to be signed up: everything drawn, hashed, sealed and signed, nothing recorded.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// The person.
    pub user_id: UserId,
    /// Their own tenant.
    pub tenant_id: TenantId,
    /// Their first session.
    pub session: NewSession,
    account: AccountRegistered,
    staff_role: Option<StaffRole>,
    start: FreeStart,
    at: Timestamp,
}

/// The name of the claim a registration makes, before anything else is done: repetitions of it meet there.
#[must_use]
pub fn email_hash(world: &World, email: &EmailAddress) -> String {
    world.digests.email(email)
}

/// Checks a registration and prepares it. Hashing the password is most of its time.
///
/// # Errors
/// [`RegisterRefusal`], or what the world could not carry out.
pub async fn prepare<L: EventLog>(
    log: &L,
    world: &World,
    registration: Registration,
) -> Result<NewAccount, Fault<RegisterRefusal>> {
    let refuse = |refusal| Err(Fault::Refused(refusal));
    let display_name = registration.display_name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    let characters = display_name.as_ref().map_or(0, |name| name.chars().count());
    if characters > DISPLAY_NAME_MAX_CHARACTERS {
        return refuse(RegisterRefusal::DisplayName { characters });
    }
    if let Err(weak) = world.passwords.check(registration.password.expose()) {
        return refuse(RegisterRefusal::Password(weak));
    }
    // A look ahead, so that a taken address costs no hashing; what counts is decided again in the append.
    let email_hash = world.digests.email(&registration.email);
    if holder_of(log, &email_hash).await.map_err(|fault| fault.map(|never| match never {}))?.is_some() {
        return refuse(EmailClaimRefusal::Taken.into());
    }
    let referred_by = match &registration.referral_code {
        Some(code) => Some(referrer(log, code).await?),
        None => None,
    };
    let hash = world.passwords.hash(registration.password.expose()).await?;

    let user_id = UserId(world.randomness.id());
    let tenant_id = TenantId(world.randomness.id());
    let subject = SubjectId(user_id.0);
    let at = world.clock.now();
    world.personal_data.create_key(subject).await?;
    let data: &dyn PersonalData = &*world.personal_data;
    let account = AccountRegistered {
        user_id,
        email: data.seal(subject, label::EMAIL, registration.email.as_str()).await?,
        email_hash,
        display_name: match &display_name {
            Some(name) => Some(data.seal(subject, label::DISPLAY_NAME, name).await?),
            None => None,
        },
        password_hash: data.seal(subject, label::PASSWORD_HASH, hash.expose()).await?,
        personal_tenant_id: tenant_id,
        referred_by,
        registered_at: at,
    };
    let session = sessions::prepare(world, user_id, tenant_id, &registration.client, Trust::First).await?;
    let start = FreeStart::draw(&*world.randomness, user_id, referred_by.is_some());
    Ok(NewAccount { user_id, tenant_id, session, account, staff_role: registration.staff_role, start, at })
}

async fn referrer<L: EventLog>(log: &L, code: &str) -> Result<UserId, Fault<RegisterRefusal>> {
    let unknown = || Fault::Refused(RegisterRefusal::UnknownReferralCode);
    let user_id: UserId = code.trim().parse().map_err(|_| unknown())?;
    let account = account_of(log, user_id).await.map_err(|fault| fault.map(|never| match never {}))?;
    if account.profile.is_some() { Ok(user_id) } else { Err(unknown()) }
}

impl NewAccount {
    /// Signs them up. When that certainly did not happen, the key drawn for them is destroyed again.
    ///
    /// # Errors
    /// [`RegisterRefusal`], or what the world could not carry out.
    pub async fn append<L: EventLog>(
        self,
        log: &L,
        world: &World,
        request: Request,
    ) -> Result<Done<()>, Fault<RegisterRefusal>> {
        let outcome = self.try_append(log, request).await;
        if let Err(fault) = &outcome
            && fault.certainly_absent()
            && let Err(error) = world.personal_data.destroy_key(SubjectId(self.user_id.0)).await
        {
            // The key opens nothing that was recorded, so it does no harm where it is.
            tracing::warn!(user_id = %self.user_id, %error, "the key of a refused registration stays behind");
        }
        outcome
    }

    async fn try_append<L: EventLog>(&self, log: &L, request: Request) -> Result<Done<()>, Fault<RegisterRefusal>> {
        let mut plan = Plan::default();
        let claim = plan.stream::<EmailClaim>(claim_stream(&self.account.email_hash));
        let account = plan.stream::<Account>(account_stream(self.user_id));
        let tenant = plan.stream::<Tenant>(StreamId::key(self.tenant_id));
        let opening = OpeningStreams::plan(&mut plan, self.tenant_id);
        let start = &self.session.start;
        let device = plan.stream::<Device>(device_stream(self.user_id, start.device_id));
        let session = plan.stream::<Session>(session_stream(self.user_id, start.session_id));
        let decide = |unit: &mut Unit<'_>| -> Result<(), RegisterRefusal> {
            unit.decide(claim, EmailClaimCommand::Claim { user_id: self.user_id, at: self.at })?;
            unit.decide(account, AccountCommand::Register(self.account.clone()))?;
            if let Some(role) = self.staff_role {
                unit.decide(account, AccountCommand::GrantStaffRole { role, at: self.at })?;
            }
            unit.decide(tenant, TenantCommand::Create(self.personal_tenant()))?;
            opening.open(unit, self.tenant_id, self.at)?;
            opening.grant(unit, &self.start, self.at)?;
            unit.decide(device, self.session.device.clone())?;
            unit.decide(session, SessionCommand::Start(start.clone()))?;
            Ok(())
        };
        Ok(log.execute(&plan, request, decide).await?)
    }

    fn personal_tenant(&self) -> TenantCreated {
        TenantCreated {
            tenant_id: self.tenant_id,
            name: PERSONAL_TENANT_NAME.to_owned(),
            personal: true,
            owner: self.user_id,
            created_at: self.at,
        }
    }
}
