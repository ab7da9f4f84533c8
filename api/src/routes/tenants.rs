//! Tenants and their API keys.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use calos_commands::api_keys::{self, KeyWish};
use calos_commands::tenants::{self, membership};
use calos_domain::api_key::KeyLimits;
use calos_domain::tenant::MemberRole;
use calos_domain::{KeyId, TenantId};
use calos_projections::{Projection, api_keys as key_rows, tenants as tenant_rows};

use super::auth::role_name;
use crate::auth::SessionCaller;
use crate::error::{ApiError, Code};
use crate::idempotency::{Answer, Claimer};
use crate::moment::{parse_rfc3339, rfc3339};
use crate::openapi::ErrorBody;
use crate::position::After;
use crate::request::{Path, Post, RequestContext, now};
use crate::wiring::App;

/// The endpoints.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(issue_key, list_keys)).routes(routes!(revoke_key))
}

/// A tenant to be.
#[derive(Deserialize, ToSchema)]
struct TenantBody {
    /// What people call it, 1 to 200 characters.
    name: String,
}

/// A tenant that was created.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Created {
    /// The tenant.
    tenant_id: Uuid,
    /// What people call it.
    name: String,
    /// What its creator is in it: always `owner`.
    role: &'static str,
}

/// Create a tenant. It begins on the free tier with an empty wallet: the free start comes with a person, once.
#[utoipa::path(post, path = "/api/tenants", tag = "tenants", request_body = TenantBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "repeats are answered with the first answer")),
    responses((status = 201, body = Created), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 409, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
async fn create(
    State(app): State<App>,
    caller: SessionCaller,
    context: RequestContext,
    post: Post<TenantBody>,
) -> Result<Response, ApiError> {
    let actor = caller.actor();
    let owner = caller.user_id();
    let who = actor.to_string();
    let tenant_id = TenantId(Uuid::now_v7());
    let name = post.body.name.trim().to_owned();
    let work = async |claimer: Claimer| {
        let created = Created { tenant_id: tenant_id.0, name: name.clone(), role: role_name(MemberRole::Owner) };
        let answer = Answer::json(StatusCode::CREATED, &created)?;
        let request = claimer.request(context.metadata(actor), &answer)?;
        let done = tenants::create(&app.log, tenant_id, &name, owner, now(), request).await?;
        Ok(answer.respond(&done.positions))
    };
    // The tenant is new each time; what repetitions share is who asks.
    post.attempt.once(&app, &who, &owner.to_string(), work).await
}

/// A tenant one belongs to.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TenantLine {
    /// The tenant.
    tenant_id: Uuid,
    /// What people call it.
    name: String,
    /// What one is in it: `member`, `admin` or `owner`.
    role: String,
    /// Whether it came with one's account.
    personal: bool,
    /// Since when it is there, RFC 3339.
    created_at: String,
}

/// The tenants one belongs to, oldest first.
#[derive(Serialize, ToSchema)]
struct TenantList {
    /// The tenants.
    tenants: Vec<TenantLine>,
}

/// List one's own tenants.
#[utoipa::path(get, path = "/api/tenants", tag = "tenants",
    params(("calos-after" = Option<String>, Header, description = "positions this read must have seen, such as 3:17")),
    responses((status = 200, body = TenantList), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
async fn list(State(app): State<App>, caller: SessionCaller, after: After) -> Result<Json<TenantList>, ApiError> {
    after.wait(&app, tenant_rows::Tenants::NAME).await?;
    let rows = tenant_rows::of_user(&app.pool, caller.user_id()).await?;
    let lines = rows.into_iter().map(|row| {
        Ok(TenantLine {
            tenant_id: row.tenant_id.0,
            name: row.name,
            role: row.role,
            personal: row.personal,
            created_at: rfc3339(row.created_at)?,
        })
    });
    Ok(Json(TenantList { tenants: lines.collect::<Result<_, ApiError>>()? }))
}

/// How often a key may call.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Limits {
    /// Calls within any 60 seconds; 60 when left out.
    #[serde(default = "Limits::per_minute_default")]
    per_minute: u32,
    /// Calls within any 3,600 seconds; 1,000 when left out.
    #[serde(default = "Limits::per_hour_default")]
    per_hour: u32,
    /// Calls within any 86,400 seconds; 10,000 when left out.
    #[serde(default = "Limits::per_day_default")]
    per_day: u32,
}

