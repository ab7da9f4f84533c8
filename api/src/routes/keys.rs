//! A tenant's API keys: issued, listed, changed, rotated, revoked. Its admins and owners may.

mod shapes;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use calos_commands::api_keys::{self, NewKey};
use calos_commands::tenants::membership;
use calos_domain::tenant::MemberRole;
use calos_domain::{KeyId, TenantId};
use calos_projections::{Projection, api_keys as key_rows};

use crate::auth::SessionCaller;
use crate::error::{ApiError, Code};
use crate::idempotency::{Answer, Claimer};
use crate::moment::rfc3339;
use crate::openapi::ErrorBody;
use crate::position::After;
use crate::request::{Json, Path, Post, RequestContext, now};
use crate::to_the_end::to_the_end;
use crate::wiring::App;
use shapes::{
    ChangeBody, ChangedKey, IssuedKey, KeyBody, KeyLine, KeyList, RotateBody, RotatedKey, ShownSettings, prefix,
};

/// The endpoints.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(issue, list)).routes(routes!(change, revoke)).routes(routes!(rotate))
}

/// Each key costs a hash, so how many one person may have made is limited.
fn pace(app: &App, caller: &SessionCaller) -> Result<(), ApiError> {
    app.auth.key_issues.spend(&caller.user_id()).map_err(|seconds| {
        let message = "you issued too many keys in a short time; wait before the next one";
        ApiError::new(Code::TooManyAttempts, message).retry_after(seconds)
    })
}

fn issued(new: &NewKey) -> Result<IssuedKey, ApiError> {
    Ok(IssuedKey {
        key_id: new.issue.key_id.to_string(),
        key: new.key.expose().to_owned(),
        prefix: prefix(new.issue.tenant_id, new.issue.key_id.as_str()),
        last_four: new.issue.last_four.clone(),
        created_at: rfc3339(new.issue.issued_at)?,
    })
}

/// What cannot be a key's id is no key's.
fn known(key_id: &str) -> Result<KeyId, ApiError> {
    key_id.parse().map_err(|_| ApiError::not_found("API key"))
}

