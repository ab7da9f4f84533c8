//! OpenAI's API, and every vendor that speaks its dialect: the same adapter with another [`Vendor`].

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use calos_commands::log::Boxed;
use calos_commands::ports::SecretText;
use calos_commands::provider::{
    ChatProvider, ChatRequest, Chunk, ChunkKind, ChunkStream, Completion, MaxTokensField, ModelListing, ProviderError,
    Transcript,
};
use calos_commands::raw_object::RawObject;
use calos_domain::pricing::PriceBook;
use reqwest::RequestBuilder;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::chunks::{DONE, read_chunk, read_completion, set};
use super::embeddings;
use super::http::{HttpSettings, LISTING_TIMEOUT, Pieces, ProviderHttp, base_url};
use super::lines::LineTooLong;
use super::retry_after::soon_again;
use super::sse::Sse;
use super::teller::{Teller, told_by};

/// The name in events and answers.
pub const NAME: &str = "openai";

/// Where OpenAI is when nothing else is configured.
pub const DEFAULT_BASE_URL: &str = "https://api.openai.com";

/// The most models of a listing that are taken in.
const LISTING_MAX_MODELS: usize = 2_000;

/// What sets one speaker of the dialect apart from the others.
#[derive(Debug)]
pub struct Vendor {
    /// The name in events, answers and the price book.
    pub name: &'static str,
    /// The only name it has for the answer's limit; none when it knows both.
    pub max_tokens_field: Option<MaxTokensField>,
    /// Whether it knows the role `developer`; to others it is said as `system`, which it replaced.
    pub has_developer_role: bool,
    /// Whether it has embedding models.
    pub has_embeddings: bool,
    /// What earlier answers' thoughts are to it.
    pub thoughts: Thoughts,
}

/// What a vendor makes of the thoughts in earlier answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Thoughts {
    /// It knows no field for them; they are left out.
    Unknown,
    /// It wants its own `reasoning_content` back with every answer that called tools, and refuses one without; what another
    /// vendor answered has none, and an empty one does.
    GoBack,
}

/// OpenAI itself, or a compatible backend at its address.
const OPENAI: Vendor = Vendor {
    name: NAME,
    max_tokens_field: None,
    has_developer_role: true,
    has_embeddings: true,
    thoughts: Thoughts::Unknown,
};

/// The key cannot stand in a header.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a provider's key is visible ASCII without line breaks")]
pub struct BadKey;

/// An account at OpenAI, or at another vendor that speaks its dialect.
#[derive(Clone)]
pub struct OpenAi {
    vendor: &'static Vendor,
    http: ProviderHttp,
    base: Arc<str>,
    /// The platform's own; without one, only calls that bring a key can be made.
    authorization: Option<HeaderValue>,
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.vendor.name;
        f.debug_struct("OpenAi").field("vendor", &name).field("base", &self.base).finish_non_exhaustive()
    }
}

impl OpenAi {
    /// `base` is the server's root, as in [`DEFAULT_BASE_URL`], or what OpenAI's own SDKs take: the root and `/v1`. The
    /// key is the platform's; without one, calls have to bring a tenant's.
    ///
    /// # Errors
    /// [`BadKey`] when the key cannot be sent.
    pub fn new<'k>(http: ProviderHttp, base: &str, key: impl Into<Option<&'k str>>) -> Result<Self, BadKey> {
        Self::at(&OPENAI, http, base, key.into())
    }

    /// The same at another vendor.
    ///
    /// # Errors
    /// [`BadKey`] when the key cannot be sent.
    pub fn at(vendor: &'static Vendor, http: ProviderHttp, base: &str, key: Option<&str>) -> Result<Self, BadKey> {
        Ok(Self { vendor, http, base: versioned(base), authorization: key.map(bearer).transpose()? })
    }

    /// The tenant's key when the call brings one, else the platform's.
    fn authorization(&self, own: Option<&SecretText>) -> Result<HeaderValue, ProviderError> {
        let provider = self.vendor.name;
        match own {
            Some(key) => bearer(key.expose()).map_err(|error| ProviderError::Status {
                provider,
                status: 401,
                message: error.to_string(),
                code: Some("invalid_api_key".to_owned()),
                param: None,
                retry_after: None,
            }),
            // No route leads here.
            None => self.authorization.clone().ok_or_else(|| ProviderError::Unreachable {
                provider,
                detail: "this installation has no key of its own there".to_owned(),
            }),
        }
    }

    fn post(&self, path: &str, request: &ChatRequest, body: Vec<u8>) -> Result<RequestBuilder, ProviderError> {
        Ok(self
            .http
            .client()
            .post(format!("{}/{path}", self.base))
            .header(AUTHORIZATION, self.authorization(request.key.as_ref())?)
            .header(CONTENT_TYPE, "application/json")
            .body(body))
    }

    fn chat(&self, request: &ChatRequest, streaming: bool) -> Result<RequestBuilder, ProviderError> {
        self.post("chat/completions", request, body(self.vendor, request, streaming)?)
    }

    async fn listing(&self, own: Option<&SecretText>) -> Result<Vec<ModelListing>, ProviderError> {
        let request = self.http.client().get(format!("{}/models", self.base));
        let request = request.header(AUTHORIZATION, self.authorization(own)?);
        let text = self.http.whole(self.vendor.name, request, LISTING_TIMEOUT).await?;
        read_listing(self.vendor.name, &text)
    }
}

