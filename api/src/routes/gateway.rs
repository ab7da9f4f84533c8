//! The gateway's endpoints, in OpenAI's dialect: `/v1/chat/completions`, `/v1/models` and [`embeddings`], and in
//! Anthropic's ([`messages`]). For tenant keys.

mod embeddings;
mod failure;
pub(crate) mod limits;
mod listing;
mod messages;
mod own_account;
mod shapes;
mod stream;

pub(crate) use failure::{Charged, PROVIDER_RETRY_AFTER_SECONDS, told};
pub(crate) use stream::{KEEP_ALIVE, QUIET_MAX, Tells, server_sent_events};

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use calos_commands::complete_chat::{BadRequest, ChatAnswer, ChatCall, ChatCaller, ClaimAnswer, Served};
use calos_commands::provider::Dialect;
use calos_commands::raw_object::RawObject;

use crate::auth::KeyCaller;
use crate::body::Room;
use crate::error::{ApiError, Code};
use crate::idempotency::{Answer, Attempt, Claimer};
use crate::request::{ModelPost, RequestContext, off_the_loop};
use crate::wiring::App;
use shapes::{ChatAnswerShape, ChatRequestShape, OpenAiRefusals};

/// Names the model a client asked for when another answers, because the tenant's tier does not reach it.
pub const SUBSTITUTED_FOR: HeaderName = HeaderName::from_static("x-calos-substituted-for");

/// The endpoints.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(chat_completions))
        .merge(listing::router())
        .merge(messages::router())
        .merge(embeddings::router())
}

/// Answers a chat request with the model the tenant's licence reaches, and charges the wallet for it.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "gateway", request_body = ChatRequestShape,
    params(("Idempotency-Key" = Option<String>, Header,
        description = "repeats are answered with the first answer; not for streams")),
    responses((status = 200, content((ChatAnswerShape = "application/json"), (String = "text/event-stream")),
        description = "the answer, or with stream: true its pieces as server-sent events; the last one before [DONE] \
            carries provider and billing",
        headers(
            ("x-ratelimit-limit-requests" = u64, description = "calls in the window that is nearest to its end"),
            ("x-ratelimit-remaining-requests" = u64, description = "how many are left of it"),
            ("x-ratelimit-reset-requests" = String, description = "until nothing of it is used, such as 6m0s"),
            ("x-calos-substituted-for" = String, description = "the model that was asked for, when another answers"))),
        OpenAiRefusals),
    security(("tenantKey" = [])))]
async fn chat_completions(
    State(app): State<App>,
    key: KeyCaller,
    context: RequestContext,
    post: ModelPost,
) -> Result<Response, ApiError> {
    let ModelPost { body, attempt, room, .. } = post;
    let call = read(body, ChatCall::read).await?;
    answered(&app, &key, &context, attempt, Asked { call, room }).await
}

/// Reads a call, off the event loop when it is large.
async fn read(body: RawObject, read: fn(RawObject) -> Result<ChatCall, BadRequest>) -> Result<ChatCall, ApiError> {
    Ok(off_the_loop(body.value_bytes(), move || read(body)).await??)
}

/// A call, and what its body takes up until it has ended.
struct Asked {
    call: ChatCall,
    room: Arc<Room>,
}

/// Answers a call in its own dialect, whole or in pieces.
async fn answered(
    app: &App,
    key: &KeyCaller,
    context: &RequestContext,
    attempt: Attempt,
    Asked { call, room }: Asked,
) -> Result<Response, ApiError> {
    let caller = caller(key, context);
    if call.streaming {
        if attempt.is_keyed() {
            return Err(ApiError::header(
                "idempotency-key",
                "cannot be kept for a stream; leave it out, or set stream to false",
            ));
        }
        let stream = app.gateway.stream(caller, call).await?;
        return Ok(stream::respond(stream, Arc::clone(&context.request_id), room));
    }
    let (actor, tenant) = (key.actor().to_string(), key.tenant_id().to_string());
    let gateway = app.gateway.clone();
    let dialect = call.dialect;
    attempt
        .once(app, &actor, &tenant, |claimer| async move {
            let answer = gateway.complete(caller, call, claim(claimer, room)).await?;
            let positions = answer.positions.clone();
            let response = rendered(&answer)?.respond(&positions);
            Ok(with_substitution(response, dialect, &answer.served))
        })
        .await
}

fn caller(key: &KeyCaller, context: &RequestContext) -> ChatCaller {
    ChatCaller {
        tenant_id: key.tenant_id(),
        key_id: Some(key.key.key_id.clone()),
        metadata: context.metadata(key.actor()),
    }
}

/// The claim on the answer that is about to be charged. It lives as long as the call does, and so does the room its body
/// takes up.
fn claim(claimer: Claimer, room: Arc<Room>) -> ClaimAnswer {
    Box::new(move |answer: &ChatAnswer| {
        let _kept_until_the_call_has_ended = &room;
        claimer.keep(answer.served.usage_id, || rendered(answer))
    })
}

fn rendered(answer: &ChatAnswer) -> Result<Answer, ApiError> {
    Answer::json(StatusCode::OK, &answer.body)
}

fn with_substitution(mut response: Response, dialect: Dialect, served: &Served) -> Response {
    name_substitution(response.headers_mut(), served);
    limits::tell_in(dialect, response.headers_mut(), &served.limits);
    response
}

/// Says which model was asked for when another answers. A name that is no header value was refused long before.
fn name_substitution(headers: &mut HeaderMap, served: &Served) {
    let named = served.substituted_for.as_deref().and_then(|model| HeaderValue::from_str(model).ok());
    if let Some(model) = named {
        headers.insert(SUBSTITUTED_FOR, model);
    }
}

/// A refusal for a field, with the code OpenAI's clients know.
fn field_refusal(refusal: BadRequest) -> ApiError {
    if refusal.unsupported {
        ApiError::new(Code::UnsupportedParameter, refusal.problem).with_param(refusal.param)
    } else {
        ApiError::new(Code::InvalidField, refusal.problem).with_param(refusal.param)
    }
}