impl Limits {
    fn per_minute_default() -> u32 {
        KeyLimits::default().per_minute
    }

    fn per_hour_default() -> u32 {
        KeyLimits::default().per_hour
    }

    fn per_day_default() -> u32 {
        KeyLimits::default().per_day
    }
}

/// A key to be. Unknown fields are refused: a restriction that is spelt wrong must not be taken for none.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeyBody {
    /// What people call it, 1 to 100 characters.
    name: Option<String>,
    /// The only paths it may call, such as `/v1/chat/completions`.
    endpoints: Option<Vec<String>>,
    /// The only models it may name.
    models: Option<Vec<String>>,
    /// The only networks it may call from, in CIDR.
    ip_allowlist: Option<Vec<String>>,
    /// How often it may call.
    limits: Option<Limits>,
    /// Until when, RFC 3339; for ever when left out.
    expires_at: Option<String>,
}

impl KeyBody {
    fn wish(self) -> Result<KeyWish, ApiError> {
        if let Some(path) = self.endpoints.iter().flatten().find(|path| !path.starts_with('/')) {
            return Err(ApiError::field(
                "endpoints",
                format!("{path} is no path; one looks like /v1/chat/completions"),
            ));
        }
        let limits = self.limits.map_or_else(KeyLimits::default, |limits| KeyLimits {
            per_minute: limits.per_minute,
            per_hour: limits.per_hour,
            per_day: limits.per_day,
        });
        let expires_at = self.expires_at.map(|text| parse_rfc3339("expiresAt", &text)).transpose()?;
        Ok(KeyWish {
            name: self.name.map(|name| name.trim().to_owned()),
            endpoints: self.endpoints,
            models: self.models,
            ip_allowlist: self.ip_allowlist,
            limits,
            budgets: calos_domain::api_key::KeyBudgets::default(),
            expires_at,
        })
    }
}

/// A key that was issued. `key` is shown here and never again.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct IssuedKey {
    /// The half it is looked up by.
    key_id: String,
    /// The whole key: keep it, it is shown only once.
    key: String,
    /// What the key begins with, up to its secret half.
    prefix: String,
    /// Its last four characters.
    last_four: String,
    /// When, RFC 3339.
    created_at: String,
}

/// What a key begins with, up to its secret half: enough to find it by, useless for calling.
fn prefix(tenant_id: TenantId, key_id: &str) -> String {
    format!("sk-tenant-{tenant_id}-{key_id}")
}

/// Issue a key. Its admins and owners may.
#[utoipa::path(post, path = "/api/tenants/{id}/keys", tag = "tenants", request_body = KeyBody,
    params(("id" = Uuid, Path, description = "the tenant"),
        ("Idempotency-Key" = Option<String>, Header, description = "repeats are answered with the first answer")),
    responses((status = 201, body = IssuedKey), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
async fn issue_key(
    State(app): State<App>,
    caller: SessionCaller,
    context: RequestContext,
    Path(id): Path<Uuid>,
    post: Post<KeyBody>,
) -> Result<Response, ApiError> {
    let tenant_id = TenantId(id);
    let actor = caller.actor();
    let who = actor.to_string();
    let wish = post.body.wish()?;
    let work = async |claimer: Claimer| {
        app.auth.key_issues.spend(&caller.user_id()).map_err(|seconds| {
            let message = "you issued too many keys in a short time; wait before the next one";
            ApiError::new(Code::TooManyAttempts, message).retry_after(seconds)
        })?;
        let new = api_keys::prepare(&app.log, &app.world, tenant_id, caller.user_id(), wish).await?;
        let issued = IssuedKey {
            key_id: new.issue.key_id.to_string(),
            key: new.key.expose().to_owned(),
            prefix: prefix(tenant_id, new.issue.key_id.as_str()),
            last_four: new.issue.last_four.clone(),
            created_at: rfc3339(new.issue.issued_at)?,
        };
        let answer = Answer::json(StatusCode::CREATED, &issued)?;
        let request = claimer.request(context.metadata(actor), &answer)?;
        let done = new.append(&app.log, request).await?;
        Ok(answer.respond(&done.positions))
    };
    post.attempt.once(&app, &who, &tenant_id.to_string(), work).await
}

/// A key as people see it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct KeyLine {
    /// The half it is looked up by.
    key_id: String,
    /// What people call it.
    name: Option<String>,
    /// What the key begins with, up to its secret half.
    prefix: String,
    /// Its last four characters.
    last_four: String,
    /// The only paths it may call; null without a restriction.
    endpoints: Option<Vec<String>>,
    /// The only models it may name; null without a restriction.
    models: Option<Vec<String>>,
    /// The only networks it may call from; null without a restriction.
    ip_allowlist: Option<Vec<String>>,
    /// How often it may call.
    limits: ShownLimits,
    /// Until when, RFC 3339; null for ever.
    expires_at: Option<String>,
    /// Who issued it.
    issued_by: Uuid,
    /// When, RFC 3339.
    created_at: String,
    /// Since when it opens nothing any more, RFC 3339.
    revoked_at: Option<String>,
}

