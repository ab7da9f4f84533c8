//! The shapes of `/v1/chat/completions`, for the document alone: requests and answers themselves are kept as they came.

use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoResponses, ToSchema};

use crate::openapi::{AnthropicErrorBody, OpenAiErrorBody};

/// A chat request, as OpenAI's API takes it. Fields that are not named here go to the provider as they came.
#[derive(ToSchema)]
#[schema(as = ChatCompletionRequest)]
#[expect(dead_code, reason = "the shape for the document")]
pub(super) struct ChatRequestShape {
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
    /// How freely the model chooses its words, 0 to 2.
    temperature: Option<f64>,
    /// The share of the likeliest words it chooses from, 0 to 1.
    top_p: Option<f64>,
    /// Functions the model may call; the caller runs them.
    tools: Option<Vec<ToolShape>>,
    /// `none`, `auto`, `required`, or the function that must be called.
    tool_choice: Option<Value>,
    /// What the answer is held to, such as `{"type": "json_object"}`.
    response_format: Option<Value>,
    /// Whether the answer comes in pieces, as server-sent events.
    stream: Option<bool>,
    /// `{"include_usage": true}` ends a stream with its usage.
    stream_options: Option<StreamOptionsShape>,
}

/// Who speaks.
#[derive(ToSchema)]
#[schema(as = ChatRole, rename_all = "lowercase")]
#[expect(dead_code, reason = "the shape for the document")]
enum RoleShape {
    System,
    Developer,
    User,
    Assistant,
    Tool,
    Function,
}

/// A message.
#[derive(ToSchema)]
#[schema(as = ChatMessage)]
#[expect(dead_code, reason = "the shape for the document")]
struct MessageShape {
    /// Who speaks.
    role: RoleShape,
    /// What is said; an assistant that called tools may have said nothing.
    content: Option<ContentShape>,
    /// The tools an assistant called.
    tool_calls: Option<Vec<ToolCallShape>>,
    /// Which call a tool's message answers.
    tool_call_id: Option<String>,
}

/// Text, or a list of parts.
#[derive(Serialize, ToSchema)]
#[schema(as = ChatContent)]
#[serde(untagged)]
#[expect(dead_code, reason = "the shape for the document")]
enum ContentShape {
    Text(String),
    Parts(Vec<PartShape>),
}

/// A part of a message: text, or a picture.
#[derive(Serialize, ToSchema)]
#[schema(as = ChatContentPart)]
struct PartShape {
    /// `text` or `image_url`.
    r#type: String,
    /// The text.
    text: Option<String>,
    /// The picture: `{"url": "data:image/png;base64,…"}`.
    image_url: Option<Value>,
}

/// A function the model may call.
#[derive(ToSchema)]
#[schema(as = ChatTool)]
#[expect(dead_code, reason = "the shape for the document")]
struct ToolShape {
    /// `function`.
    r#type: String,
    /// Its name, description and parameters as a JSON schema.
    function: Value,
}

/// A call of a function.
#[derive(ToSchema)]
#[schema(as = ChatToolCall)]
#[expect(dead_code, reason = "the shape for the document")]
struct ToolCallShape {
    /// The call's id.
    id: String,
    /// `function`.
    r#type: String,
    /// Its name and its arguments, a text of JSON.
    function: CalledShape,
}

/// What was called.
#[derive(ToSchema)]
#[schema(as = ChatCalledFunction)]
#[expect(dead_code, reason = "the shape for the document")]
struct CalledShape {
    /// The function's name.
    name: String,
    /// Its arguments, a text of JSON.
    arguments: String,
}

/// What a stream ends with.
#[derive(ToSchema)]
#[schema(as = ChatStreamOptions)]
#[expect(dead_code, reason = "the shape for the document")]
struct StreamOptionsShape {
    /// Whether a last chunk carries the usage.
    include_usage: Option<bool>,
}

/// Whose model answered.
#[derive(ToSchema)]
#[schema(as = ProviderName, rename_all = "lowercase")]
#[expect(dead_code, reason = "the shape for the document")]
pub(super) enum ProviderShape {
    OpenAi,
    Anthropic,
    DeepSeek,
    Ollama,
}

