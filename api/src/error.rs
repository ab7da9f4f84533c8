//! What a caller is told when something is refused or fails.
//!
//! A handler returns [`ApiError`]; the boundary ([`crate::boundary`]) knows the path and so the dialect, renders it and
//! logs it once. The status follows from the [`Code`] alone.

use std::borrow::Cow;
use std::fmt;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use calos_commands::log::{Failed, LogError, Positions};

pub use crate::codes::{Code, kind};
pub use crate::dialect::Dialect;
use crate::position;

/// Seconds a caller is asked to wait when nothing better is known.
pub const RETRY_AFTER_DEFAULT_SECONDS: u64 = 1;

/// Tells the SDKs of both dialects whether asking again can help; without it they go by the status alone.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The longest cause kept for the log, in characters.
const CAUSE_MAX_CHARACTERS: usize = 2_000;

/// A refusal or failure on its way to the caller.
#[derive(Clone, Debug)]
pub struct ApiError(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    code: Code,
    status: StatusCode,
    shown_code: Cow<'static, str>,
    shown_kind: Cow<'static, str>,
    message: String,
    param: Option<Cow<'static, str>>,
    facts: Map<String, Value>,
    retry_after_seconds: Option<u64>,
    headers: HeaderMap,
    anthropic_headers: HeaderMap,
    cause: Option<String>,
}