fn bearer(key: &str) -> Result<HeaderValue, BadKey> {
    let mut authorization = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| BadKey)?;
    authorization.set_sensitive(true);
    Ok(authorization)
}

/// The base address with the version at its end.
pub(super) fn versioned(base: &str) -> Arc<str> {
    let base = base_url(base);
    let last = base.rsplit('/').next().unwrap_or_default();
    let version = last.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok());
    if version { base } else { format!("{base}/v1").into() }
}

/// The time limits of a model's stream. While a model reasons unseen nothing comes, and one the price book does not have may
/// be such a model.
fn limits(settings: HttpSettings, model: &str) -> HttpSettings {
    let book = PriceBook::current();
    if book.model(model).is_none() || book.hides_reasoning(model) { settings.for_unseen_reasoning() } else { settings }
}

/// The client's fields with what CALOS decided in their place.
fn body(vendor: &Vendor, request: &ChatRequest, streaming: bool) -> Result<Vec<u8>, ProviderError> {
    let name = vendor.name;
    let mut body = RawObject::clone(&request.fields);
    suit_messages(vendor, &mut body)?;
    set(name, &mut body, "model", &request.model)?;
    let field = vendor.max_tokens_field.unwrap_or(request.max_tokens_field);
    set(name, &mut body, field.as_str(), &request.max_tokens)?;
    let mut options: RawObject = body.lenient("stream_options").unwrap_or_default();
    body.remove("stream_options");
    if streaming {
        set(name, &mut body, "stream", &true)?;
        // Always asked for: a stream that is not counted would be given away.
        set(name, &mut options, "include_usage", &true)?;
        set(name, &mut body, "stream_options", &options)?;
    }
    super::chunks::written(name, &body).map(Into::into)
}

/// Says the messages in the vendor's own words, touching them only where they hold something it does not take.
fn suit_messages(vendor: &Vendor, body: &mut RawObject) -> Result<(), ProviderError> {
    let provider = vendor.name;
    let Some(text) = body.given("messages") else { return Ok(()) };
    let developer = !vendor.has_developer_role && text.contains("\"developer\"");
    let thoughts = match vendor.thoughts {
        Thoughts::Unknown => text.contains("\"reasoning_content\""),
        Thoughts::GoBack => text.contains("\"tool_calls\""),
    };
    if !developer && !thoughts && !text.contains("\"thinking_blocks\"") {
        return Ok(());
    }
    let mut messages: Vec<RawObject> = body.lenient("messages").unwrap_or_default();
    for message in &mut messages {
        if developer && message.get("role") == Some("\"developer\"") {
            set(provider, message, "role", "system")?;
        }
        // Anthropic's proofs of its own thoughts mean nothing to anybody else.
        message.remove("thinking_blocks");
        match vendor.thoughts {
            Thoughts::Unknown => drop(message.remove("reasoning_content")),
            Thoughts::GoBack => {
                let calls = message.lenient::<Vec<IgnoredAny>>("tool_calls").is_some_and(|calls| !calls.is_empty());
                if calls && message.given("reasoning_content").is_none() {
                    set(provider, message, "reasoning_content", "")?;
                }
            }
        }
    }
    set(provider, body, "messages", &messages)
}

