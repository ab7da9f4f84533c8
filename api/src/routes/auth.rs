//! Signing up, in and out, and looking at oneself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use calos_adapters::config::Environment;
use calos_commands::fault::Fault;
use calos_commands::log::Positions;
use calos_commands::login::{self, LoginRefusal};
use calos_commands::metadata::Actor;
use calos_commands::ports::SecretText;
use calos_commands::register::{self, Registration};
use calos_commands::sessions::{self, NewSession};
use calos_commands::whoami::who_am_i;
use calos_domain::account::StaffRole;
use calos_domain::device::TrustLevel;
use calos_domain::email_claim::EmailAddress;
use calos_domain::session::SessionEndCause;
use calos_domain::tenant::MemberRole;

use crate::auth::{
    Credentials, SameSite, SessionCaller, SigningIn, accountable, clear_session_cookies, device_cookie, session_cookie,
};
use crate::error::{ApiError, Code};
use crate::idempotency::Answer;
use crate::moment::rfc3339;
use crate::openapi::ErrorBody;
use crate::position;
use crate::request::{Post, RequestContext, now};
use crate::to_the_end::to_the_end;
use crate::wiring::App;

/// The endpoints.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(login))
        .routes(routes!(logout))
        .routes(routes!(session))
}

/// What somebody signs up with.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RegisterBody {
    /// The address to sign in with; letter case does not matter.
    email: String,
    /// 8 to 256 characters, not one that anybody tries first.
    password: String,
    /// What they want to be called; 100 characters at most.
    display_name: Option<String>,
    /// The user id of whoever brought them: adds $1.00.
    referral_code: Option<String>,
}

/// A session and the token that shows it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SessionToken {
    /// Send it as `Authorization: Bearer …`; a browser has it in a cookie as well.
    token: String,
    /// Until when, RFC 3339.
    expires_at: String,
}

impl SessionToken {
    fn of(session: &NewSession) -> Result<Self, ApiError> {
        Ok(Self { token: session.token.expose().to_owned(), expires_at: rfc3339(session.start.expires_at)? })
    }
}

/// Somebody who has just signed up.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Registered {
    /// Always `success`.
    status: &'static str,
    /// The person; also the referral code they may hand on.
    user_id: Uuid,
    /// Their own tenant.
    tenant_id: Uuid,
    /// Their first session.
    session: SessionToken,
}

/// Adds the cookies of a new session to an answer.
fn with_cookies(answer: Answer, app: &App, session: &NewSession) -> Answer {
    answer
        .with_header(header::SET_COOKIE, session_cookie(&app.config, &session.token))
        .with_header(header::SET_COOKIE, device_cookie(&app.config, &session.device_secret))
}

/// Sign up: an account, a tenant with $10.00 and 100 phone credits, and a session, all at once. Limited by address.
#[utoipa::path(post, path = "/api/auth/register", tag = "auth", request_body = RegisterBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "repeats are answered with the first answer")),
    responses((status = 201, body = Registered), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn register(
    State(app): State<App>,
    _: SameSite,
    SigningIn(client): SigningIn,
    context: RequestContext,
    post: Post<RegisterBody>,
) -> Result<Response, ApiError> {
    let RegisterBody { email, password, display_name, referral_code } = post.body;
    let email: EmailAddress = email.parse()?;
    let staff_role = is_admin(&app, &email).then_some(StaffRole::Operator);
    // Repetitions of one registration meet at the claim on its address, whoever sends them.
    let claim = register::email_hash(&app.world, &email);
    let caller = format!("register:{claim}");
    let work = async |claimer: crate::idempotency::Claimer| {
        app.auth.registrations.spend(&accountable(context.address)).map_err(|seconds| {
            let message = "too many registrations came from this address; wait before the next one";
            ApiError::new(Code::TooManyAttempts, message).retry_after(seconds)
        })?;
        let password = SecretText::new(password);
        let registration = Registration { email, password, display_name, referral_code, staff_role, client };
        let new = register::prepare(&app.log, &app.world, registration).await?;
        let answer = Answer::json(
            StatusCode::CREATED,
            &Registered {
                status: "success",
                user_id: new.user_id.0,
                tenant_id: new.tenant_id.0,
                session: SessionToken::of(&new.session)?,
            },
        )?;
        let answer = with_cookies(answer, &app, &new.session);
        let request = claimer.request(context.metadata(Actor::Anonymous), &answer)?;
        let done = new.append(&app.log, &app.world, request).await?;
        Ok(answer.respond(&done.positions))
    };
    post.attempt.once(&app, &caller, &claim, work).await
}

/// Whether the configuration names this address as its operator's. Nobody has proven that an address is theirs, so in
/// production an operator is named from the console.
fn is_admin(app: &App, email: &EmailAddress) -> bool {
    if app.config.environment == Environment::Production {
        return false;
    }
    let named = app.config.admin_email.as_ref().and_then(|text| text.parse::<EmailAddress>().ok());
    named.is_some_and(|named| named.normalised() == email.normalised())
}

/// What somebody signs in with.
#[derive(Deserialize, ToSchema)]
struct LoginBody {
    /// The address they registered with.
    email: String,
    /// The password.
    password: String,
}

/// Somebody who has just signed in.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LoggedIn {
    /// Always `success`.
    status: &'static str,
    /// The person.
    user_id: Uuid,
    /// Their own tenant.
    tenant_id: Uuid,
    /// The device they are on.
    device_id: Uuid,
    /// The session.
    session: SessionToken,
}

