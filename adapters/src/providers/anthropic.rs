//! Anthropic's Messages API.
//!
//! A client that speaks Anthropic's own dialect is passed through, fields and events untouched; one that speaks OpenAI's is
//! translated, its request in [`super::anthropic_request`], its answer in [`super::anthropic_answer`] and
//! [`super::anthropic_stream`].

use std::fmt;
use std::sync::Arc;

use calos_commands::log::Boxed;
use calos_commands::ports::SecretText;
use calos_commands::provider::{
    ChatProvider, ChatRequest, ChunkStream, Completion, Dialect, ModelListing, ProviderError,
};
use calos_commands::raw_object::RawObject;
use reqwest::RequestBuilder;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::anthropic_answer::{account_error, bad, read_message};
use super::anthropic_request::translate;
use super::anthropic_stream::chunk_stream;
use super::chunks::{set, written};
use super::http::{LISTING_TIMEOUT, ProviderHttp};
use super::openai::{BadKey, versioned};

/// The name in events and answers.
pub const NAME: &str = "anthropic";

/// Where Anthropic is when nothing else is configured.
pub const DEFAULT_BASE_URL: &str = "https://api.anthropic.com";

/// The version of the wire format this module was written for.
const VERSION: &str = "2023-06-01";

const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");

const ANTHROPIC_BETA: HeaderName = HeaderName::from_static("anthropic-beta");

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The most models of a listing that are asked for and taken in.
const LISTING_MAX_MODELS: usize = 1_000;

/// An account at Anthropic.
#[derive(Clone)]
pub struct Anthropic {
    http: ProviderHttp,
    base: Arc<str>,
    /// The platform's own; without one, only calls that bring a key can be made.
    key: Option<HeaderValue>,
}

impl fmt::Debug for Anthropic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Anthropic").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Anthropic {
    /// `base` is the server's root, as in [`DEFAULT_BASE_URL`], or the root and `/v1`. The key is the platform's; without
    /// one, calls have to bring a tenant's.
    ///
    /// # Errors
    /// [`BadKey`] when the key cannot be sent.
    pub fn new<'k>(http: ProviderHttp, base: &str, key: impl Into<Option<&'k str>>) -> Result<Self, BadKey> {
        Ok(Self { http, base: versioned(base), key: key.into().map(header).transpose()? })
    }

    /// The tenant's key when the call brings one, else the platform's.
    fn key(&self, own: Option<&SecretText>) -> Result<HeaderValue, ProviderError> {
        match own {
            Some(key) => header(key.expose()).map_err(|error| ProviderError::Status {
                provider: NAME,
                status: 401,
                message: error.to_string(),
                code: Some("authentication_error".to_owned()),
                param: None,
                retry_after: None,
            }),
            // No route leads here.
            None => self.key.clone().ok_or_else(|| ProviderError::Unreachable {
                provider: NAME,
                detail: "this installation has no key of its own there".to_owned(),
            }),
        }
    }

    fn signed(&self, request: RequestBuilder, own: Option<&SecretText>) -> Result<RequestBuilder, ProviderError> {
        Ok(request.header(X_API_KEY, self.key(own)?).header(ANTHROPIC_VERSION, VERSION))
    }

    fn post(&self, request: &ChatRequest, streaming: bool) -> Result<RequestBuilder, ProviderError> {
        let body = body(request, streaming)?;
        let call = self.http.client().post(format!("{}/messages", self.base));
        let call = self.signed(call, request.key.as_ref())?.header(CONTENT_TYPE, "application/json").body(body);
        Ok(match &request.betas {
            Some(betas) => call.header(ANTHROPIC_BETA, betas),
            None => call,
        })
    }

    async fn listing(&self, own: Option<&SecretText>, most: usize) -> Result<Vec<ModelListing>, ProviderError> {
        let call = self.http.client().get(format!("{}/models?limit={most}", self.base));
        let text = self.http.whole(NAME, self.signed(call, own)?, LISTING_TIMEOUT).await?;
        read_listing(&text)
    }
}

fn header(key: &str) -> Result<HeaderValue, BadKey> {
    let mut value = HeaderValue::try_from(key).map_err(|_| BadKey)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The request in Anthropic's words, with what CALOS decided in its place.
fn body(request: &ChatRequest, streaming: bool) -> Result<Vec<u8>, ProviderError> {
    let mut body = match request.dialect {
        Dialect::Anthropic => RawObject::clone(&request.fields),
        Dialect::OpenAi => translate(request)?,
    };
    set(NAME, &mut body, "model", &request.model)?;
    set(NAME, &mut body, "max_tokens", &request.max_tokens)?;
    if streaming {
        set(NAME, &mut body, "stream", &true)?;
    }
    written(NAME, &body).map(Into::into)
}

impl ChatProvider for Anthropic {
    fn name(&self) -> &'static str {
        NAME
    }

    fn complete<'a>(&'a self, request: &'a ChatRequest) -> Boxed<'a, Result<Completion, ProviderError>> {
        Box::pin(async move {
            let call = self.post(request, false)?;
            let text = self.http.whole(NAME, call, self.http.settings().whole).await.map_err(account_error)?;
            read_message(request, &text)
        })
    }

    fn stream<'a>(&'a self, request: &'a ChatRequest) -> Boxed<'a, Result<ChunkStream, ProviderError>> {
        Box::pin(async move {
            let pieces = self.http.pieces(NAME, self.post(request, true)?).await.map_err(account_error)?;
            Ok(chunk_stream(pieces, request))
        })
    }

    fn models(&self) -> Boxed<'_, Result<Vec<ModelListing>, ProviderError>> {
        Box::pin(self.listing(None, LISTING_MAX_MODELS))
    }

    fn has_platform_account(&self) -> bool {
        self.key.is_some()
    }

    fn check_key<'a>(&'a self, key: &'a SecretText) -> Boxed<'a, Result<(), ProviderError>> {
        Box::pin(async move { self.listing(Some(key), 1).await.map(drop) })
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
    created_at: Option<String>,
    /// Anthropic itself does not say; a server that speaks its language may.
    #[serde(default)]
    owned_by: Option<String>,
}

