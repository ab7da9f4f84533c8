//! The role a model provider plays: it takes a chat request in OpenAI's shape and answers in OpenAI's shape.
//!
//! A request comes in the dialect its client speaks, OpenAI's or Anthropic's, and is answered in it. A provider of the
//! same dialect gets the client's fields untouched; one that speaks another translates both ways in its own adapter.
//! Dropping a future or a stream of this port cancels the call upstream.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;

use crate::log::Boxed;
use crate::ports::SecretText;
use crate::raw_object::RawObject;
use crate::tokens;

pub use crate::transcript::{TRANSCRIPT_MAX_BYTES, Transcript};

/// The most tokens a provider's report is believed for in one call; beyond it the report counts as missing.
pub const USAGE_MAX_TOKENS: u64 = 100_000_000;

/// Whose words a request and its answer are in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Dialect {
    /// OpenAI's: `chat.completion` objects and chunks; `embeddings` too.
    #[default]
    OpenAi,
    /// Anthropic's: `message` objects and the events of a message stream.
    Anthropic,
}

/// A call as a provider gets it.
#[derive(Clone, Debug)]
pub struct ChatRequest {
    /// The id of the use, for answers whose provider gives none of its own.
    pub answer_id: String,
    /// In whose words the fields are, and the answer is to be.
    pub dialect: Dialect,
    /// The tenant's own key, to be used in place of the platform's.
    pub key: Option<SecretText>,
    /// The model, by the provider's name for it.
    pub model: String,
    /// Everything the client sent, apart from what this struct says instead: `model`, `stream`, `max_tokens` and
    /// `max_completion_tokens`. Of `stream_options`, `show_usage` says what the client sees; what is asked of the provider
    /// is the adapter's.
    pub fields: Arc<RawObject>,
    /// Anthropic's betas this call takes along, comma-separated; nobody else minds them.
    pub betas: Option<String>,
    /// The most tokens each answer may have.
    pub max_tokens: u64,
    /// Which field says so upstream: what the client called it, or what the model wants.
    pub max_tokens_field: MaxTokensField,
    /// Whether the client asked for a usage chunk in its stream.
    pub show_usage: bool,
    /// What the prompt most likely has, for providers that do not count it.
    pub prompt_estimate_tokens: u64,
    /// Where the adapter writes what it gives, for an answer without a report.
    pub transcript: Transcript,
}

/// The two names of the answer's limit in OpenAI's dialect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MaxTokensField {
    /// The older name, which every compatible backend knows.
    MaxTokens,
    /// The newer name; reasoning models refuse the older one.
    MaxCompletionTokens,
}

impl MaxTokensField {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}

/// What a call consumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TokenUsage {
    /// Tokens in, those read from and written to a cache included.
    pub prompt_tokens: u64,
    /// Tokens out, reasoning included.
    pub completion_tokens: u64,
    /// Of the tokens in: read from the provider's cache. Never more than `prompt_tokens`.
    pub cached_tokens: u64,
    /// Of the tokens in: written to the provider's cache for minutes. With the cached ones never more than
    /// `prompt_tokens`.
    pub cache_write_tokens: u64,
    /// Of the tokens in: written to the provider's cache for an hour, beside those written for minutes.
    pub cache_write_hour_tokens: u64,
    /// Of the tokens out: spent on reasoning. Never more than `completion_tokens`.
    pub reasoning_tokens: u64,
    /// Whether any of it is our own count because the provider reported none.
    pub estimated: bool,
}

impl TokenUsage {
    /// A report as the provider gave it, held to what can be true.
    #[must_use]
    pub fn reported(prompt: u64, completion: u64, cached: u64, reasoning: u64) -> Option<Self> {
        (prompt <= USAGE_MAX_TOKENS && completion <= USAGE_MAX_TOKENS).then(|| Self {
            prompt_tokens: prompt,
            completion_tokens: completion,
            cached_tokens: cached.min(prompt),
            reasoning_tokens: reasoning.min(completion),
            ..Self::default()
        })
    }

    /// The same report with what was written to the provider's cache, held to what is left of the prompt.
    #[must_use]
    pub fn with_cache_writes(mut self, minutes: u64, hour: u64) -> Self {
        self.cache_write_hour_tokens = hour.min(self.prompt_tokens - self.cached_tokens);
        self.cache_write_tokens = minutes.min(self.prompt_tokens - self.cached_tokens - self.cache_write_hour_tokens);
        self
    }
}

impl TokenUsage {
    /// Whether a report can be true of a call that was answered with this much: there is always a prompt, and what was
    /// seen has been written.
    #[must_use]
    pub const fn explains(self, produced: Produced) -> bool {
        self.prompt_tokens > 0 && (self.completion_tokens > 0 || produced.pieces == 0)
    }
}