impl ApiError {
    /// A refusal: what happened and what to do about it, in one or two sentences.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let status = code.status();
        let waits = status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS;
        Self(Box::new(Inner {
            code,
            status,
            shown_code: Cow::Borrowed(code.as_str()),
            shown_kind: Cow::Borrowed(code.kind()),
            message: message.into(),
            param: None,
            facts: Map::new(),
            retry_after_seconds: waits.then_some(RETRY_AFTER_DEFAULT_SECONDS),
            headers: HeaderMap::new(),
            anthropic_headers: HeaderMap::new(),
            cause: None,
        }))
    }

    /// A failure of ours: the caller learns only that, the log learns the cause.
    #[must_use]
    pub fn internal(cause: impl fmt::Display) -> Self {
        Self::new(
            Code::Internal,
            "something failed on our side; try again, and name the request id when you ask for help",
        )
        .because(cause)
    }

    /// A field of the request that is missing, of the wrong type or out of range.
    #[must_use]
    pub fn field(name: impl Into<Cow<'static, str>>, problem: impl fmt::Display) -> Self {
        let name = name.into();
        Self::new(Code::InvalidField, format!("{name}: {problem}")).with_param(name)
    }

    /// A header that cannot be read.
    #[must_use]
    pub fn header(name: &'static str, problem: impl fmt::Display) -> Self {
        Self::new(Code::InvalidHeader, format!("the header {name} {problem}")).with_param(name)
    }

    /// Something that is not there, or not the caller's.
    #[must_use]
    pub fn not_found(what: impl fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("there is no such {what}, or it is not yours"))
    }

    /// A provider's own error, passed on in the provider's words: status, `type` and `code` are the provider's.
    #[must_use]
    pub fn provider(
        status: StatusCode,
        kind: impl Into<Cow<'static, str>>,
        code: Option<String>,
        message: impl Into<String>,
    ) -> Self {
        let mut error = Self::new(Code::ProviderError, message);
        error.0.status = status;
        error.0.shown_kind = kind.into();
        if let Some(code) = code {
            error.0.shown_code = Cow::Owned(code);
        }
        error
    }

    /// Names the field or header the error is about.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.0.param = Some(param.into());
        self
    }

    /// Adds a fact a client can compute with, such as `needed_micros`.
    #[must_use]
    pub fn with_fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.facts.insert(name.to_owned(), value.into());
        self
    }

    /// Says when to come back.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after_seconds = Some(seconds);
        self
    }

    /// Says that coming back does not help, as with a spend cap.
    #[must_use]
    pub fn without_retry(mut self) -> Self {
        self.0.retry_after_seconds = None;
        self
    }

    /// Adds an answer header, such as `x-ratelimit-remaining-requests`.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.append(name, value);
        self
    }

    /// Adds an answer header for Anthropic's clients alone.
    #[must_use]
    pub fn with_anthropic_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.anthropic_headers.append(name, value);
        self
    }

    /// Says where in the log a refusal stands that did write something.
    #[must_use]
    pub fn at(mut self, positions: &Positions) -> Self {
        position::stamp(&mut self.0.headers, positions);
        self
    }

    /// Keeps the cause for the log; a caller never sees it.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.0.cause = Some(cause.to_string().chars().take(CAUSE_MAX_CHARACTERS).collect());
        self
    }

    /// Why.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The status it is answered with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Whether asking again can help; none where the status says it well enough. Both SDKs would by themselves repeat
    /// every 409, 429 and 5xx.
    #[must_use]
    pub fn should_retry(&self) -> Option<bool> {
        match (self.0.status, self.0.code) {
            (StatusCode::CONFLICT, code) => Some(code == Code::IdempotencyInProgress),
            (StatusCode::PAYMENT_REQUIRED, _) => Some(false),
            // Without a moment to come back it is a cap on spending.
            (StatusCode::TOO_MANY_REQUESTS, _) => Some(self.0.retry_after_seconds.is_some()),
            // Whether it was done is not known: only whoever sent an idempotency key may repeat it unseen.
            (_, Code::OutcomeUnknown) => None,
            (StatusCode::SERVICE_UNAVAILABLE, _) => Some(true),
            // All the time a call may take was used up; the next one would wait as long.
            (StatusCode::GATEWAY_TIMEOUT, _) => Some(false),
            (_, _) => None,
        }
    }

    /// What the caller reads.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What only the log reads.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// The body in a dialect; also what a stream that fails midway sends as its error event.
    #[must_use]
    pub fn body(&self, dialect: Dialect) -> Value {
        let inner = &*self.0;
        match dialect {
            Dialect::Calos => {
                let mut body = inner.facts.clone();
                if let Some(param) = &inner.param {
                    body.insert("param".to_owned(), json!(param));
                }
                body.insert("error".to_owned(), json!(inner.message));
                body.insert("code".to_owned(), json!(inner.shown_code));
                Value::Object(body)
            }
            Dialect::OpenAi => json!({"error": {
                "message": inner.message,
                "type": inner.shown_kind,
                "param": inner.param,
                "code": inner.shown_code,
            }}),
            Dialect::Anthropic => json!({"type": "error", "error": {
                "type": anthropic_kind(inner.status),
                "message": inner.message,
            }}),
        }
    }

    /// The whole answer in a dialect. The error stays attached to it, so that the boundary can log it.
    #[must_use]
    pub fn render(self, dialect: Dialect) -> Response {
        self.render_named(dialect, None)
    }

    /// The same with the name of the request, where the dialect has a place for it.
    #[must_use]
    pub fn render_named(self, dialect: Dialect, request_id: Option<&str>) -> Response {
        let mut body = self.body(dialect);
        name_request(&mut body, dialect, request_id);
        let body = body.to_string();
        let mut response = (self.0.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        let headers = response.headers_mut();
        headers.extend(self.0.headers.clone());
        if dialect == Dialect::Anthropic {
            headers.extend(self.0.anthropic_headers.clone());
        }
        if let Some(seconds) = self.0.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(should) = self.should_retry() {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static(if should { "true" } else { "false" }));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Puts the name of the request where Anthropic's clients read it: beside the error.
pub fn name_request(body: &mut Value, dialect: Dialect, request_id: Option<&str>) {
    if let (Dialect::Anthropic, Some(id), Value::Object(fields)) = (dialect, request_id, body) {
        fields.insert("request_id".to_owned(), json!(id));
    }
}

/// Anthropic's name for an error of this status.
fn anthropic_kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.shown_code, self.0.message)?;
        match &self.0.cause {
            Some(cause) => write!(f, " ({cause})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ApiError {}

impl IntoResponse for ApiError {
    /// In CALOS's own dialect; the boundary renders it anew where the path asks for another.
    fn into_response(self) -> Response {
        self.render(Dialect::Calos)
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        let (code, message) = match &error {
            LogError::Overloaded => (Code::Overloaded, "more is waiting than can be written; try again in a moment"),
            LogError::Unavailable(_) => (
                Code::DatabaseUnavailable,
                "the database cannot be reached; nothing was changed, try again in a moment",
            ),
            LogError::Unresolved => (
                Code::OutcomeUnknown,
                "the database went away while committing; repeat the request with the same idempotency key to learn \
                 its outcome",
            ),
            LogError::Contended { .. } => {
                (Code::Contended, "others changed the same things at the same time; nothing was changed, try again")
            }
            LogError::Claimed => {
                (Code::IdempotencyInProgress, "this idempotency key has just been used; repeat to read its answer")
            }
            LogError::Corrupt(_) => return Self::internal(&error),
        };
        Self::new(code, message).because(&error)
    }
}

impl<E> From<Failed<E>> for ApiError
where
    ApiError: From<E>,
{
    fn from(failed: Failed<E>) -> Self {
        match failed {
            Failed::Refused(refusal) => refusal.into(),
            Failed::Log(error) => error.into(),
        }
    }
}

impl From<sqlx::Error> for ApiError {
    /// A database that is away is a 503; anything else is a fault of ours.
    fn from(error: sqlx::Error) -> Self {
        let away = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            // 08: connection, 53: out of resources, 57P: shut down by an operator.
            sqlx::Error::Database(refused) => refused
                .code()
                .is_some_and(|code| code.starts_with("08") || code.starts_with("53") || code.starts_with("57P")),
            _ => false,
        };
        if away {
            Self::new(Code::DatabaseUnavailable, "the database cannot be reached; try again in a moment").because(error)
        } else {
            Self::internal(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_whether_asking_again_can_help() {
        let code = |code| ApiError::new(code, "no");
        for (error, told) in [
            (code(Code::InsufficientQuota), Some("false")),
            (code(Code::IdempotencyKeyReused), Some("false")),
            (code(Code::IdempotencyInProgress), Some("true")),
            (code(Code::RateLimitExceeded).retry_after(7), Some("true")),
            (code(Code::RateLimitExceeded).without_retry(), Some("false")),
            (code(Code::ProviderTimeout), Some("false")),
            (code(Code::ProviderUnavailable), Some("true")),
            (code(Code::OutcomeUnknown), None),
            (code(Code::InvalidField), None),
            (code(Code::Internal), None),
        ] {
            let what = error.code();
            let response = error.render(Dialect::OpenAi);
            let header = response.headers().get(SHOULD_RETRY).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(header.as_deref(), told, "{what:?}");
        }
    }

    #[test]
    fn anthropics_clients_read_the_request_beside_the_error() {
        let mut body = ApiError::new(Code::ModelNotFound, "no such model").body(Dialect::Anthropic);
        name_request(&mut body, Dialect::Anthropic, Some("req-7"));
        assert_eq!(body["request_id"], "req-7");
        let mut body = ApiError::new(Code::ModelNotFound, "no such model").body(Dialect::OpenAi);
        name_request(&mut body, Dialect::OpenAi, Some("req-7"));
        assert!(body.get("request_id").is_none());
    }

    #[test]
    fn facts_and_param_stand_beside_error_and_code() {
        let error = ApiError::field("limit", "must be 1 to 200").with_fact("max", 200);
        assert_eq!(
            error.body(Dialect::Calos),
            json!({"error": "limit: must be 1 to 200", "code": "invalid_field", "param": "limit", "max": 200})
        );
    }

    #[test]
    fn an_openai_client_gets_its_error_object() {
        let error = ApiError::new(Code::InsufficientQuota, "needs 40000 micro-dollars, has 12000");
        assert_eq!(
            error.body(Dialect::OpenAi),
            json!({"error": {"message": "needs 40000 micro-dollars, has 12000", "type": "insufficient_quota",
                   "param": null, "code": "insufficient_quota"}})
        );
        assert_eq!(error.status(), StatusCode::PAYMENT_REQUIRED);
    }

    #[test]
    fn a_full_queue_says_when_to_come_back_and_keeps_its_cause_to_itself() {
        let response = ApiError::from(LogError::Overloaded).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let away = ApiError::from(LogError::Unavailable("password=hunter2".to_owned()));
        assert!(!away.body(Dialect::Calos).to_string().contains("hunter2"));
        assert!(away.cause().is_some_and(|cause| cause.contains("hunter2")));
    }
}