fn read_listing(text: &[u8]) -> Result<Vec<ModelListing>, ProviderError> {
    let listing: WireListing = serde_json::from_slice(text).map_err(|error| bad(&error))?;
    let models = listing.data.into_iter().take(LISTING_MAX_MODELS).map(|model| {
        let created = model.created_at.and_then(|at| OffsetDateTime::parse(&at, &Rfc3339).ok());
        ModelListing {
            id: model.id,
            created: created.map_or(0, OffsetDateTime::unix_timestamp),
            owned_by: model.owned_by.unwrap_or_else(|| NAME.to_owned()),
            local: None,
        }
    });
    Ok(models.collect())
}

#[cfg(test)]
mod tests {
    use calos_commands::provider::MaxTokensField;

    use super::*;

    fn request(dialect: Dialect, fields: &str) -> ChatRequest {
        ChatRequest {
            answer_id: "chatcmpl-test".to_owned(),
            dialect,
            key: None,
            model: "claude-sonnet-4-5-20250929".to_owned(),
            fields: Arc::new(serde_json::from_str(fields).unwrap()),
            betas: None,
            max_tokens: 64,
            max_tokens_field: MaxTokensField::MaxTokens,
            show_usage: false,
            prompt_estimate_tokens: 10,
            transcript: calos_commands::provider::Transcript::default(),
        }
    }

    #[test]
    fn a_request_in_anthropics_own_words_goes_upstream_as_it_came() {
        let fields = r#"{"messages":[{"role":"user","content":"hi"}],"temperature":0.10,"new_field":{"x":1}}"#;
        let request = request(Dialect::Anthropic, fields);
        let plain = String::from_utf8(body(&request, false).unwrap()).unwrap();
        let decided = r#","model":"claude-sonnet-4-5-20250929","max_tokens":64}"#;
        assert_eq!(plain, format!("{}{decided}", fields.strip_suffix('}').unwrap()));
        let streaming = String::from_utf8(body(&request, true).unwrap()).unwrap();
        assert!(streaming.ends_with(r#""max_tokens":64,"stream":true}"#), "{streaming}");
    }

    #[test]
    fn the_betas_of_a_call_stand_in_its_header() {
        let http = ProviderHttp::new(super::super::HttpSettings::default()).unwrap();
        let account = Anthropic::new(http, DEFAULT_BASE_URL, "sk-ant-secret").unwrap();
        let mut request = request(Dialect::Anthropic, r#"{"messages":[]}"#);
        let plain = account.post(&request, false).unwrap().build().unwrap();
        assert!(!plain.headers().contains_key(ANTHROPIC_BETA));
        request.betas = Some("context-management-2025-06-27".to_owned());
        let with = account.post(&request, true).unwrap().build().unwrap();
        assert_eq!(with.headers()[ANTHROPIC_BETA], "context-management-2025-06-27");
    }

    #[test]
    fn a_listing_is_read() {
        let text = r#"{"data":[{"type":"model","id":"claude-sonnet-4-20250514","display_name":"Claude Sonnet 4",
            "created_at":"2025-02-19T00:00:00Z"},{"id":"x"}],"has_more":false,"first_id":"a","last_id":"b"}"#;
        let models = read_listing(text.as_bytes()).unwrap();
        assert_eq!((models[0].id.as_str(), models[0].created), ("claude-sonnet-4-20250514", 1_739_923_200));
        assert_eq!((models[1].created, models[1].owned_by.as_str()), (0, "anthropic"));
        assert!(read_listing(b"{}").is_err());
    }

    #[test]
    fn a_key_that_breaks_the_header_is_refused_and_a_good_one_is_never_shown() {
        let http = ProviderHttp::new(super::super::HttpSettings::default()).unwrap();
        assert!(Anthropic::new(http.clone(), DEFAULT_BASE_URL, "sk-a\nb").is_err());
        let account = Anthropic::new(http.clone(), DEFAULT_BASE_URL, "sk-ant-secret").unwrap();
        assert!(!format!("{account:?}").contains("secret"));
        assert!(account.has_platform_account());
        let without = Anthropic::new(http, DEFAULT_BASE_URL, None).unwrap();
        assert!(!without.has_platform_account());
        assert!(matches!(without.key(None), Err(ProviderError::Unreachable { .. })));
        let own = SecretText::new("sk-ant-own");
        assert_eq!(without.key(Some(&own)).unwrap(), "sk-ant-own");
        assert!(matches!(without.key(Some(&SecretText::new("a\nb"))), Err(ProviderError::Status { status: 401, .. })));
    }
}