/// How much answer a provider has produced so far, seen from here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Produced {
    /// Pieces with content; providers send about one token in each.
    pub pieces: u64,
    /// Bytes of content: text, reasoning, refusals, tool arguments.
    pub bytes: u64,
    /// Its tokens, once a tokenizer has counted them.
    pub counted_tokens: u64,
}

impl Produced {
    /// One piece of content of that many bytes; an empty one counts as nothing.
    #[must_use]
    pub const fn piece(bytes: u64) -> Self {
        Self { pieces: if bytes == 0 { 0 } else { 1 }, bytes, counted_tokens: 0 }
    }

    /// The same, with its tokens counted.
    #[must_use]
    pub const fn counted(self, tokens: u64) -> Self {
        Self { counted_tokens: tokens, ..self }
    }

    /// More was produced.
    pub fn add(&mut self, more: Self) {
        self.pieces = self.pieces.saturating_add(more.pieces);
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.counted_tokens = self.counted_tokens.saturating_add(more.counted_tokens);
    }

    /// The number of tokens: as a tokenizer counted them, else what is likely. Pieces may carry several tokens each,
    /// never less than one.
    #[must_use]
    pub fn tokens(self) -> u64 {
        let counted = if self.counted_tokens > 0 { self.counted_tokens } else { tokens::about(self.bytes) };
        counted.max(self.pieces)
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The answer's object, in the request's dialect: a `chat.completion`, a `message`, a list of embeddings.
    pub body: RawObject,
    /// The model that answered, by the provider's name for it.
    pub model: String,
    /// What the provider reported; none when it reported nothing believable.
    pub usage: Option<TokenUsage>,
    /// What the answer holds.
    pub produced: Produced,
}

/// What a piece of a streamed answer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChunkKind {
    /// Role, text, tool calls.
    Content,
    /// Says why the answer ends: a `finish_reason`, a `message_delta`.
    Finish,
    /// Follows the end and holds no content: the usage, a `message_stop`.
    Usage,
}

/// One piece of a streamed answer.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// What it is.
    pub kind: ChunkKind,
    /// The object as the client may see it: a `chat.completion.chunk`, or an event of a message stream with its `type`.
    /// A usage chunk nobody asked for has none.
    pub json: Option<Bytes>,
    /// The model that answers, when the chunk says so.
    pub model: Option<String>,
    /// What the provider reported so far, when this chunk reports it. The last report counts.
    pub usage: Option<TokenUsage>,
    /// What this piece holds.
    pub produced: Produced,
}

/// A streamed answer. It ends after the provider's own end mark; ending without one is an error item.
pub type ChunkStream = Pin<Box<dyn Stream<Item = Result<Chunk, ProviderError>> + Send>>;

/// A model a provider has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelListing {
    /// The provider's name for it.
    pub id: String,
    /// Seconds since the Unix epoch; 0 when the provider does not say.
    pub created: i64,
    /// Whose it is, as the provider says.
    pub owned_by: String,
    /// What is known of a model on a machine of the platform's own.
    pub local: Option<LocalModel>,
}

/// A model on a machine of the platform's own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LocalModel {
    /// Where it runs: the server's address.
    pub host: String,
    /// How much room it takes; none when the server does not say.
    pub size_bytes: Option<u64>,
    /// When it was installed or changed, as the server writes it.
    pub modified_at: Option<String>,
    /// What it is built on, such as `llama`.
    pub family: Option<String>,
    /// How large it is, such as `3.2B`.
    pub parameter_size: Option<String>,
}

/// What a provider was doing when its time ran out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Until the first byte of the answer.
    FirstByte,
    /// Between two pieces of the answer.
    Idle,
    /// The whole answer.
    Whole,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::FirstByte => "begin its answer",
            Self::Idle => "go on with its answer",
            Self::Whole => "finish its answer",
        })
    }
}

