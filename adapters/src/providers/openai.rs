//! OpenAI's API, and every vendor that speaks its dialect: the same adapter with another [`Vendor`].

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use calos_commands::log::Boxed;
use calos_commands::ports::SecretText;
use calos_commands::provider::{
    ChatProvider, ChatRequest, Chunk, ChunkStream, Completion, MaxTokensField, ModelListing, ProviderError, Transcript,
};
use calos_commands::raw_object::RawObject;
use futures_util::stream;
use reqwest::RequestBuilder;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde::Deserialize;

use super::chunks::{DONE, read_chunk, read_completion, set};
use super::embeddings;
use super::http::{LISTING_TIMEOUT, Pieces, ProviderHttp, base_url};
use super::lines::LineTooLong;
use super::sse::Sse;

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
}

/// OpenAI itself, or a compatible backend at its address.
const OPENAI: Vendor = Vendor { name: NAME, max_tokens_field: None, has_developer_role: true, has_embeddings: true };

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

/// The client's fields with what CALOS decided in their place.
fn body(vendor: &Vendor, request: &ChatRequest, streaming: bool) -> Result<Vec<u8>, ProviderError> {
    #[derive(serde::Serialize)]
    struct StreamOptions {
        include_usage: bool,
    }
    let name = vendor.name;
    let mut body = RawObject::clone(&request.fields);
    if !vendor.has_developer_role {
        without_developer(name, &mut body)?;
    }
    set(name, &mut body, "model", &request.model)?;
    let field = vendor.max_tokens_field.unwrap_or(request.max_tokens_field);
    set(name, &mut body, field.as_str(), &request.max_tokens)?;
    if streaming {
        set(name, &mut body, "stream", &true)?;
        // Always asked for: a stream that is not counted would be given away.
        set(name, &mut body, "stream_options", &StreamOptions { include_usage: true })?;
    }
    super::chunks::written(name, &body).map(Into::into)
}

/// Says `system` where the client said `developer`.
fn without_developer(provider: &'static str, body: &mut RawObject) -> Result<(), ProviderError> {
    if !body.get("messages").is_some_and(|messages| messages.contains("\"developer\"")) {
        return Ok(());
    }
    let mut messages: Vec<RawObject> = body.lenient("messages").unwrap_or_default();
    for message in &mut messages {
        if message.get("role") == Some("\"developer\"") {
            set(provider, message, "role", "system")?;
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
            let text = self.http.whole(name, self.chat(request, false)?, self.http.settings().whole).await?;
            read_completion(name, &text, &request.transcript)
        })
    }

    fn stream<'a>(&'a self, request: &'a ChatRequest) -> Boxed<'a, Result<ChunkStream, ProviderError>> {
        Box::pin(async move {
            let pieces = self.http.pieces(self.vendor.name, self.chat(request, true)?).await?;
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
            embeddings::read(name, &self.http.whole_within(name, request, limit, embeddings::ANSWER_MAX_BYTES).await?)
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
    let (sse, ready) = (Sse::default(), VecDeque::new());
    let reader = Reader { provider, pieces, sse, ready, ended: false, show_usage, transcript };
    Box::pin(stream::unfold(reader, |mut reader| async move { Some((reader.next().await?, reader)) }))
}

struct Reader {
    provider: &'static str,
    pieces: Pieces,
    sse: Sse,
    ready: VecDeque<Vec<u8>>,
    ended: bool,
    show_usage: bool,
    transcript: Transcript,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<Chunk, ProviderError>> {
        if self.ended {
            return None;
        }
        let read = match self.event().await {
            Ok(data) if data == DONE => {
                self.ended = true;
                return None;
            }
            Ok(data) => read_chunk(self.provider, data, self.show_usage, &self.transcript),
            Err(error) => Err(error),
        };
        self.ended = read.is_err();
        Some(read)
    }

    async fn event(&mut self) -> Result<Vec<u8>, ProviderError> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                return Ok(data);
            }
            let Some(piece) = self.pieces.next().await? else {
                let detail = "the stream ended without [DONE]".to_owned();
                return Err(ProviderError::BadAnswer { provider: self.provider, detail });
            };
            self.sse.push(&piece);
            while let Some(event) = self.sse.next_event().map_err(|error| too_long(self.provider, error))? {
                // An event without data is a keep-alive of another kind.
                if !event.data.is_empty() {
                    self.ready.push_back(event.data);
                }
            }
            if !self.ready.is_empty() {
                self.pieces.alive();
            }
        }
    }
}

/// A line or event that went over its bound, in the port's words.
pub(super) fn too_long(provider: &'static str, error: LineTooLong) -> ProviderError {
    ProviderError::BadAnswer { provider, detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use calos_commands::provider::MaxTokensField;

    use super::*;

    fn request(fields: &str) -> ChatRequest {
        ChatRequest {
            answer_id: "chatcmpl-test".to_owned(),
            dialect: calos_commands::provider::Dialect::OpenAi,
            key: None,
            model: "gpt-4".to_owned(),
            fields: Arc::new(serde_json::from_str(fields).unwrap()),
            max_tokens: 64,
            max_tokens_field: MaxTokensField::MaxTokens,
            show_usage: false,
            prompt_estimate_tokens: 10,
            transcript: calos_commands::provider::Transcript::default(),
        }
    }

    #[test]
    fn what_calos_decided_goes_upstream_and_the_rest_as_it_came() {
        let request =
            request(r#"{"messages":[{"role":"user","content":"hi"}],"temperature":0.10,"new_field":{"x":1}}"#);
        let plain = String::from_utf8(body(&OPENAI, &request, false).unwrap()).unwrap();
        assert_eq!(
            plain,
            r#"{"messages":[{"role":"user","content":"hi"}],"temperature":0.10,"new_field":{"x":1},"model":"gpt-4","max_tokens":64}"#
        );
        let streaming = String::from_utf8(body(&OPENAI, &request, true).unwrap()).unwrap();
        assert!(streaming.ends_with(r#""stream":true,"stream_options":{"include_usage":true}}"#), "{streaming}");
    }

    #[test]
    fn the_version_stands_once_in_the_address() {
        assert_eq!(&*versioned("https://api.openai.com"), "https://api.openai.com/v1");
        assert_eq!(&*versioned("https://api.openai.com/v1/"), "https://api.openai.com/v1");
        assert_eq!(&*versioned("http://127.0.0.1:8000/openai"), "http://127.0.0.1:8000/openai/v1");
    }

    #[test]
    fn a_listing_is_read() {
        let text = r#"{"object":"list","data":[{"id":"gpt-4","object":"model","created":1687882411,"owned_by":"openai"},{"id":"x"}]}"#;
        let models = read_listing(NAME, text.as_bytes()).unwrap();
        let gpt_4 = ModelListing { id: "gpt-4".into(), created: 1_687_882_411, owned_by: "openai".into(), local: None };
        assert_eq!(models[0], gpt_4);
        assert_eq!(models[1].owned_by, "openai");
        assert!(read_listing(NAME, b"{}").is_err());
    }

    #[test]
    fn a_key_that_breaks_the_header_is_refused_and_a_good_one_is_never_shown() {
        let http = ProviderHttp::new(super::super::HttpSettings::default()).unwrap();
        assert!(OpenAi::new(http.clone(), DEFAULT_BASE_URL, "sk-a\nb").is_err());
        let account = OpenAi::new(http, DEFAULT_BASE_URL, "sk-secret").unwrap();
        assert!(!format!("{account:?}").contains("secret"));
    }
}