impl ChatProvider for OpenAi {
    fn name(&self) -> &'static str {
        self.vendor.name
    }

    fn has_platform_account(&self) -> bool {
        self.authorization.is_some()
    }

    fn complete<'a>(&'a self, request: &'a ChatRequest) -> Boxed<'a, Result<Completion, ProviderError>> {
        Box::pin(async move {
            let name = self.vendor.name;
            let limit = self.http.settings().whole;
            let text = self.http.whole(name, self.chat(request, false)?, limit).await.map_err(soon_again)?;
            read_completion(name, &text, &request.transcript)
        })
    }

    fn stream<'a>(&'a self, request: &'a ChatRequest) -> Boxed<'a, Result<ChunkStream, ProviderError>> {
        Box::pin(async move {
            let call = self.chat(request, true)?;
            let limits = limits(self.http.settings(), &request.model);
            let pieces = self.http.pieces_within(self.vendor.name, call, limits).await.map_err(soon_again)?;
            Ok(chunk_stream(self.vendor.name, pieces, request))
        })
    }

    fn embed<'a>(&'a self, request: &'a ChatRequest) -> Boxed<'a, Result<Completion, ProviderError>> {
        Box::pin(async move {
            let name = self.vendor.name;
            if !self.vendor.has_embeddings {
                return Err(embeddings::lacking(name));
            }
            embeddings::fits(name, request)?;
            let request = self.post("embeddings", request, embeddings::body(name, request)?)?;
            let limit = self.http.settings().whole;
            let answer = self.http.whole_within(name, request, limit, embeddings::ANSWER_MAX_BYTES).await;
            embeddings::read(name, &answer.map_err(soon_again)?)
        })
    }

    fn models(&self) -> Boxed<'_, Result<Vec<ModelListing>, ProviderError>> {
        Box::pin(self.listing(None))
    }

    fn check_key<'a>(&'a self, key: &'a SecretText) -> Boxed<'a, Result<(), ProviderError>> {
        Box::pin(async move { self.listing(Some(key)).await.map(drop) })
    }
}

#[derive(Deserialize)]
struct WireListing {
    data: Vec<WireModel>,
}

#[derive(Deserialize)]
struct WireModel {
    id: String,
    #[serde(default)]
    created: Option<i64>,
    #[serde(default)]
    owned_by: Option<String>,
}

fn read_listing(provider: &'static str, text: &[u8]) -> Result<Vec<ModelListing>, ProviderError> {
    let listing: WireListing = serde_json::from_slice(text)
        .map_err(|error| ProviderError::BadAnswer { provider, detail: error.to_string() })?;
    let models = listing.data.into_iter().take(LISTING_MAX_MODELS).map(|model| ModelListing {
        id: model.id,
        created: model.created.unwrap_or(0),
        owned_by: model.owned_by.unwrap_or_else(|| provider.to_owned()),
        local: None,
    });
    Ok(models.collect())
}

/// The chunks of a stream in OpenAI's dialect, whoever sends it.
#[must_use]
pub fn chunk_stream(provider: &'static str, pieces: Pieces, request: &ChatRequest) -> ChunkStream {
    let (show_usage, transcript) = (request.show_usage, request.transcript.clone());
    told_by(Reader { provider, pieces, sse: Sse::default(), finished: false, show_usage, transcript })
}

struct Reader {
    provider: &'static str,
    pieces: Pieces,
    sse: Sse,
    /// Whether the answer has had its `finish_reason`.
    finished: bool,
    show_usage: bool,
    transcript: Transcript,
}

impl Teller for Reader {
    async fn read_on(&mut self, ready: &mut VecDeque<Chunk>) -> Result<bool, ProviderError> {
        let Some(piece) = self.pieces.next().await? else {
            // Some backends send no mark behind an answer that has had its end.
            if self.finished {
                return Ok(false);
            }
            let detail = "the stream ended without [DONE]".to_owned();
            return Err(ProviderError::BadAnswer { provider: self.provider, detail });
        };
        self.sse.push(&piece);
        while let Some(event) = self.sse.next_event().map_err(|error| too_long(self.provider, error))? {
            // An event without data is a keep-alive of another kind.
            if event.data.is_empty() {
                continue;
            }
            self.pieces.alive();
            if event.data == DONE {
                return Ok(false);
            }
            let chunk = read_chunk(self.provider, event.data, self.show_usage, &self.transcript)?;
            self.finished |= chunk.kind == ChunkKind::Finish;
            ready.push_back(chunk);
        }
        Ok(true)
    }
}

/// A line or event that went over its bound, in the port's words.
pub(super) fn too_long(provider: &'static str, error: LineTooLong) -> ProviderError {
    ProviderError::BadAnswer { provider, detail: error.to_string() }
}

#[cfg(test)]
#[path = "openai_tests.rs"]
mod tests;
