//! Tenants. Their keys stand in [`super::keys`].

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use calos_commands::tenants::{self, TenantChange};
use calos_domain::TenantId;
use calos_domain::tenant::MemberRole;
use calos_projections::{Projection, tenants as tenant_rows};

use super::auth::role_name;
use crate::auth::SessionCaller;
use crate::error::ApiError;
use crate::idempotency::{Answer, Claimer};
use crate::moment::rfc3339;
use crate::openapi::ErrorBody;
use crate::position::After;
use crate::request::{self, Path, Post, RequestContext, now};
use crate::wiring::App;

/// The endpoints.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(change))
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
        (status = 403, body = ErrorBody), (status = 409, body = ErrorBody), (status = 429, body = ErrorBody),
        (status = 503, body = ErrorBody)),
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
        app.auth.changes.make(owner)?;
        let created = Created { tenant_id: tenant_id.0, name: name.clone(), role: role_name(MemberRole::Owner) };
        let answer = Answer::json(StatusCode::CREATED, &created)?;
        let request = claimer.request(context.metadata(actor), &answer)?;
        let done = tenants::create(&app.log, tenant_id, &name, owner, now(), request).await?;
        Ok(answer.respond(&done.positions))
    };
    // The tenant is new each time; what repetitions share is who asks.
    post.attempt.once(&app, &who, &owner.to_string(), work).await
}

/// What is to change about a tenant; what is left out stays as it is. Unknown fields are refused.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TenantChangeBody {
    /// What people call it, 1 to 200 characters. A tenant that came with an account keeps its name.
    name: Option<String>,
    /// Whether a model beyond its tier is refused with 403 rather than answered by the tier's own.
    strict_models: Option<bool>,
}

/// A tenant as it is after a change.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Changed {
    /// The tenant.
    tenant_id: Uuid,
    /// What people call it.
    name: String,
    /// What one is in it: `admin` or `owner`.
    role: &'static str,
    /// Whether a model beyond its tier is refused with 403 rather than answered by the tier's own.
    strict_models: bool,
}

/// Change a tenant's settings, from the next call on. Its admins and owners may.
#[utoipa::path(patch, path = "/api/tenants/{id}", tag = "tenants", request_body = TenantChangeBody,
    params(("id" = Uuid, Path, description = "the tenant")),
    responses((status = 200, body = Changed), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 429, body = ErrorBody),
        (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
async fn change(
    State(app): State<App>,
    caller: SessionCaller,
    context: RequestContext,
    Path(id): Path<Uuid>,
    request::Json(body): request::Json<TenantChangeBody>,
) -> Result<Response, ApiError> {
    let wanted = TenantChange { name: body.name, strict_models: body.strict_models };
    if wanted == TenantChange::default() {
        return Err(ApiError::field("body", "says nothing to change: send name or strictModels"));
    }
    app.auth.changes.make(caller.user_id())?;
    let request = context.metadata(caller.actor()).into();
    let done = tenants::change(&app.log, TenantId(id), wanted, caller.user_id(), now(), request).await?;
    let (role, tenant) = done.answer;
    let changed = Changed {
        tenant_id: id,
        name: tenant.name.unwrap_or_default(),
        role: role_name(role),
        strict_models: tenant.strict_models,
    };
    Ok(Answer::json(StatusCode::OK, &changed)?.respond(&done.positions))
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
    /// Whether a model beyond its tier is refused with 403 rather than answered by the tier's own.
    strict_models: bool,
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
            strict_models: row.strict_models,
            created_at: rfc3339(row.created_at)?,
        })
    });
    Ok(Json(TenantList { tenants: lines.collect::<Result<_, ApiError>>()? }))
}
