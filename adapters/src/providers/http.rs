//! Sends requests to model providers and holds every answer to its bounds in time and size.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use calos_commands::provider::{Phase, ProviderError};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use time::OffsetDateTime;
use tokio::time::{Instant, timeout, timeout_at};

use super::retry_after;

/// How long a connection may take to stand.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stream may take to its first piece. A local model that has to be loaded first needs most of it.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(180);
/// The same at a provider whose models are always loaded; a long prompt has to be read there too.
pub const HOSTED_FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(90);
/// The same at a provider that queues calls when it is busy and keeps them waiting with comments, which are no pieces.
pub const QUEUED_FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a stream may pause between two pieces. Keep-alive comments are no pieces.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a whole answer, or a whole stream, may take.
pub const WHOLE_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a list of models may take.
pub const LISTING_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest whole answer.
pub const ANSWER_MAX_BYTES: usize = 32 * 1024 * 1024;
/// The most of an error's body that is read.
pub const ERROR_MAX_BYTES: usize = 64 * 1024;
/// The most of a provider's error text that is passed on.
pub const MESSAGE_MAX_CHARACTERS: usize = 2_000;
/// How long an unused connection is kept for the next call.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The time limits of one provider.
#[derive(Clone, Copy, Debug)]
pub struct HttpSettings {
    /// See [`FIRST_BYTE_TIMEOUT`].
    pub first_byte: Duration,
    /// See [`IDLE_TIMEOUT`].
    pub idle: Duration,
    /// See [`WHOLE_TIMEOUT`].
    pub whole: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self { first_byte: FIRST_BYTE_TIMEOUT, idle: IDLE_TIMEOUT, whole: WHOLE_TIMEOUT }
    }
}

impl HttpSettings {
    /// The same with another limit to the first piece, unless these are shorter already.
    #[must_use]
    pub fn first_byte_within(self, first_byte: Duration) -> Self {
        Self { first_byte: self.first_byte.min(first_byte), ..self }
    }

    /// For a model that reasons in tokens nobody sees: nothing comes meanwhile, however long it takes, so only the limit of
    /// the whole answer tells silence from death.
    #[must_use]
    pub fn for_unseen_reasoning(self) -> Self {
        Self { first_byte: self.whole, idle: self.whole, whole: self.whole }
    }
}

/// The HTTP client cannot be built: no certificates of the system can be read, as a rule.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client for model providers cannot be built: {0}")]
pub struct NoHttpClient(String);

/// One pool of connections for all providers.
#[derive(Clone, Debug)]
pub struct ProviderHttp {
    client: reqwest::Client,
    settings: HttpSettings,
}

