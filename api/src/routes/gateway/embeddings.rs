//! `/v1/embeddings`, in OpenAI's dialect: held, charged and kept like a chat call that does not stream.

use axum::extract::State;
use axum::response::Response;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use calos_commands::complete_chat::ChatCall;

use super::shapes::{BillingShape, OpenAiRefusals, ProviderShape};
use super::{Asked, answered, read};
use crate::auth::KeyCaller;
use crate::error::ApiError;
use crate::idempotency::ANSWER_MAX_BYTES;
use crate::request::{ModelPost, RequestContext};
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
    /// Who answered: `openai` or `ollama`.
    provider: ProviderShape,
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

/// An answer that may be too large to be kept is refused before it is paid for: its repetition would be paid again.
fn refuse_unkept(call: &ChatCall) -> Result<(), ApiError> {
    let most = call.vectors_max_bytes();
    if most <= ANSWER_MAX_BYTES as u64 {
        return Ok(());
    }
    let problem = format!(
        "cannot be kept for so many vectors: their answer may have {most} bytes, {ANSWER_MAX_BYTES} are kept; send fewer \
         texts, set encoding_format to base64, or leave the key out"
    );
    Err(ApiError::header("idempotency-key", problem))
}

/// Makes vectors of texts with the model the tenant's licence reaches, and charges the wallet for it.
#[utoipa::path(post, path = "/v1/embeddings", tag = "gateway", request_body = RequestShape,
    params(("Idempotency-Key" = Option<String>, Header,
        description = "repeats are answered with the first answer; refused where the answer may be too large to keep")),
    responses((status = 200, body = AnswerShape), OpenAiRefusals),
    security(("tenantKey" = [])))]
async fn embeddings(
    State(app): State<App>,
    key: KeyCaller,
    context: RequestContext,
    post: ModelPost,
) -> Result<Response, ApiError> {
    let ModelPost { body, attempt, room, .. } = post;
    let call = read(body, ChatCall::read_embeddings).await?;
    if attempt.is_keyed() {
        refuse_unkept(&call)?;
    }
    answered(&app, &key, &context, attempt, Asked { call, room }).await
}
