//! The gateway in Anthropic's dialect: `/v1/messages`, for its SDK as it is. The same engine answers as under
//! `/v1/chat/completions`, with every model either of them reaches.
//!
//! Of the betas in the header `anthropic-beta`, those that change no price go to Anthropic; all of them with the tenant's
//! own key.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use calos_commands::complete_chat::ChatCall;

use super::shapes::{AnthropicRefusals, BillingShape, ProviderShape};
use super::{Asked, answered, read};
use crate::auth::KeyCaller;
use crate::error::ApiError;
use crate::request::{ModelPost, RequestContext};
use crate::wiring::App;

/// The betas a client wants to use.
const ANTHROPIC_BETA: HeaderName = HeaderName::from_static("anthropic-beta");

/// The longest list of betas, in bytes.
const BETAS_MAX_BYTES: usize = 2_048;

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
    /// Who answered.
    provider: ProviderShape,
    /// What it cost.
    billing: BillingShape,
}

/// Answers a request for a message with the model the tenant's licence reaches, and charges the wallet for it.
#[utoipa::path(post, path = "/v1/messages", tag = "gateway", request_body = RequestShape,
    params(("Idempotency-Key" = Option<String>, Header,
            description = "repeats are answered with the first answer; not for streams"),
        ("anthropic-beta" = Option<String>, Header, description = "betas; without a key of one's own those that cost nothing")),
    responses((status = 200, content((AnswerShape = "application/json"), (String = "text/event-stream")),
        description = "the answer, or with stream: true the events of a message stream; message_stop carries provider and \
            billing",
        headers(
            ("anthropic-ratelimit-requests-limit" = u64, description = "calls in the window that is nearest to its end"),
            ("anthropic-ratelimit-requests-remaining" = u64, description = "how many are left of it"),
            ("anthropic-ratelimit-requests-reset" = String, description = "when nothing of it is used, RFC 3339"),
            ("x-calos-substituted-for" = String, description = "the model that was asked for, when another answers"))),
        AnthropicRefusals),
    security(("tenantKey" = [])))]
async fn messages(
    State(app): State<App>,
    key: KeyCaller,
    context: RequestContext,
    headers: HeaderMap,
    post: ModelPost,
) -> Result<Response, ApiError> {
    let betas = betas(&headers)?;
    let ModelPost { body, attempt, room, .. } = post;
    let call = ChatCall { betas, ..read(body, ChatCall::read_messages).await? };
    answered(&app, &key, &context, attempt, Asked { call, room }).await
}

/// The betas of a request, which may name them in several headers.
fn betas(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let unreadable = || {
        let problem = format!("must be names of betas, separated by commas, of {BETAS_MAX_BYTES} bytes at most");
        ApiError::header("anthropic-beta", problem)
    };
    let mut betas = Vec::new();
    for value in headers.get_all(ANTHROPIC_BETA) {
        betas.push(value.to_str().map_err(|_| unreadable())?);
    }
    let betas = betas.join(",");
    if betas.len() > BETAS_MAX_BYTES {
        return Err(unreadable());
    }
    Ok((!betas.is_empty()).then_some(betas))
}

/// How many tokens a request has.
#[derive(Serialize, ToSchema)]
struct TokenCount {
    /// The likely number.
    input_tokens: u64,
    /// Always: Claude's own tokenizer is not public, and another one counts in its place.
    estimated: bool,
}

/// Tells how many tokens a request for a message most likely has. It costs nothing and asks no provider.
#[utoipa::path(post, path = "/v1/messages/count_tokens", tag = "gateway", request_body = RequestShape,
    responses((status = 200, body = TokenCount), AnthropicRefusals),
    security(("tenantKey" = [])))]
async fn count_tokens(
    State(app): State<App>,
    key: KeyCaller,
    ModelPost { body, room, .. }: ModelPost,
) -> Result<Json<TokenCount>, ApiError> {
    app.auth.unmetered.spend(&key)?;
    let input_tokens = app.gateway.count_message_tokens(body).await?;
    drop(room);
    Ok(Json(TokenCount { input_tokens, estimated: true }))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn betas_are_read_from_every_header_that_names_some() {
        let mut headers = HeaderMap::new();
        assert_eq!(betas(&headers).unwrap(), None);
        headers.append(ANTHROPIC_BETA, HeaderValue::from_static("a-1,b-2"));
        headers.append(ANTHROPIC_BETA, HeaderValue::from_static("c-3"));
        assert_eq!(betas(&headers).unwrap().as_deref(), Some("a-1,b-2,c-3"));
        headers.append(ANTHROPIC_BETA, HeaderValue::from_bytes(b"\xff").unwrap());
        assert!(betas(&headers).is_err());
        headers.insert(ANTHROPIC_BETA, HeaderValue::try_from("x".repeat(BETAS_MAX_BYTES + 1)).unwrap());
        assert!(betas(&headers).is_err());
    }
}