impl ProviderHttp {
    /// Builds the pool. Redirects are not followed: a provider's key must not travel to where an answer points.
    ///
    /// # Errors
    /// [`NoHttpClient`].
    pub fn new(settings: HttpSettings) -> Result<Self, NoHttpClient> {
        // A provider installed by an earlier caller is as good; there is one per process.
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(256)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("calos/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| NoHttpClient(chain(&error)))?;
        Ok(Self { client, settings })
    }

    /// The client, to build a request with.
    #[must_use]
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// The time limits.
    #[must_use]
    pub fn settings(&self) -> HttpSettings {
        self.settings
    }

    /// The same pool with other time limits.
    #[must_use]
    pub fn with_settings(&self, settings: HttpSettings) -> Self {
        Self { client: self.client.clone(), settings }
    }

    /// Sends a request whose answer is read whole, within `limit`.
    ///
    /// # Errors
    /// Any [`ProviderError`] but `Unsupported`.
    pub async fn whole(
        &self,
        provider: &'static str,
        request: RequestBuilder,
        limit: Duration,
    ) -> Result<Bytes, ProviderError> {
        self.whole_within(provider, request, limit, ANSWER_MAX_BYTES).await
    }

    /// The same with a bound of its own on the answer's size.
    ///
    /// # Errors
    /// Any [`ProviderError`] but `Unsupported`.
    pub async fn whole_within(
        &self,
        provider: &'static str,
        request: RequestBuilder,
        limit: Duration,
        max_bytes: usize,
    ) -> Result<Bytes, ProviderError> {
        let answer = async {
            let response = request.send().await.map_err(|error| unreachable(provider, &error))?;
            let response = accepted(provider, response).await?;
            body(provider, response, max_bytes).await
        };
        timeout(limit, answer).await.map_err(|_| ProviderError::Timeout { provider, phase: Phase::Whole, limit })?
    }

    /// Sends a request whose answer is read in pieces.
    ///
    /// # Errors
    /// Any [`ProviderError`] but `Unsupported`.
    pub async fn pieces(&self, provider: &'static str, request: RequestBuilder) -> Result<Pieces, ProviderError> {
        self.pieces_within(provider, request, self.settings).await
    }

    /// The same under time limits of its own.
    ///
    /// # Errors
    /// Any [`ProviderError`] but `Unsupported`.
    pub async fn pieces_within(
        &self,
        provider: &'static str,
        request: RequestBuilder,
        settings: HttpSettings,
    ) -> Result<Pieces, ProviderError> {
        let now = Instant::now();
        let limit = settings.first_byte;
        let answer = async {
            let response = request.send().await.map_err(|error| unreachable(provider, &error))?;
            accepted(provider, response).await
        };
        let late = |_| ProviderError::Timeout { provider, phase: Phase::FirstByte, limit };
        let response = timeout_at(now + limit, answer).await.map_err(late)??;
        Ok(Pieces {
            provider,
            response,
            settings,
            phase: Phase::FirstByte,
            due: now + limit,
            end: now + settings.whole,
        })
    }
}

/// A body on its way, under its time limits.
#[derive(Debug)]
pub struct Pieces {
    provider: &'static str,
    response: Response,
    settings: HttpSettings,
    phase: Phase,
    due: Instant,
    end: Instant,
}

impl Pieces {
    /// The next piece, or none at the end of the body.
    ///
    /// # Errors
    /// `Timeout` and `Unreachable`.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ProviderError> {
        let provider = self.provider;
        let too_long = ProviderError::Timeout { provider, phase: Phase::Whole, limit: self.settings.whole };
        // What has come already is read before any clock is, so a slow reader would never run out of time.
        if Instant::now() >= self.end {
            return Err(too_long);
        }
        let deadline = self.due.min(self.end);
        match timeout_at(deadline, self.response.chunk()).await {
            Ok(piece) => piece.map_err(|error| unreachable(provider, &error)),
            Err(_) if self.end <= self.due => Err(too_long),
            Err(_) => {
                let limit = match self.phase {
                    Phase::FirstByte => self.settings.first_byte,
                    Phase::Idle | Phase::Whole => self.settings.idle,
                };
                Err(ProviderError::Timeout { provider, phase: self.phase, limit })
            }
        }
    }

    /// Something that counts has come: the pause starts anew. Keep-alive comments do not count.
    pub fn alive(&mut self) {
        self.phase = Phase::Idle;
        self.due = Instant::now() + self.settings.idle;
    }
}

