//! The gateway's endpoints, in OpenAI's dialect: `/v1/chat/completions`, `/v1/models` and [`embeddings`], and in
//! Anthropic's ([`messages`]). For tenant keys.

mod embeddings;
mod failure;
pub(crate) mod limits;
mod messages;
mod own_account;
mod stream;

pub(crate) use failure::{Charged, told};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use calos_commands::complete_chat::{ChatAnswer, ChatCall, ChatCaller, ClaimAnswer, Served};
use calos_commands::raw_object::RawObject;
use calos_domain::Timestamp;

use crate::auth::KeyCaller;
use crate::error::{ApiError, Code};
use crate::idempotency::{Answer, Attempt, Claimer};
use crate::moment::rfc3339;
use crate::openapi::OpenAiErrorBody;
use crate::request::{Post, RequestContext};
use crate::wiring::App;

/// Names the model a client asked for when another answers, because the tenant's tier does not reach it.
pub const SUBSTITUTED_FOR: HeaderName = HeaderName::from_static("x-calos-substituted-for");

/// When a model was made that nobody knows that of.
const EPOCH: &str = "1970-01-01T00:00:00Z";

/// The endpoints.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(chat_completions))
        .routes(routes!(models))
        .merge(messages::router())
        .merge(embeddings::router())
}

/// A chat request, as OpenAI's API takes it. Fields that are not named here go to the provider as they came.
#[derive(ToSchema)]
#[schema(as = ChatCompletionRequest)]
#[expect(dead_code, reason = "the shape for the document; the request itself is kept as it came")]
struct ChatRequestShape {
    /// The model; left out, the tier's own.
    model: Option<String>,
    /// The conversation so far, one message at least.
    messages: Vec<MessageShape>,
    /// The most tokens of an answer.
    max_tokens: Option<u64>,
    /// The same by its newer name; not both.
    max_completion_tokens: Option<u64>,
    /// How many answers, 1 to 128.
    n: Option<u64>,
    /// Whether the answer comes in pieces, as server-sent events.
    stream: Option<bool>,
    /// `{"include_usage": true}` ends a stream with its usage.
    stream_options: Option<StreamOptionsShape>,
}

/// A message.
#[derive(ToSchema)]
#[schema(as = ChatMessage)]
#[expect(dead_code, reason = "the shape for the document")]
struct MessageShape {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    role: String,
    /// Text, or a list of parts.
    content: String,
}

/// What a stream ends with.
#[derive(ToSchema)]
#[schema(as = ChatStreamOptions)]
#[expect(dead_code, reason = "the shape for the document")]
struct StreamOptionsShape {
    /// Whether a last chunk carries the usage.
    include_usage: Option<bool>,
}

/// An answer: OpenAI's `chat.completion` object, and who answered at what price.
#[derive(ToSchema)]
#[schema(as = ChatCompletion)]
#[expect(dead_code, reason = "the shape for the document; the answer itself is passed on as it came")]
struct ChatAnswerShape {
    /// The answer's id.
    id: String,
    /// `chat.completion`.
    object: String,
    /// The model that answered.
    model: String,
    /// `openai` or `ollama`.
    provider: String,
    /// What it cost.
    billing: BillingShape,
}

/// What a call cost. `total = provider + markup` holds in micro-dollars; each figure in cents is rounded half up.
#[derive(ToSchema)]
#[schema(as = Billing)]
#[expect(dead_code, reason = "the shape for the document")]
struct BillingShape {
    /// What the provider charges, in cents.
    provider_cost_cents: i64,
    /// What CALOS adds, in cents.
    markup_cost_cents: i64,
    /// What the tenant pays, in cents.
    total_cost_cents: i64,
    /// What the tenant pays, in micro-dollars.
    total_cost_micros: i64,
    /// The use, as it stands in `/api/credits/usage`.
    usage_id: uuid::Uuid,
}

/// Answers a chat request with the model the tenant's licence reaches, and charges the wallet for it.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "gateway", request_body = ChatRequestShape,
    responses((status = 200, body = ChatAnswerShape, description = "the answer, or with stream: true its pieces as \
        server-sent events; the last one before [DONE] carries provider and billing"),
        (status = 400, body = OpenAiErrorBody), (status = 401, body = OpenAiErrorBody),
        (status = 402, body = OpenAiErrorBody), (status = 403, body = OpenAiErrorBody),
        (status = 404, body = OpenAiErrorBody), (status = 413, body = OpenAiErrorBody),
        (status = 429, body = OpenAiErrorBody), (status = 503, body = OpenAiErrorBody)),
    security(("tenantKey" = [])))]