/// An answer: OpenAI's `chat.completion` object, and who answered at what price.
#[derive(ToSchema)]
#[schema(as = ChatCompletion)]
#[expect(dead_code, reason = "the shape for the document")]
pub(super) struct ChatAnswerShape {
    /// The answer's id.
    id: String,
    /// `chat.completion`.
    object: String,
    /// Seconds since 1970.
    created: i64,
    /// The model that answered.
    model: String,
    /// The answers, as many as `n` said.
    choices: Vec<ChoiceShape>,
    /// What was read and written.
    usage: UsageShape,
    /// Who answered.
    provider: ProviderShape,
    /// What it cost.
    billing: BillingShape,
}

/// One answer.
#[derive(ToSchema)]
#[schema(as = ChatChoice)]
#[expect(dead_code, reason = "the shape for the document")]
struct ChoiceShape {
    /// Which of them.
    index: u64,
    /// What the model says.
    message: AnswerMessageShape,
    /// `stop`, `length`, `tool_calls` or `content_filter`.
    finish_reason: String,
}

/// What a model says.
#[derive(ToSchema)]
#[schema(as = ChatAnswerMessage)]
#[expect(dead_code, reason = "the shape for the document")]
struct AnswerMessageShape {
    /// `assistant`.
    role: String,
    /// Its text; none when it only calls tools.
    content: Option<String>,
    /// The tools it calls.
    tool_calls: Option<Vec<ToolCallShape>>,
}

/// What was read and written.
#[derive(ToSchema)]
#[schema(as = ChatUsage)]
#[expect(dead_code, reason = "the shape for the document")]
struct UsageShape {
    /// Tokens in, those read from a cache included.
    prompt_tokens: u64,
    /// Tokens out, reasoning included.
    completion_tokens: u64,
    /// Both.
    total_tokens: u64,
}

/// What a call cost. `total = provider + markup` holds in micro-dollars; each figure in cents is rounded half up.
#[derive(ToSchema)]
#[schema(as = Billing)]
#[expect(dead_code, reason = "the shape for the document")]
pub(super) struct BillingShape {
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

macro_rules! refusals {
    ($(#[$doc:meta])* $name:ident, $body:ident) => {
        $(#[$doc])*
        #[derive(IntoResponses)]
        #[expect(dead_code, reason = "the shapes for the document")]
        pub(super) enum $name {
            /// The request is wrong; param names the field.
            #[response(status = 400)]
            Invalid($body),
            /// No such key, or it was revoked.
            #[response(status = 401)]
            Unauthenticated($body),
            /// The wallet, the key's budget or the licence cannot pay for it.
            #[response(status = 402)]
            CannotPay($body),
            /// The key, the tier or the licence does not allow it.
            #[response(status = 403)]
            Forbidden($body),
            /// There is no such model.
            #[response(status = 404)]
            UnknownModel($body),
            /// The body did not arrive in time.
            #[response(status = 408)]
            TooSlow($body),
            /// The idempotency key was used for another request, or its first request is still being worked on.
            #[response(status = 409)]
            Conflict($body),
            /// The body is too large.
            #[response(status = 413)]
            TooLarge($body),
            /// The body is not announced as JSON.
            #[response(status = 415)]
            NotJson($body),
            /// Too many calls, or calls in flight keep what the budget has.
            #[response(status = 429, headers(
                ("retry-after" = u64, description = "seconds; left out where waiting does not help"),
                ("x-should-retry" = String, description = "true or false"),
                ("x-ratelimit-limit-requests" = u64, description = "calls in the window that is nearest to its end"),
                ("x-ratelimit-remaining-requests" = u64, description = "how many are left of it"),
                ("x-ratelimit-reset-requests" = String, description = "until nothing of it is used, such as 6m0s")))]
            TooMany($body),
            /// The provider gave an answer that cannot be used, or failed.
            #[response(status = 502)]
            ProviderFailed($body),
            /// Nobody can take the call now.
            #[response(status = 503, headers(("retry-after" = u64, description = "seconds")))]
            Unavailable($body),
            /// The provider took all the time a call may take.
            #[response(status = 504)]
            ProviderTooSlow($body),
        }
    };
}

refusals!(
    /// What a call can be refused for, in OpenAI's words.
    OpenAiRefusals, OpenAiErrorBody
);
refusals!(
    /// What a call can be refused for, in Anthropic's words.
    AnthropicRefusals, AnthropicErrorBody
);
