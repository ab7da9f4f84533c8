//! Keys of one's own for providers: added after the provider has taken them, listed by their last four characters,
//! removed for good.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use calos_commands::byok::{self, ByokFailure, KeyOffer};
use calos_commands::ports::SecretText;
use calos_commands::tenants::membership;
use calos_domain::TenantId;
use calos_domain::pricing::Provider;
use calos_domain::tenant::MemberRole;
use calos_projections::{Projection, provider_keys};

use crate::auth::{Caller, SessionCaller, TenantCaller, accountable};
use crate::error::{ApiError, Code};
use crate::idempotency::{Answer, Claimer};
use crate::moment::rfc3339;
use crate::openapi::ErrorBody;
use crate::position::After;
use crate::request::{Path, Post, Query, RequestContext, now};
use crate::routes::gateway::PROVIDER_RETRY_AFTER_SECONDS;
use crate::wiring::App;

/// The endpoints.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(add)).routes(routes!(list)).routes(routes!(remove))
}

/// A key of one's own. Unknown fields are refused: a tenant that is spelt wrong must not be taken for one's own.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OwnKeyBody {
    /// `openai`, `anthropic` or `deepseek`.
    provider: String,
    /// The key, as the provider issued it.
    api_key: String,
    /// The tenant; left out, the one in `x-calos-tenant`, else the session's.
    tenant_id: Option<Uuid>,
}

/// A key that was added.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AddedKey {
    /// Whose account it opens.
    provider: String,
    /// Its last four characters.
    last_four: String,
    /// When, RFC 3339.
    added_at: String,
}

/// Which tenant is meant.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
struct Which {
    /// The tenant; left out, the one in `x-calos-tenant`, else the session's.
    tenant_id: Option<Uuid>,
}

/// A person in a session, and the tenant they mean.
fn person(caller: &TenantCaller, named: Option<Uuid>) -> Result<(SessionCaller, TenantId), ApiError> {
    match &caller.caller {
        Caller::Session(person) => Ok((*person, named.map_or(caller.tenant_id(), TenantId))),
        Caller::Key(_) => {
            Err(ApiError::new(Code::Forbidden, "a tenant key cannot do this; sign in and use a session token"))
        }
    }
}

/// The provider of that name, if there is one.
fn known(name: &str) -> Option<Provider> {
    name.trim().to_ascii_lowercase().parse().ok()
}

/// Bring a key of one's own for a provider; it takes the place of one brought before. Its admins and owners may. The
/// provider is asked first whether it takes the key.
#[utoipa::path(post, path = "/api/byok/add", tag = "tenants", request_body = OwnKeyBody,
    params(("x-calos-tenant" = Option<Uuid>, Header, description = "the tenant"),
        ("Idempotency-Key" = Option<String>, Header, description = "repeats are answered with the first answer")),
    responses((status = 201, body = AddedKey), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
async fn add(
    State(app): State<App>,
    caller: TenantCaller,
    context: RequestContext,
    post: Post<OwnKeyBody>,
) -> Result<Response, ApiError> {
    let OwnKeyBody { provider, api_key, tenant_id } = post.body;
    let key = SecretText::new(api_key);
    let (person, tenant_id) = person(&caller, tenant_id)?;
    let provider =
        known(&provider).ok_or_else(|| ApiError::field("provider", "must be openai, anthropic or deepseek"))?;
    let actor = person.actor();
    let who = actor.to_string();
    let work = async |claimer: Claimer| {
        let offer = KeyOffer { tenant_id, user_id: person.user_id(), provider, key };
        let vetted = byok::vet(&app.log, offer).await?;
        // Whoever may not ask, or brings no key, does not use up what others may ask.
        app.auth.offers.spend(person.user_id(), accountable(context.address), tenant_id)?;
        let new = byok::prepare(&app.world, app.gateway.provider(provider), vetted).await?;
        let added = AddedKey {
            provider: provider.to_string(),
            last_four: new.added().last_four.clone(),
            added_at: rfc3339(new.added().added_at)?,
        };
        let answer = Answer::json(StatusCode::CREATED, &added)?;
        let request = claimer.request(context.metadata(actor), &answer)?;
        let done = new.append(&app.log, app.secrets.keyring().as_ref(), request).await?;
        Ok(answer.respond(&done.positions))
    };
    post.attempt.once(&app, &who, &tenant_id.to_string(), work).await
}

/// A key of one's own, as people see it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct OwnKeyLine {
    /// Whose account it opens.
    provider: String,
    /// Its last four characters.
    last_four: String,
    /// When it was added, RFC 3339.
    added_at: String,
    /// Who added it.
    added_by: Uuid,
}

