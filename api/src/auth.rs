//! Who is calling: a person in a session, or a program with a tenant key.
//!
//! A handler asks for what it needs by type: [`SessionCaller`], [`KeyCaller`], either of them as [`Caller`], or
//! [`TenantCaller`] where only the tenant matters. What a caller showed is believed only after it was checked against
//! the session's or key's own stream; what was checked is remembered briefly and forgotten at once when it ends.

mod attempts;
mod cookies;
mod credentials;
mod follow;
mod generation;
mod keys;
mod origin;
mod paces;
mod sessions;
mod staff;
mod unmetered;

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, header};
use tokio::sync::{Semaphore, SemaphorePermit};

use calos_adapters::postgres::PgLog;
use calos_adapters::secrets::Secrets;
use calos_commands::client::Client;
use calos_commands::metadata::Actor;
use calos_commands::ports::SecretText;
use calos_commands::tenants;
use calos_domain::api_key::ApiKeyIssued;
use calos_domain::session::Started;
use calos_domain::tenant::MemberRole;
use calos_domain::{TenantId, UserId};

use crate::error::{ApiError, Code};
use crate::request::RequestContext;
use crate::wiring::App;

pub use attempts::{Attempts, Pace, accountable};
pub use cookies::{clear_session_cookies, device_cookie, session_cookie};
pub use credentials::Credentials;
pub use keys::KeyDesk;
pub use origin::SameSite;
pub use paces::{Changes, Offers};
pub use sessions::SessionDesk;
pub use staff::{FinanceOperator, FinanceReader};
pub use unmetered::Unmetered;

/// Names another of one's own tenants to act for, in place of the session's.
pub const CALOS_TENANT: HeaderName = HeaderName::from_static("x-calos-tenant");

/// Names the device of an app that keeps no cookies.
pub const DEVICE_ID: HeaderName = HeaderName::from_static("x-device-id");

/// What is remembered about callers. Cloning shares it.
#[derive(Clone)]
pub struct Auth {
    /// Sessions that were found standing.
    pub sessions: Arc<SessionDesk>,
    /// Keys that were found right, and ones that were not.
    pub keys: Arc<KeyDesk>,
    /// Failed logins.
    pub logins: Arc<LoginAttempts>,
    /// Registrations, by where they come from: each costs a hash and a gift, so the successful ones count too.
    pub registrations: Arc<Attempts<IpAddr>>,
    /// Keys being issued, by who issues them: each costs a hash.
    pub key_issues: Arc<Attempts<UserId>>,
    /// Changes to tenants and keys, by who makes them: each is an event for ever.
    pub changes: Arc<Changes>,
    /// Keys of one's own that providers are asked about.
    pub offers: Arc<Offers>,
    /// Calls that no wallet counts, by key.
    pub unmetered: Arc<Unmetered>,
    secrets: Secrets,
}

/// Failed logins, by where they came from and by which account they were for.
pub struct LoginAttempts {
    /// By address.
    pub by_address: Attempts<IpAddr>,
    /// By the hash of the email address, whether anybody has it or not.
    pub by_account: Attempts<String>,
    turns: Semaphore,
}

impl LoginAttempts {
    /// Waits for one's turn to have a password compared; the turn ends when the answer is dropped.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed; were it, the hashing pool has a bound of its own.
        self.turns.acquire().await.ok()
    }
}

/// Passwords compared at a time.
const LOGIN_TURNS: usize = 4;

/// Failed logins from one address: thirty at once, then one every two seconds.
const LOGINS_BY_ADDRESS: Pace = Pace { burst: 30, refill_seconds: 2 };

/// Failed logins for one account: ten at once, then one every thirty seconds.
const LOGINS_BY_ACCOUNT: Pace = Pace { burst: 10, refill_seconds: 30 };

/// Registrations from one address: sixty at once, then one every ten seconds.
const REGISTRATIONS_BY_ADDRESS: Pace = Pace { burst: 60, refill_seconds: 10 };

/// Keys issued by one person: a hundred at once, then one every thirty seconds.
const KEY_ISSUES_BY_PERSON: Pace = Pace { burst: 100, refill_seconds: 30 };

impl Auth {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new(log: &PgLog, secrets: &Secrets) -> Self {
        Self {
            sessions: Arc::new(SessionDesk::new(log.clone(), secrets.clone())),
            keys: Arc::new(KeyDesk::new(log.clone(), secrets.clone())),
            logins: Arc::new(LoginAttempts {
                by_address: Attempts::new(LOGINS_BY_ADDRESS),
                by_account: Attempts::new(LOGINS_BY_ACCOUNT),
                turns: Semaphore::new(LOGIN_TURNS),
            }),
            registrations: Arc::new(Attempts::new(REGISTRATIONS_BY_ADDRESS)),
            key_issues: Arc::new(Attempts::new(KEY_ISSUES_BY_PERSON)),
            changes: Arc::default(),
            offers: Arc::default(),
            unmetered: Arc::default(),
            secrets: secrets.clone(),
        }
    }
}