/// What both providers' error bodies may look like: an object with words, or the words alone.
#[derive(Debug, Deserialize)]
struct ErrorBody {
    error: ErrorField,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ErrorField {
    Words(String),
    Object(ErrorObject),
}

/// OpenAI's error object, as far as it is passed on.
#[derive(Debug, Default, Deserialize)]
pub struct ErrorObject {
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    param: Option<String>,
    #[serde(default)]
    code: Option<serde_json::Value>,
    #[serde(default)]
    r#type: Option<String>,
}

/// A provider's error from the text of its body; anything unreadable is passed on as words, shortened.
#[must_use]
pub fn status_error(provider: &'static str, status: u16, retry_after: Option<Duration>, body: &[u8]) -> ProviderError {
    let object = match serde_json::from_slice(body) {
        Ok(ErrorBody { error: ErrorField::Words(words) }) => {
            ErrorObject { message: Some(words), ..ErrorObject::default() }
        }
        Ok(ErrorBody { error: ErrorField::Object(object) }) => object,
        Err(_) => ErrorObject { message: Some(String::from_utf8_lossy(body).into_owned()), ..ErrorObject::default() },
    };
    let message = object.message.unwrap_or_default();
    let message = if message.trim().is_empty() { "no reason given".to_owned() } else { shortened(&message) };
    let code = object.code.and_then(|code| match code {
        serde_json::Value::String(code) => Some(code),
        serde_json::Value::Number(code) => Some(code.to_string()),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => None,
    });
    let code = code.or(object.r#type).map(|code| shortened(&code));
    ProviderError::Status { provider, status, message, code, param: object.param, retry_after }
}

fn shortened(text: &str) -> String {
    text.trim().chars().take(MESSAGE_MAX_CHARACTERS).collect()
}

/// Lets a good answer through and reads what a bad one has to say.
async fn accepted(provider: &'static str, response: Response) -> Result<Response, ProviderError> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(response);
    }
    let retry_after = retry_after::read(response.headers(), OffsetDateTime::now_utc());
    let body = start_of_body(response).await;
    Err(status_error(provider, status.as_u16(), retry_after, &body))
}

/// As much of an error's body as is worth reading; what breaks off is read as far as it came.
async fn start_of_body(mut response: Response) -> BytesMut {
    let mut text = BytesMut::new();
    while let Ok(Some(piece)) = response.chunk().await {
        let room = ERROR_MAX_BYTES.saturating_sub(text.len());
        text.extend_from_slice(&piece[..piece.len().min(room)]);
        if text.len() >= ERROR_MAX_BYTES {
            break;
        }
    }
    text
}

async fn body(provider: &'static str, mut response: Response, limit: usize) -> Result<Bytes, ProviderError> {
    let too_large = || ProviderError::BadAnswer { provider, detail: format!("more than {limit} bytes") };
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let Some(first) = response.chunk().await.map_err(|error| unreachable(provider, &error))? else {
        return Ok(Bytes::new());
    };
    // Most answers come in one piece, which needs no copy.
    let mut whole: Option<BytesMut> = None;
    while let Some(piece) = response.chunk().await.map_err(|error| unreachable(provider, &error))? {
        let text = whole.get_or_insert_with(|| BytesMut::from(&first[..]));
        if text.len() + piece.len() > limit {
            return Err(too_large());
        }
        text.extend_from_slice(&piece);
    }
    Ok(whole.map_or(first, BytesMut::freeze))
}

fn unreachable(provider: &'static str, error: &reqwest::Error) -> ProviderError {
    ProviderError::Unreachable { provider, detail: chain(error) }
}

/// The words of an error and of what caused it, without the address it was for.
fn chain(error: &reqwest::Error) -> String {
    let mut words = if error.is_connect() { "no connection".to_owned() } else { "the connection broke".to_owned() };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

/// A base address without its trailing slashes.
#[must_use]
pub fn base_url(url: &str) -> Arc<str> {
    url.trim().trim_end_matches('/').into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str) -> (String, Option<String>) {
        match status_error("openai", 400, None, body.as_bytes()) {
            ProviderError::Status { message, code, .. } => (message, code),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn errors_are_read_in_every_shape_they_come_in() {
        let (text, code) = message(
            r#"{"error":{"message":"Rate limit reached","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#,
        );
        assert_eq!((text.as_str(), code.as_deref()), ("Rate limit reached", Some("rate_limit_exceeded")));
        assert_eq!(message(r#"{"error":"model 'x' not found"}"#).0, "model 'x' not found");
        assert_eq!(message("<html>Bad Gateway</html>").0, "<html>Bad Gateway</html>");
        assert_eq!(message("").0, "no reason given");
        assert_eq!(message(r#"{"error":{"message":"m","code":429}}"#).1.as_deref(), Some("429"));
    }

    #[tokio::test]
    async fn what_has_come_already_is_not_read_beyond_the_end() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let _request = connection.read(&mut [0; 4_096]).await.unwrap();
            connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ndata: x\n\n").await.unwrap();
        });
        let http = ProviderHttp::new(HttpSettings { whole: Duration::ZERO, ..HttpSettings::default() }).unwrap();
        let mut pieces = http.pieces("openai", http.client().get(url)).await.unwrap();
        server.await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let late = pieces.next().await;
        assert!(matches!(late, Err(ProviderError::Timeout { phase: Phase::Whole, .. })), "{late:?}");
    }

    #[test]
    fn a_model_that_reasons_unseen_may_be_silent_as_long_as_its_answer_may_take() {
        let limits = HttpSettings::default();
        let hosted = limits.first_byte_within(HOSTED_FIRST_BYTE_TIMEOUT);
        assert_eq!(
            (hosted.first_byte, hosted.idle, hosted.whole),
            (HOSTED_FIRST_BYTE_TIMEOUT, limits.idle, limits.whole)
        );
        let unseen = hosted.for_unseen_reasoning();
        assert_eq!((unseen.first_byte, unseen.idle, unseen.whole), (limits.whole, limits.whole, limits.whole));
    }

    #[test]
    fn an_endless_error_is_shortened() {
        assert_eq!(message(&"é".repeat(10_000)).0.chars().count(), MESSAGE_MAX_CHARACTERS);
    }

    #[test]
    fn a_base_address_loses_its_trailing_slashes() {
        assert_eq!(&*base_url(" http://127.0.0.1:1/v1// "), "http://127.0.0.1:1/v1");
    }
}