/// Why a provider gave no answer, or not all of it. No variant carries a key or a provider's headers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// No connection, or it broke.
    #[error("{provider} cannot be reached: {detail}")]
    Unreachable {
        /// Who.
        provider: &'static str,
        /// The transport's words.
        detail: String,
    },
    /// It failed so often of late that it is left alone for a while; nothing was sent.
    #[error("{provider} has failed too often with {model}; it is tried again in {} s", retry_after.as_secs().max(1))]
    CircuitOpen {
        /// Who.
        provider: &'static str,
        /// With which model.
        model: String,
        /// When it is tried again.
        retry_after: Duration,
    },
    /// As many calls as it may have at a time are under way, and none ended in time; nothing was sent.
    #[error("{provider} has {limit} calls{} under way, as many as it may have", if *of_tenant { " of this tenant" } else { "" })]
    Busy {
        /// Who.
        provider: &'static str,
        /// How many.
        limit: usize,
        /// Whether those are the tenant's share, and not all there may be.
        of_tenant: bool,
    },
    /// It took too long.
    #[error("{provider} did not {phase} within {} s", limit.as_secs())]
    Timeout {
        /// Who.
        provider: &'static str,
        /// Doing what.
        phase: Phase,
        /// The limit it ran into.
        limit: Duration,
    },
    /// It answered with an error of its own, as a status or in the middle of a stream.
    #[error("{provider} answered {status}: {message}")]
    Status {
        /// Who.
        provider: &'static str,
        /// The HTTP status; 500 for an error inside a stream that names none.
        status: u16,
        /// Its words.
        message: String,
        /// Its error code, if it gave one.
        code: Option<String>,
        /// The field it blames, if it blames one.
        param: Option<String>,
        /// When to come back, if it said so.
        retry_after: Option<Duration>,
    },
    /// What came is not what its documentation promises, or larger than any answer may be.
    #[error("{provider} gave an unreadable answer: {detail}")]
    BadAnswer {
        /// Who.
        provider: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The tenant's own key is not to be had from the keyring; nothing was sent.
    #[error("{provider} cannot be called with the tenant's own key: {detail}")]
    KeyUnavailable {
        /// Who.
        provider: &'static str,
        /// The keyring's words.
        detail: String,
    },
    /// The request cannot be said in its language; nothing was sent.
    #[error("{message}")]
    Unsupported {
        /// Who.
        provider: &'static str,
        /// The request's field.
        param: &'static str,
        /// What to do instead.
        message: String,
    },
}

/// A provider of chat models.
pub trait ChatProvider: Send + Sync + 'static {
    /// The name in events, answers and the price book: `openai`, `ollama`, ….
    fn name(&self) -> &'static str;

    /// One whole answer.
    ///
    /// # Errors
    /// See [`ProviderError`].
    fn complete<'a>(&'a self, request: &'a ChatRequest) -> Boxed<'a, Result<Completion, ProviderError>>;

    /// One answer in pieces, as they come. The future ends with the provider's first sign of life; what it yields
    /// stands alone.
    ///
    /// # Errors
    /// See [`ProviderError`]; once the stream is there, as its last item.
    fn stream<'a>(&'a self, request: &'a ChatRequest) -> Boxed<'a, Result<ChunkStream, ProviderError>>;

    /// Vectors for texts: `fields` is an `embeddings` request without its model, the body of the answer OpenAI's list.
    ///
    /// # Errors
    /// [`ProviderError::Unsupported`] where there are no embedding models; else see [`ProviderError`].
    fn embed<'a>(&'a self, request: &'a ChatRequest) -> Boxed<'a, Result<Completion, ProviderError>> {
        let message = format!("{} has no embedding models: name one of OpenAI's or Ollama's", self.name());
        let (provider, param) = (self.name(), "model");
        let _no_model = request;
        Box::pin(std::future::ready(Err(ProviderError::Unsupported { provider, param, message })))
    }

    /// The models it has now.
    ///
    /// # Errors
    /// See [`ProviderError`].
    fn models(&self) -> Boxed<'_, Result<Vec<ModelListing>, ProviderError>>;

    /// Whether the platform has an account of its own there; without one it is called with tenants' own keys alone.
    fn has_platform_account(&self) -> bool {
        true
    }

    /// Whether an account key opens anything there, asked with a call that costs nothing.
    ///
    /// # Errors
    /// [`ProviderError::Status`] with 401 or 403 when it does not; [`ProviderError::Unsupported`] where there are no
    /// accounts.
    fn check_key<'a>(&'a self, key: &'a SecretText) -> Boxed<'a, Result<(), ProviderError>> {
        let message = format!("{} takes no keys", self.name());
        let (provider, param) = (self.name(), "provider");
        let _nothing_to_check = key;
        Box::pin(std::future::ready(Err(ProviderError::Unsupported { provider, param, message })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_held_to_what_can_be_true() {
        let usage = TokenUsage::reported(10, 5, 20, 30).unwrap();
        assert_eq!((usage.cached_tokens, usage.reasoning_tokens), (10, 5));
        assert_eq!(TokenUsage::reported(USAGE_MAX_TOKENS + 1, 0, 0, 0), None);
    }

    #[test]
    fn a_report_of_nothing_explains_nothing() {
        let explains = |prompt, completion, bytes| {
            TokenUsage::reported(prompt, completion, 0, 0).unwrap().explains(Produced::piece(bytes))
        };
        assert!(explains(1, 1, 4) && explains(1, 0, 0));
        assert!(!explains(0, 0, 4) && !explains(0, 5, 4) && !explains(5, 0, 4));
    }

    #[test]
    fn several_tokens_in_one_piece_are_not_free() {
        let mut produced = Produced::default();
        produced.add(Produced::piece(400));
        produced.add(Produced::piece(0));
        assert_eq!(produced.pieces, 1);
        assert_eq!(produced.tokens(), 100);
    }
}
