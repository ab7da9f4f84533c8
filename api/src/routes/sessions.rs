//! One's own sessions: seeing them, ending them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use calos_commands::ports::label;
use calos_commands::sessions;
use calos_domain::SessionId;
use calos_domain::sealed::Sealed;
use calos_domain::session::SessionEndCause;
use calos_projections::{Projection, sessions as session_rows};

use crate::auth::SessionCaller;
use crate::error::ApiError;
use crate::idempotency::Answer;
use crate::moment::rfc3339;
use crate::openapi::ErrorBody;
use crate::position::After;
use crate::request::{Path, RequestContext, now};
use crate::to_the_end::to_the_end;
use crate::wiring::App;

/// The endpoints.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_sessions)).routes(routes!(end_session))
}

/// One of one's own sessions.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SessionLine {
    /// The session.
    session_id: Uuid,
    /// On which device.
    device_id: Uuid,
    /// For which tenant.
    tenant_id: Uuid,
    /// Since when, RFC 3339.
    started_at: String,
    /// Until when, RFC 3339.
    expires_at: String,
    /// Where it was started from.
    address: Option<String>,
    /// What the client said it was.
    user_agent: Option<String>,
    /// Whether it is the one that is asking.
    current: bool,
}

/// One's own sessions that stand, newest first.
#[derive(Serialize, ToSchema)]
struct SessionList {
    /// The sessions.
    sessions: Vec<SessionLine>,
}

/// List one's own sessions.
#[utoipa::path(get, path = "/api/auth/sessions", tag = "auth",
    params(("calos-after" = Option<String>, Header, description = "positions this read must have seen, such as 3:17")),
    responses((status = 200, body = SessionList), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
async fn list_sessions(
    State(app): State<App>,
    caller: SessionCaller,
    after: After,
) -> Result<Json<SessionList>, ApiError> {
    after.wait(&app, session_rows::Sessions::NAME).await?;
    let rows = session_rows::standing(&app.pool, caller.user_id(), now()).await?;
    let mut lines = Vec::with_capacity(rows.len());
    for row in rows {
        lines.push(SessionLine {
            session_id: row.session_id.0,
            device_id: row.device_id.0,
            tenant_id: row.tenant_id.0,
            started_at: rfc3339(row.started_at)?,
            expires_at: rfc3339(row.expires_at)?,
            address: opened(&app, row.address.as_ref(), label::ADDRESS).await?,
            user_agent: opened(&app, row.user_agent.as_ref(), label::USER_AGENT).await?,
            current: row.session_id == caller.session.session_id,
        });
    }
    Ok(Json(SessionList { sessions: lines }))
}

async fn opened(app: &App, sealed: Option<&Sealed>, label: &'static str) -> Result<Option<String>, ApiError> {
    match sealed {
        Some(sealed) => Ok(Some(app.world.personal_data.open(sealed, label).await?)),
        None => Ok(None),
    }
}

/// End one of one's own sessions.
#[utoipa::path(delete, path = "/api/auth/sessions/{id}", tag = "auth",
    params(("id" = Uuid, Path, description = "the session")),
    responses((status = 204), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
async fn end_session(
    State(app): State<App>,
    caller: SessionCaller,
    context: RequestContext,
    Path(id): Path<Uuid>,
) -> Result<Response, ApiError> {
    let (user_id, session_id) = (caller.user_id(), SessionId(id));
    let own = caller.session.session_id == session_id;
    let cause = if own { SessionEndCause::LoggedOut } else { SessionEndCause::Revoked };
    let request = context.metadata(caller.actor()).into();
    let (log, desk) = (app.log.clone(), Arc::clone(&app.auth.sessions));
    let ended = to_the_end(async move {
        let ended = sessions::end(&log, user_id, session_id, cause, now(), request).await;
        desk.forget(user_id, session_id);
        Ok(ended?)
    });
    Ok(Answer::empty(StatusCode::NO_CONTENT).respond(&ended.await?.positions))
}