/// The keys a tenant brought.
#[derive(Serialize, ToSchema)]
struct OwnKeys {
    /// One for each provider at most.
    keys: Vec<OwnKeyLine>,
}

/// List a tenant's own provider keys; the keys themselves are never shown. Its admins and owners may.
#[utoipa::path(get, path = "/api/byok", tag = "tenants",
    params(Which, ("x-calos-tenant" = Option<Uuid>, Header, description = "the tenant"),
        ("calos-after" = Option<String>, Header, description = "positions this read must have seen, such as 3:17")),
    responses((status = 200, body = OwnKeys), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
async fn list(
    State(app): State<App>,
    caller: TenantCaller,
    Query(which): Query<Which>,
    after: After,
) -> Result<axum::Json<OwnKeys>, ApiError> {
    let (person, tenant_id) = person(&caller, which.tenant_id)?;
    membership(&app.log, tenant_id, person.user_id(), MemberRole::Admin).await?;
    after.wait(&app, provider_keys::ProviderKeys::NAME).await?;
    let rows = provider_keys::of_tenant(&app.pool, tenant_id).await?;
    let lines = rows.into_iter().map(|row| {
        Ok(OwnKeyLine {
            provider: row.provider,
            last_four: row.last_four,
            added_at: rfc3339(row.added_at)?,
            added_by: row.added_by.0,
        })
    });
    Ok(axum::Json(OwnKeys { keys: lines.collect::<Result<_, ApiError>>()? }))
}

/// Remove a tenant's own key for a provider: the next call does without it, and the key is deleted. Its admins and
/// owners may.
#[utoipa::path(delete, path = "/api/byok/{provider}", tag = "tenants",
    params(("provider" = String, Path, description = "`openai`, `anthropic` or `deepseek`"), Which,
        ("x-calos-tenant" = Option<Uuid>, Header, description = "the tenant")),
    responses((status = 204), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 429, body = ErrorBody),
        (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
async fn remove(
    State(app): State<App>,
    caller: TenantCaller,
    context: RequestContext,
    Path(provider): Path<String>,
    Query(which): Query<Which>,
) -> Result<Response, ApiError> {
    let (person, tenant_id) = person(&caller, which.tenant_id)?;
    let provider = known(&provider).ok_or_else(|| ApiError::not_found("provider key"))?;
    let request = context.metadata(person.actor()).into();
    app.auth.changes.end(person.user_id())?;
    let keyring = app.secrets.keyring().as_ref();
    let done = byok::remove(&app.log, keyring, tenant_id, provider, (person.user_id(), now()), request).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT).respond(&done.positions))
}

impl From<ByokFailure> for ApiError {
    fn from(failure: ByokFailure) -> Self {
        let message = failure.to_string();
        match failure {
            ByokFailure::Tenant(refusal) => refusal.into(),
            ByokFailure::NoKey => Self::new(Code::InvalidField, message).with_param("apiKey"),
            ByokFailure::Rejected { .. } => Self::new(Code::ProviderKeyRejected, message).with_param("apiKey"),
            ByokFailure::Unchecked { source, .. } => {
                Self::new(Code::ProviderUnavailable, format!("{message}; nothing was stored, try again in a moment"))
                    .retry_after(PROVIDER_RETRY_AFTER_SECONDS)
                    .because(source)
            }
            ByokFailure::NotConfigured { .. } => Self::new(Code::ProviderUnavailable, message).with_param("provider"),
            ByokFailure::Keyring(error) => {
                Self::new(Code::DatabaseUnavailable, "the keyring cannot be reached; nothing was stored, try again")
                    .because(error)
            }
            ByokFailure::Log(error) => error.into(),
            ByokFailure::World(fault) => fault.into(),
        }
    }
}