/// Sign in. Wrong tries are limited by account and by address.
#[utoipa::path(post, path = "/api/auth/login", tag = "auth", request_body = LoginBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "repeats are answered with the first answer")),
    responses((status = 200, body = LoggedIn), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn login(
    State(app): State<App>,
    _: SameSite,
    SigningIn(client): SigningIn,
    context: RequestContext,
    headers: HeaderMap,
    post: Post<LoginBody>,
) -> Result<Response, ApiError> {
    let email: EmailAddress = post.body.email.parse()?;
    let password = SecretText::new(post.body.password);
    let proven = prove(&app, &context, &email, &password).await?;
    let user_id = proven.user_id();
    let caller = format!("login:{user_id}");
    // The session this client came with ends when the new one starts, if it is the same person's.
    let replaces = match Credentials::of(&headers, &app.config) {
        Ok(Credentials::Session { token, .. }) => app.auth.sessions.claims(&token),
        Ok(Credentials::None | Credentials::Key(_)) | Err(_) => None,
    };
    let replaces = replaces.filter(|claims| claims.user_id == user_id).map(|claims| claims.session_id);
    let work = async |claimer: crate::idempotency::Claimer| {
        let new = login::prepare(&app.world, proven, &client, replaces).await?;
        let answer = Answer::json(
            StatusCode::OK,
            &LoggedIn {
                status: "success",
                user_id: user_id.0,
                tenant_id: new.session.start.tenant_id.0,
                device_id: new.device_id().0,
                session: SessionToken::of(&new.session)?,
            },
        )?;
        let answer = with_cookies(answer, &app, &new.session);
        let request = claimer.request(context.metadata(Actor::User(user_id)), &answer)?;
        let (log, desk) = (app.log.clone(), Arc::clone(&app.auth.sessions));
        let done = to_the_end(async move {
            let done = new.append(&log, request).await;
            if let Some(replaced) = replaces {
                desk.forget(user_id, replaced);
            }
            // Until here nobody repeats the request beside this one.
            drop(claimer);
            Ok(done?)
        });
        Ok(answer.respond(&done.await?.positions))
    };
    post.attempt.once(&app, &caller, &user_id.to_string(), work).await
}

/// Checks address and password, and counts what fails. Who has failed too often is refused before anything is hashed.
async fn prove(
    app: &App,
    context: &RequestContext,
    email: &EmailAddress,
    password: &SecretText,
) -> Result<login::Proven, ApiError> {
    let logins = &app.auth.logins;
    let address = accountable(context.address);
    let account = register::email_hash(&app.world, email);
    // Looked at when it is one's turn: whoever sends a thousand guesses at once is refused from where they begin to fail.
    let _turn = logins.turn().await;
    let waiting = |seconds: u64| {
        ApiError::new(Code::TooManyAttempts, "too many failed logins; wait before the next one").retry_after(seconds)
    };
    logins.by_address.check(&address).map_err(waiting)?;
    logins.by_account.check(&account).map_err(waiting)?;
    let proven = login::prove(&app.log, &app.world, email, password).await;
    if let Err(Fault::Refused(LoginRefusal::InvalidCredentials)) = &proven {
        logins.by_address.failed(&address);
        logins.by_account.failed(&account);
    }
    Ok(proven?)
}

/// Sign out. Also fine when already signed out.
#[utoipa::path(post, path = "/api/auth/logout", tag = "auth",
    responses((status = 204), (status = 403, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
async fn logout(
    State(app): State<App>,
    _: SameSite,
    context: RequestContext,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut positions = Positions::default();
    if let Credentials::Session { token, .. } = Credentials::of(&headers, &app.config)?
        && let Some(claims) = app.auth.sessions.claims(&token)
    {
        let (user_id, session_id) = (claims.user_id, claims.session_id);
        let request = context.metadata(Actor::User(user_id)).into();
        let (log, desk) = (app.log.clone(), Arc::clone(&app.auth.sessions));
        let ended = to_the_end(async move {
            let ended = sessions::end(&log, user_id, session_id, SessionEndCause::LoggedOut, now(), request).await;
            desk.forget(user_id, session_id);
            Ok(ended?)
        });
        positions = ended.await?.positions;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    for cookie in clear_session_cookies(&app.config) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    position::stamp(response.headers_mut(), &positions);
    Ok(response)
}

/// Who is signed in, and what their tenant has.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CurrentSession {
    /// The person.
    user_id: Uuid,
    /// Their address, as typed.
    email: String,
    /// What they want to be called.
    display_name: Option<String>,
    /// The tenant they act for.
    tenant_id: Uuid,
    /// What they are in it: `member`, `admin` or `owner`; null once they no longer belong to it.
    role: Option<&'static str>,
    /// What they may do for CALOS itself: `operator`, `finance`, `moderator`.
    staff_roles: Vec<&'static str>,
    /// The device they are on.
    device_id: Uuid,
    /// How far it is trusted: `high`, `medium` or `none`.
    trust_level: &'static str,
    /// The tenant's available USD in cents, rounded down.
    balance_cents: i64,
    /// `free`, `starter`, `pro` or `enterprise`.
    subscription_tier: Option<&'static str>,
    /// Until when the session lasts, RFC 3339.
    expires_at: String,
}

/// What a member is called.
#[must_use]
pub(super) const fn role_name(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Member => "member",
        MemberRole::Admin => "admin",
        MemberRole::Owner => "owner",
    }
}

const fn staff_name(role: StaffRole) -> &'static str {
    match role {
        StaffRole::Operator => "operator",
        StaffRole::Finance => "finance",
        StaffRole::Moderator => "moderator",
    }
}

const fn trust_name(trust: Option<TrustLevel>) -> &'static str {
    match trust {
        Some(TrustLevel::Biometric) => "high",
        Some(TrustLevel::Password) => "medium",
        None => "none",
    }
}

/// Look at oneself.
#[utoipa::path(get, path = "/api/auth/session", tag = "auth",
    responses((status = 200, body = CurrentSession), (status = 401, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
async fn session(State(app): State<App>, caller: SessionCaller) -> Result<Json<CurrentSession>, ApiError> {
    let session = caller.session;
    let me = who_am_i(&app.log, &app.world, &session, now()).await?;
    let me = me.ok_or_else(|| ApiError::new(Code::SessionEnded, "this account was erased; it is closed for ever"))?;
    Ok(Json(CurrentSession {
        user_id: session.user_id.0,
        email: me.email,
        display_name: me.display_name,
        tenant_id: session.tenant_id.0,
        role: me.role.map(role_name),
        staff_roles: me.staff_roles.into_iter().map(staff_name).collect(),
        device_id: session.device_id.0,
        trust_level: trust_name(me.trust),
        balance_cents: me.available.cents_down(),
        subscription_tier: me.tier.map(calos_domain::tiers::Tier::as_str),
        expires_at: rfc3339(session.expires_at)?,
    }))
}