async fn chat_completions(
    State(app): State<App>,
    key: KeyCaller,
    context: RequestContext,
    post: Post<RawObject>,
) -> Result<Response, ApiError> {
    let call = ChatCall::read(post.body)?;
    answered(&app, &key, &context, post.attempt, call).await
}

/// Answers a call in its own dialect, whole or in pieces.
async fn answered(
    app: &App,
    key: &KeyCaller,
    context: &RequestContext,
    attempt: Attempt,
    call: ChatCall,
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
        return Ok(stream::respond(stream));
    }
    let (actor, tenant) = (key.actor().to_string(), key.tenant_id().to_string());
    let gateway = app.gateway.clone();
    attempt
        .once(app, &actor, &tenant, |claimer| async move {
            let answer = gateway.complete(caller, call, claim(claimer)).await?;
            let positions = answer.positions.clone();
            let response = rendered(&answer)?.respond(&positions);
            Ok(with_substitution(response, &answer.served))
        })
        .await
}

/// One model, as OpenAI's clients read it and as Anthropic's do: neither minds the other's fields.
#[derive(Serialize, ToSchema)]
struct Model {
    /// Its name.
    id: String,
    /// `model`.
    object: &'static str,
    /// Seconds since 1970; 0 when nobody says.
    created: i64,
    /// Whose it is.
    owned_by: String,
    /// `model`, as Anthropic says it.
    r#type: &'static str,
    /// Its name once more.
    display_name: String,
    /// The same moment as `created`, RFC 3339.
    created_at: String,
}

/// The models a key may use.
#[derive(Serialize, ToSchema)]
struct Models {
    /// `list`.
    object: &'static str,
    /// The models.
    data: Vec<Model>,
    /// Never: all of them are here.
    has_more: bool,
    /// The first one's name.
    first_id: Option<String>,
    /// The last one's name.
    last_id: Option<String>,
}

/// The models the tenant's licence reaches and the key allows.
#[utoipa::path(get, path = "/v1/models", tag = "gateway",
    responses((status = 200, body = Models), (status = 401, body = OpenAiErrorBody), (status = 403, body = OpenAiErrorBody)),
    security(("tenantKey" = [])))]
async fn models(State(app): State<App>, key: KeyCaller, context: RequestContext) -> Result<Json<Models>, ApiError> {
    let models = app.gateway.models(&caller(&key, &context)).await?;
    let data = models.into_iter().map(|model| {
        let created = Timestamp::from_micros(model.created.saturating_mul(1_000_000));
        Model {
            display_name: model.id.clone(),
            id: model.id,
            object: "model",
            r#type: "model",
            created: model.created,
            // A provider may say anything; a moment beyond the calendar is one nobody knows.
            created_at: rfc3339(created).unwrap_or_else(|_| EPOCH.to_owned()),
            owned_by: model.owned_by,
        }
    });
    let data: Vec<Model> = data.collect();
    let id = |model: Option<&Model>| model.map(|model| model.id.clone());
    let (first_id, last_id) = (id(data.first()), id(data.last()));
    Ok(Json(Models { object: "list", data, has_more: false, first_id, last_id }))
}

fn caller(key: &KeyCaller, context: &RequestContext) -> ChatCaller {
    ChatCaller {
        tenant_id: key.tenant_id(),
        key_id: Some(key.key.key_id.clone()),
        metadata: context.metadata(key.actor()),
    }
}

/// The claim on the answer that is about to be charged. An answer that cannot be kept is charged and given all the
/// same: the client has what it paid for, and only its repetition will be a new call.
fn claim(claimer: Claimer) -> ClaimAnswer {
    Box::new(move |answer: &ChatAnswer| {
        let kept = rendered(answer).and_then(|answer| claimer.claim(&answer));
        kept.unwrap_or_else(|error| {
            tracing::warn!(usage = %answer.served.usage_id, %error, "an answer is given without being kept");
            None
        })
    })
}

fn rendered(answer: &ChatAnswer) -> Result<Answer, ApiError> {
    Answer::json(StatusCode::OK, &answer.body)
}

fn with_substitution(mut response: Response, served: &Served) -> Response {
    name_substitution(response.headers_mut(), served);
    limits::tell(response.headers_mut(), &served.limits);
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
fn field_refusal(refusal: calos_commands::complete_chat::BadRequest) -> ApiError {
    if refusal.unsupported {
        ApiError::new(Code::UnsupportedParameter, refusal.problem).with_param(refusal.param)
    } else {
        ApiError::new(Code::InvalidField, refusal.problem).with_param(refusal.param)
    }
}
