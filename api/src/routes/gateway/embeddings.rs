//! `/v1/embeddings`, in OpenAI's dialect: held, charged and kept like a chat call that does not stream.

use axum::extract::State;
use axum::response::Response;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use calos_commands::complete_chat::ChatCall;
use calos_commands::raw_object::RawObject;

use super::{BillingShape, answered};
use crate::auth::KeyCaller;
use crate::error::ApiError;
use crate::openapi::OpenAiErrorBody;
use crate::request::{Post, RequestContext};
use crate::wiring::App;

/// The endpoint.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(embeddings))
}

/// A request for vectors, as OpenAI's API takes it. Fields that are not named here go to the provider as they came.
#[derive(ToSchema)]
#[schema(as = EmbeddingsRequest)]
#[expect(dead_code, reason = "the shape for the document; the request itself is kept as it came")]
struct RequestShape {
    /// The model; left out, the tier's own.
    model: Option<String>,
    /// A text, a list of up to 2,048 texts, or the same as tokens.
    input: serde_json::Value,
    /// How many numbers a vector is to have, for models that can do with fewer.
    dimensions: Option<u64>,
    /// `float`, or `base64` for their four bytes each.
    encoding_format: Option<String>,
    /// Who asks, in the caller's own words.
    user: Option<String>,
}

/// An answer: OpenAI's list of embeddings, and who answered at what price.
#[derive(ToSchema)]
#[schema(as = EmbeddingsAnswer)]
#[expect(dead_code, reason = "the shape for the document; the answer itself is passed on as it came")]
struct AnswerShape {
    /// `list`.
    object: String,
    /// The vectors, in the order of the texts.
    data: Vec<EmbeddingShape>,
    /// The model that answered.
    model: String,
    /// What was read.
    usage: UsageShape,
    /// `openai` or `ollama`.
    provider: String,
    /// What it cost.
    billing: BillingShape,
}

/// One vector.
#[derive(ToSchema)]
#[schema(as = Embedding)]
#[expect(dead_code, reason = "the shape for the document")]
struct EmbeddingShape {
    /// `embedding`.
    object: String,
    /// Which text it is of.
    index: u64,
    /// The numbers, or their bytes as base64.
    embedding: serde_json::Value,
}

/// What was read.
#[derive(ToSchema)]
#[schema(as = EmbeddingsUsage)]
#[expect(dead_code, reason = "the shape for the document")]
struct UsageShape {
    /// Tokens in.
    prompt_tokens: u64,
    /// The same.
    total_tokens: u64,
}

/// Makes vectors of texts with the model the tenant's licence reaches, and charges the wallet for it.
#[utoipa::path(post, path = "/v1/embeddings", tag = "gateway", request_body = RequestShape,
    responses((status = 200, body = AnswerShape),
        (status = 400, body = OpenAiErrorBody), (status = 401, body = OpenAiErrorBody),
        (status = 402, body = OpenAiErrorBody), (status = 403, body = OpenAiErrorBody),
        (status = 404, body = OpenAiErrorBody), (status = 413, body = OpenAiErrorBody),
        (status = 429, body = OpenAiErrorBody), (status = 503, body = OpenAiErrorBody)),
    security(("tenantKey" = [])))]
async fn embeddings(
    State(app): State<App>,
    key: KeyCaller,
    context: RequestContext,
    post: Post<RawObject>,
) -> Result<Response, ApiError> {
    let call = ChatCall::read_embeddings(post.body)?;
    answered(&app, &key, &context, post.attempt, call).await
}
