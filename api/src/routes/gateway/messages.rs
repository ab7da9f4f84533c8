//! The gateway in Anthropic's dialect: `/v1/messages`, for its SDK as it is. The same engine answers as under
//! `/v1/chat/completions`, with every model either of them reaches.
//!
//! The header `anthropic-beta` is not passed on: what a beta changes may have no price here.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use calos_commands::complete_chat::{ChatCall, about_message_tokens};
use calos_commands::raw_object::RawObject;

use super::{BillingShape, answered};
use crate::auth::KeyCaller;
use crate::error::ApiError;
use crate::request::{Post, RequestContext};
use crate::wiring::App;

/// The endpoints.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(messages)).routes(routes!(count_tokens))
}

/// A request for a message, as Anthropic's API takes it. Fields that are not named here go to Anthropic as they came.
#[derive(ToSchema)]
#[schema(as = MessageRequest)]
#[expect(dead_code, reason = "the shape for the document; the request itself is kept as it came")]
struct RequestShape {
    /// The model; left out, the tier's own.
    model: Option<String>,
    /// The most tokens of the answer, thinking included.
    max_tokens: u64,
    /// The conversation so far, one message at least; each has a role and content, text or a list of blocks.
    messages: Vec<serde_json::Value>,
    /// What stands above the conversation: text, or a list of text blocks.
    system: Option<serde_json::Value>,
    /// The tools the model may call; the caller runs them.
    tools: Option<Vec<serde_json::Value>>,
    /// Whether the answer comes in pieces, as server-sent events.
    stream: Option<bool>,
}

/// An answer: Anthropic's `message` object, and who answered at what price.
#[derive(ToSchema)]
#[schema(as = MessageAnswer)]
#[expect(dead_code, reason = "the shape for the document; the answer itself is passed on as it came")]
struct AnswerShape {
    /// The answer's id.
    id: String,
    /// `message`.
    r#type: String,
    /// The model that answered.
    model: String,
    /// What it says: blocks of text, thinking and calls of tools.
    content: Vec<serde_json::Value>,
    /// Why it ended.
    stop_reason: String,
    /// `anthropic`, `openai`, `deepseek` or `ollama`.
    provider: String,
    /// What it cost.
    billing: BillingShape,
}

/// An error, as Anthropic's clients read it.
#[derive(Serialize, ToSchema)]
struct AnthropicErrorBody {
    /// `error`.
    r#type: String,
    /// The error object.
    error: AnthropicErrorObject,
}

/// The error object of `AnthropicErrorBody`.
#[derive(Serialize, ToSchema)]
struct AnthropicErrorObject {
    /// The class of error: `invalid_request_error`, `authentication_error`, `rate_limit_error`, ….
    r#type: String,
    /// What happened and what to do about it.
    message: String,
}

/// Answers a request for a message with the model the tenant's licence reaches, and charges the wallet for it.
#[utoipa::path(post, path = "/v1/messages", tag = "gateway", request_body = RequestShape,
    params(("Idempotency-Key" = Option<String>, Header, description = "repeats are answered with the first answer")),
    responses((status = 200, body = AnswerShape, description = "the answer, or with stream: true the events of a message \
        stream; message_stop carries provider and billing"),
        (status = 400, body = AnthropicErrorBody), (status = 401, body = AnthropicErrorBody),
        (status = 402, body = AnthropicErrorBody), (status = 403, body = AnthropicErrorBody),
        (status = 404, body = AnthropicErrorBody), (status = 413, body = AnthropicErrorBody),
        (status = 429, body = AnthropicErrorBody), (status = 503, body = AnthropicErrorBody)),
    security(("tenantKey" = [])))]
async fn messages(
    State(app): State<App>,
    key: KeyCaller,
    context: RequestContext,
    post: Post<RawObject>,
) -> Result<Response, ApiError> {
    let call = ChatCall::read_messages(post.body)?;
    answered(&app, &key, &context, post.attempt, call).await
}

/// How many tokens a request has.
#[derive(Serialize, ToSchema)]
struct TokenCount {
    /// The likely number.
    input_tokens: u64,
    /// Always: it is counted from the text's length, not with the model's own tokenizer.
    estimated: bool,
}

/// Tells how many tokens a request for a message most likely has. It costs nothing and asks no provider.
#[utoipa::path(post, path = "/v1/messages/count_tokens", tag = "gateway", request_body = RequestShape,
    responses((status = 200, body = TokenCount), (status = 400, body = AnthropicErrorBody),
        (status = 401, body = AnthropicErrorBody), (status = 403, body = AnthropicErrorBody)),
    security(("tenantKey" = [])))]
async fn count_tokens(
    _key: KeyCaller,
    crate::request::Json(body): crate::request::Json<RawObject>,
) -> Result<Json<TokenCount>, ApiError> {
    Ok(Json(TokenCount { input_tokens: about_message_tokens(&body)?, estimated: true }))
}