/// Issue a key. Its admins and owners may; a tenant has 1,000 live ones at most.
#[utoipa::path(post, path = "/api/tenants/{id}/keys", tag = "tenants", request_body = KeyBody,
    params(("id" = Uuid, Path, description = "the tenant"),
        ("Idempotency-Key" = Option<String>, Header, description = "repeats are answered with the first answer")),
    responses((status = 201, body = IssuedKey), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
async fn issue(
    State(app): State<App>,
    caller: SessionCaller,
    context: RequestContext,
    Path(id): Path<Uuid>,
    post: Post<KeyBody>,
) -> Result<Response, ApiError> {
    let tenant_id = TenantId(id);
    let actor = caller.actor();
    let who = actor.to_string();
    let wish = post.body.settings()?;
    let work = async |claimer: Claimer| {
        pace(&app, &caller)?;
        let new = api_keys::prepare(&app.log, &app.world, tenant_id, caller.user_id(), wish).await?;
        let answer = Answer::json(StatusCode::CREATED, &issued(&new)?)?;
        let request = claimer.request(context.metadata(actor), &answer)?;
        let done = new.append(&app.log, request).await?;
        Ok(answer.respond(&done.positions))
    };
    post.attempt.once(&app, &who, &tenant_id.to_string(), work).await
}

/// Let a new key take a key's place. It may do what the old one may; both open until the overlap ends, then only the
/// new one.
#[utoipa::path(post, path = "/api/tenants/{id}/keys/{keyId}/rotate", tag = "tenants", request_body = RotateBody,
    params(("id" = Uuid, Path, description = "the tenant"), ("keyId" = String, Path, description = "the old key's id"),
        ("Idempotency-Key" = Option<String>, Header, description = "repeats are answered with the first answer")),
    responses((status = 201, body = RotatedKey), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
async fn rotate(
    State(app): State<App>,
    caller: SessionCaller,
    context: RequestContext,
    Path((id, key_id)): Path<(Uuid, String)>,
    post: Post<RotateBody>,
) -> Result<Response, ApiError> {
    let (tenant_id, old) = (TenantId(id), known(&key_id)?);
    let actor = caller.actor();
    let who = actor.to_string();
    let overlap_seconds = post.body.overlap_seconds();
    let work = async |claimer: Claimer| {
        pace(&app, &caller)?;
        let (log, user_id) = (&app.log, caller.user_id());
        let rotation = api_keys::prepare_rotation(log, &app.world, tenant_id, user_id, &old, overlap_seconds).await?;
        let rotated = RotatedKey {
            issued: issued(&rotation.new)?,
            replaces: old.to_string(),
            overlap_ends_at: rfc3339(rotation.ends_at())?,
        };
        let answer = Answer::json(StatusCode::CREATED, &rotated)?;
        let request = claimer.request(context.metadata(actor), &answer)?;
        let (log, keys) = (app.log.clone(), Arc::clone(&app.auth.keys));
        let done = to_the_end(async move {
            let done = rotation.append(&log, request).await;
            keys.forget(tenant_id, &old);
            // Until here nobody repeats the request beside this one.
            drop(claimer);
            Ok(done?)
        });
        Ok(answer.respond(&done.await?.positions))
    };
    post.attempt.once(&app, &who, &tenant_id.to_string(), work).await
}

/// List a tenant's keys, live ones first, 1,000 at the most. Its admins and owners may.
#[utoipa::path(get, path = "/api/tenants/{id}/keys", tag = "tenants",
    params(("id" = Uuid, Path, description = "the tenant"),
        ("calos-after" = Option<String>, Header, description = "positions this read must have seen, such as 3:17")),
    responses((status = 200, body = KeyList), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
async fn list(
    State(app): State<App>,
    caller: SessionCaller,
    Path(id): Path<Uuid>,
    after: After,
) -> Result<axum::Json<KeyList>, ApiError> {
    let tenant_id = TenantId(id);
    membership(&app.log, tenant_id, caller.user_id(), MemberRole::Admin).await?;
    after.wait(&app, key_rows::ApiKeys::NAME).await?;
    let rows = key_rows::of_tenant(&app.pool, tenant_id).await?;
    let ids = rows.iter().filter_map(|row| row.key_id.parse().ok()).collect();
    let mut spending = api_keys::spending(&app.log, tenant_id, ids, now()).await?;
    let lines = rows.into_iter().map(|row| {
        let id: Option<KeyId> = row.key_id.parse().ok();
        KeyLine::new(row, id.and_then(|id| spending.remove(&id)).unwrap_or_default())
    });
    Ok(axum::Json(KeyList { keys: lines.collect::<Result<_, ApiError>>()? }))
}

/// Change what a key may do, from the next call on. Its admins and owners may.
#[utoipa::path(patch, path = "/api/tenants/{id}/keys/{keyId}", tag = "tenants", request_body = ChangeBody,
    params(("id" = Uuid, Path, description = "the tenant"), ("keyId" = String, Path, description = "the key's id")),
    responses((status = 200, body = ChangedKey), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
async fn change(
    State(app): State<App>,
    caller: SessionCaller,
    context: RequestContext,
    Path((id, key_id)): Path<(Uuid, String)>,
    Json(body): Json<ChangeBody>,
) -> Result<Response, ApiError> {
    let (tenant_id, key_id) = (TenantId(id), known(&key_id)?);
    let request = context.metadata(caller.actor()).into();
    let wanted = body.change()?;
    let user_id = caller.user_id();
    app.auth.changes.make(user_id)?;
    let (log, keys, id) = (app.log.clone(), Arc::clone(&app.auth.keys), key_id.clone());
    let changed = to_the_end(async move {
        let changed = api_keys::change(&log, tenant_id, &id, wanted, user_id, now(), request).await;
        keys.forget(tenant_id, &id);
        Ok(changed?)
    });
    let changed = changed.await?;
    let shown = ChangedKey { key_id: key_id.to_string(), settings: ShownSettings::new(changed.answer)? };
    Ok(Answer::json(StatusCode::OK, &shown)?.respond(&changed.positions))
}

/// Revoke a key, at once and for ever. Its admins and owners may.
#[utoipa::path(delete, path = "/api/tenants/{id}/keys/{keyId}", tag = "tenants",
    params(("id" = Uuid, Path, description = "the tenant"), ("keyId" = String, Path, description = "the key's id")),
    responses((status = 204), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
async fn revoke(
    State(app): State<App>,
    caller: SessionCaller,
    context: RequestContext,
    Path((id, key_id)): Path<(Uuid, String)>,
) -> Result<Response, ApiError> {
    let (tenant_id, key_id) = (TenantId(id), known(&key_id)?);
    let request = context.metadata(caller.actor()).into();
    let user_id = caller.user_id();
    app.auth.changes.end(user_id)?;
    let (log, keys) = (app.log.clone(), Arc::clone(&app.auth.keys));
    let revoked = to_the_end(async move {
        let revoked = api_keys::revoke(&log, tenant_id, &key_id, user_id, now(), request).await;
        keys.forget(tenant_id, &key_id);
        Ok(revoked?)
    });
    Ok(Answer::empty(StatusCode::NO_CONTENT).respond(&revoked.await?.positions))
}