/// How often a key may call, as it is shown.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ShownLimits {
    /// Calls within any 60 seconds.
    per_minute: i64,
    /// Calls within any 3,600 seconds.
    per_hour: i64,
    /// Calls within any 86,400 seconds.
    per_day: i64,
}

/// A tenant's keys, newest first.
#[derive(Serialize, ToSchema)]
struct KeyList {
    /// The keys, revoked ones included.
    keys: Vec<KeyLine>,
}

/// List a tenant's keys. Its admins and owners may.
#[utoipa::path(get, path = "/api/tenants/{id}/keys", tag = "tenants",
    params(("id" = Uuid, Path, description = "the tenant"),
        ("calos-after" = Option<String>, Header, description = "positions this read must have seen, such as 3:17")),
    responses((status = 200, body = KeyList), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
async fn list_keys(
    State(app): State<App>,
    caller: SessionCaller,
    Path(id): Path<Uuid>,
    after: After,
) -> Result<Json<KeyList>, ApiError> {
    let tenant_id = TenantId(id);
    membership(&app.log, tenant_id, caller.user_id(), MemberRole::Admin).await?;
    after.wait(&app, key_rows::ApiKeys::NAME).await?;
    let rows = key_rows::of_tenant(&app.pool, tenant_id).await?;
    let lines = rows.into_iter().map(|row| {
        let [per_minute, per_hour, per_day] = row.limits;
        Ok(KeyLine {
            prefix: prefix(tenant_id, &row.key_id),
            key_id: row.key_id,
            name: row.name,
            last_four: row.last_four,
            endpoints: row.endpoints,
            models: row.models,
            ip_allowlist: row.ip_allowlist,
            limits: ShownLimits { per_minute, per_hour, per_day },
            expires_at: row.expires_at.map(rfc3339).transpose()?,
            issued_by: row.issued_by.0,
            created_at: rfc3339(row.issued_at)?,
            revoked_at: row.revoked_at.map(rfc3339).transpose()?,
        })
    });
    Ok(Json(KeyList { keys: lines.collect::<Result<_, ApiError>>()? }))
}

/// Revoke a key, at once and for ever. Its admins and owners may.
#[utoipa::path(delete, path = "/api/tenants/{id}/keys/{keyId}", tag = "tenants",
    params(("id" = Uuid, Path, description = "the tenant"), ("keyId" = String, Path, description = "the key's id")),
    responses((status = 204), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
async fn revoke_key(
    State(app): State<App>,
    caller: SessionCaller,
    context: RequestContext,
    Path((id, key_id)): Path<(Uuid, String)>,
) -> Result<Response, ApiError> {
    let tenant_id = TenantId(id);
    let key_id: KeyId = key_id.parse().map_err(|_| ApiError::not_found("API key"))?;
    let request = context.metadata(caller.actor()).into();
    let revoked = api_keys::revoke(&app.log, tenant_id, &key_id, caller.user_id(), now(), request).await;
    app.auth.keys.forget(tenant_id, &key_id);
    Ok(Answer::empty(StatusCode::NO_CONTENT).respond(&revoked?.positions))
}