/// A person in a session.
#[derive(Clone, Copy, Debug)]
pub struct SessionCaller {
    /// The session.
    pub session: Started,
}

impl SessionCaller {
    /// Who.
    #[must_use]
    pub fn user_id(&self) -> UserId {
        self.session.user_id
    }

    /// Who, for the log.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::User(self.session.user_id)
    }
}

/// A program with a tenant key that may call this path from this address.
#[derive(Clone, Debug)]
pub struct KeyCaller {
    /// What the key is now: its restrictions and limits.
    pub key: Arc<ApiKeyIssued>,
}

impl KeyCaller {
    /// Whose key.
    #[must_use]
    pub fn tenant_id(&self) -> TenantId {
        self.key.tenant_id
    }

    /// Who, for the log.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::Key(self.key.tenant_id, self.key.key_id.clone())
    }
}

/// Either.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A person in a session.
    Session(SessionCaller),
    /// A program with a tenant key.
    Key(KeyCaller),
}

impl Caller {
    /// Who, for the log; as text it also names whoever repeats an idempotent request.
    #[must_use]
    pub fn actor(&self) -> Actor {
        match self {
            Self::Session(caller) => caller.actor(),
            Self::Key(caller) => caller.actor(),
        }
    }
}

/// Whoever acts for a tenant: a key for its own, a person for the session's or the one they name in `x-calos-tenant`.
#[derive(Clone, Debug)]
pub struct TenantCaller {
    /// Who.
    pub caller: Caller,
    tenant_id: TenantId,
}

impl TenantCaller {
    /// The tenant they act for. A person belonged to it when the request came in.
    #[must_use]
    pub fn tenant_id(&self) -> TenantId {
        self.tenant_id
    }

    /// Who, for the log.
    #[must_use]
    pub fn actor(&self) -> Actor {
        self.caller.actor()
    }
}

fn unauthenticated() -> ApiError {
    ApiError::new(Code::Unauthenticated, "sign in, or send a session token or tenant key as Authorization: Bearer …")
}

async fn context(parts: &mut Parts, app: &App) -> RequestContext {
    match RequestContext::from_request_parts(parts, app).await {
        Ok(context) => context,
        Err(never) => match never {},
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let context = context(parts, app).await;
        match Credentials::of(&parts.headers, &app.config)? {
            Credentials::None => Err(unauthenticated()),
            Credentials::Key(presented) => {
                let key = app.auth.keys.verify(&presented, context.address).await?;
                keys::admit(&key, parts.uri.path(), &context)?;
                Ok(Self::Key(KeyCaller { key }))
            }
            Credentials::Session { token, by_cookie } => {
                // A browser sends a cookie along with whatever another site makes it send.
                if by_cookie {
                    origin::check(&parts.method, &parts.headers, app)?;
                }
                let session = app.auth.sessions.check(&token).await?;
                Ok(Self::Session(SessionCaller { session }))
            }
        }
    }
}

impl FromRequestParts<App> for SessionCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        match Caller::from_request_parts(parts, app).await? {
            Caller::Session(caller) => Ok(caller),
            Caller::Key(_) => {
                Err(ApiError::new(Code::Forbidden, "a tenant key cannot do this; sign in and use a session token"))
            }
        }
    }
}

impl FromRequestParts<App> for KeyCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        match Caller::from_request_parts(parts, app).await? {
            Caller::Key(caller) => Ok(caller),
            Caller::Session(_) => Err(ApiError::new(
                Code::InvalidApiKey,
                "this takes a tenant key: issue one with POST /api/tenants/{id}/keys and send it as Authorization: Bearer …",
            )),
        }
    }
}

impl FromRequestParts<App> for TenantCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let tenant_id = match &caller {
            Caller::Key(key) => key.tenant_id(),
            Caller::Session(person) => {
                let asked = named_tenant(parts)?.unwrap_or(person.session.tenant_id);
                tenants::membership(&app.log, asked, person.user_id(), MemberRole::Member).await?;
                asked
            }
        };
        Ok(Self { caller, tenant_id })
    }
}

fn named_tenant(parts: &Parts) -> Result<Option<TenantId>, ApiError> {
    let Some(value) = parts.headers.get(CALOS_TENANT) else { return Ok(None) };
    let named = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    named.map(Some).ok_or_else(|| ApiError::header("x-calos-tenant", "must be the id of one of your tenants"))
}

/// Whoever is about to sign in, as far as they can be seen.
pub struct SigningIn(pub Client);

impl FromRequestParts<App> for SigningIn {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let context = context(parts, app).await;
        let text = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let device = text(DEVICE_ID).or_else(|| cookies::device(&parts.headers, cookies::is_https(&app.config)));
        Ok(Self(Client {
            address: context.address,
            user_agent: text(header::USER_AGENT),
            device_secret: device.filter(|secret| cookies::is_device_secret(secret)).map(SecretText::new),
        }))
    }
}
