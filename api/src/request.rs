//! What a handler takes from a request: who it is in the log, its JSON, its query and its path, each with an error that
//! names what is wrong.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use uuid::Uuid;

use calos_commands::metadata::{Actor, Metadata};
use calos_commands::raw_object::RawObject;
use calos_domain::Timestamp;

use crate::body::{Arrived, Room, read};
use crate::error::{ApiError, Code};
use crate::forwarded::client_address;
use crate::idempotency::Attempt;

/// The longest request id a caller may choose.
const REQUEST_ID_MAX_BYTES: usize = 128;

/// The most bytes that are parsed on the event loop: a millisecond's work.
const ON_THE_LOOP_MAX_BYTES: usize = 512 * 1024;

/// The header that names a request, in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The address of the other end of the connection; the listener puts it into every request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// What is known about a request before anything in it is believed.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The caller's `x-request-id` when it is printable and short, else one of ours.
    pub request_id: Arc<str>,
    /// Shared by everything that follows from this request.
    pub correlation_id: Uuid,
    /// Who is calling: the other end of the connection, or whom a trusted proxy names in `x-forwarded-for`.
    pub address: IpAddr,
    /// When it arrived, by this machine's clock.
    pub received_at: Timestamp,
}

impl RequestContext {
    /// Reads a request's names; only `trusted` proxies are believed about whom they speak for.
    #[must_use]
    pub fn of<B>(request: &axum::http::Request<B>, trusted: &[IpNet]) -> Self {
        let id = Uuid::now_v7();
        let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
        let given = given.filter(|text| {
            let printable = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte));
            !text.is_empty() && text.len() <= REQUEST_ID_MAX_BYTES && printable
        });
        let peer = request.extensions().get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.0);
        Self {
            request_id: given.map_or_else(|| Arc::from(id.to_string()), Arc::from),
            correlation_id: id,
            address: client_address(peer, request.headers(), trusted),
            received_at: now(),
        }
    }

    /// The envelope of a command this request leads to.
    #[must_use]
    pub fn metadata(&self, actor: Actor) -> Metadata {
        let mut metadata = Metadata::new(actor);
        metadata.correlation_id = self.correlation_id;
        metadata.request_id = Some(self.request_id.to_string());
        metadata
    }
}

/// This machine's clock.
#[must_use]
pub fn now() -> Timestamp {
    let nanos = time::OffsetDateTime::now_utc().unix_timestamp_nanos();
    Timestamp::from_micros(i64::try_from(nanos / 1_000).unwrap_or(i64::MAX))
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        if let Some(context) = parts.extensions.get::<Self>() {
            return Ok(context.clone());
        }
        let bare = axum::http::Request::from_parts(parts.clone(), ());
        Ok(Self::of(&bare, &[]))
    }
}

/// A JSON body, read and checked: not announced as JSON is 415, not JSON is 400 `invalid_json`, a wrong or missing
/// field is 400 `invalid_field` naming its path, too large is 413.
#[derive(Clone, Debug)]
pub struct Json<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let Arrived { headers, bytes, .. } = read(request).await?;
        demand_json(&headers)?;
        parse(&bytes).map(Self)
    }
}

/// A JSON body of a request that changes something, together with its `Idempotency-Key`.
pub struct Post<T> {
    /// What was asked.
    pub body: T,
    /// What makes a repetition of it the same request.
    pub attempt: Attempt,
}

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Post<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let Arrived { headers, bytes, .. } = read(request).await?;
        demand_json(&headers)?;
        let body = parse(&bytes)?;
        let attempt = Attempt::read(&headers, &method, &path, bytes)?;
        Ok(Self { body, attempt })
    }
}

/// The body of a model call, together with its `Idempotency-Key`. It may be large, so it is parsed off the event loop;
/// nothing of its prompt is stored, so its texts may hold any character. Names that are stored, such as the model's, are
/// looked at by whoever reads the call.
pub struct ModelPost<T = RawObject> {
    /// What was asked.
    pub body: T,
    /// How long it was, to know whether more is done with it off the event loop, too.
    pub size_bytes: usize,
    /// What makes a repetition of it the same request.
    pub attempt: Attempt,
    /// What it takes up; to be kept until the call has ended.
    pub room: Arc<Room>,
}

impl<S: Sync, T: DeserializeOwned + Send + 'static> FromRequest<S> for ModelPost<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        large(request, parse_object).await
    }
}

/// A body that may be large, parsed off the event loop.
pub(crate) async fn large<T: Send + 'static>(
    request: Request,
    parse: fn(&[u8]) -> Result<T, ApiError>,
) -> Result<ModelPost<T>, ApiError> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let Arrived { headers, bytes, room } = read(request).await?;
    demand_json(&headers)?;
    let (text, size_bytes) = (bytes.clone(), bytes.len());
    let body = off_the_loop(size_bytes, move || parse(&text)).await??;
    let attempt = Attempt::read(&headers, &method, &path, bytes)?;
    Ok(ModelPost { body, size_bytes, attempt, room: Arc::new(room) })
}

/// Does work on so many bytes here when they are few, elsewhere when they would hold up the event loop.
///
/// # Errors
/// 500 when the work panicked.
pub async fn off_the_loop<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    if bytes <= ON_THE_LOOP_MAX_BYTES {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)
}

/// Refuses a body that is not announced as JSON.
///
/// # Errors
/// 415.
fn demand_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let announced = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = announced.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || essence.starts_with("application/") && essence.ends_with("+json") {
        return Ok(());
    }
    Err(ApiError::new(
        Code::UnsupportedMediaType,
        "send the body as JSON with the header content-type: application/json",
    )
    .with_param("content-type"))
}

/// Parses a JSON body whose texts may be stored.
///
/// # Errors
/// 400 `invalid_json` with the place, or 400 `invalid_field` with the path of the field.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let parsed = parse_object(bytes)?;
    refuse_nul(bytes)?;
    Ok(parsed)
}

fn parse_object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| ApiError::new(Code::InvalidJson, format!("the body is not JSON: it is not UTF-8: {error}")))?;
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        // A wrong type is met before the end is: what is not JSON at all is told so all the same.
        match serde_json::from_str::<IgnoredAny>(text) {
            Ok(IgnoredAny) if inner.is_data() => wrong_field(&path, &inner),
            Ok(IgnoredAny) => not_json(&inner),
            Err(syntax) => not_json(&syntax),
        }
    })?;
    json.end().map_err(|error| not_json(&error))?;
    // A struct would also be read from a list of its fields' values, which nobody means.
    if !text.trim_start().starts_with('{') {
        return Err(ApiError::field("body", "must be a JSON object"));
    }
    Ok(parsed)
}

fn not_json(error: &serde_json::Error) -> ApiError {
    ApiError::new(Code::InvalidJson, format!("the body is not JSON: {error}"))
}

fn wrong_field(path: &str, error: &serde_json::Error) -> ApiError {
    // Its own text ends in " at line 1 column 17", which says nothing more once the field has been named.
    let text = error.to_string();
    let problem = text.rsplit_once(" at line ").map_or(text.as_str(), |(problem, _)| problem);
    let problem = without_value(problem);
    // A missing field is reported at the object around it.
    let missing = problem.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    let name = match (path, missing) {
        (".", Some(field)) => field.to_owned(),
        (path, Some(field)) => format!("{path}.{field}"),
        (".", None) => "body".to_owned(),
        (path, None) => path.to_owned(),
    };
    ApiError::field(name, problem)
}

/// What was expected, without what was sent in its place: that may be a password, and refusals are logged.
fn without_value(problem: &str) -> &str {
    match problem.rfind(", expected ") {
        // The name of a field the caller made up, which helps them and is no value.
        Some(_) if problem.starts_with("unknown field ") => problem,
        Some(at) => &problem[at + ", ".len()..],
        None => problem,
    }
}

/// PostgreSQL stores no NUL character in a text, so none is let in.
fn refuse_nul(bytes: &[u8]) -> Result<(), ApiError> {
    const ESCAPED: &[u8] = br"\u0000";
    if !bytes.windows(ESCAPED.len()).any(|window| window == ESCAPED) {
        return Ok(());
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|error| not_json(&error))?;
    let mut path = String::new();
    if holds_nul(&value, &mut path) {
        let name = if path.is_empty() { "body".to_owned() } else { path };
        return Err(ApiError::field(name, "must not contain the NUL character"));
    }
    Ok(())
}

/// Whether a text within holds NUL; `path` then names it. As deep as the JSON parser allows, which is bounded.
fn holds_nul(value: &Value, path: &mut String) -> bool {
    let length = path.len();
    match value {
        Value::String(text) => return text.contains('\0'),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let _ = write!(path, "[{index}]");
                if holds_nul(item, path) {
                    return true;
                }
                path.truncate(length);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                if name.contains('\0') {
                    return true;
                }
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
                if holds_nul(field, path) {
                    return true;
                }
                path.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    false
}

/// Query parameters; a wrong one is 400 `invalid_field`.
#[derive(Clone, Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                let text = rejection.body_text();
                let problem = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
                Err(match problem.split_once(": ") {
                    Some((name, problem)) if !name.contains(' ') => ApiError::field(name.to_owned(), problem),
                    _ => ApiError::field("query", problem),
                })
            }
        }
    }
}

/// Path parameters; what cannot be one is not there: 404.
#[derive(Clone, Debug)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            Err(rejection) => Err(ApiError::not_found("thing").because(rejection.body_text())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Dialect;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    #[expect(dead_code, reason = "only its parsing is looked at")]
    struct Ask {
        email: String,
        limits: Option<Limits>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    #[expect(dead_code, reason = "only its parsing is looked at")]
    struct Limits {
        per_minute: u32,
    }

    fn refused(body: &str) -> (String, Value) {
        let body = parse::<Ask>(body.as_bytes()).unwrap_err().body(Dialect::Calos);
        (body["code"].as_str().unwrap().to_owned(), body["param"].clone())
    }

    #[test]
    fn what_is_not_json_is_named_so() {
        for body in ["", "{", "{\"email\":\"a\"} x", "{\"email\":\"\u{1}\"}", "[[[", "{\"email\":7"] {
            assert_eq!(refused(body).0, "invalid_json", "{body}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(parse::<Value>(deep.as_bytes()).unwrap_err().code(), Code::InvalidJson);
    }

    #[test]
    fn a_wrong_field_is_named_by_its_path() {
        assert_eq!(refused(r#"{"email":7}"#), ("invalid_field".to_owned(), "email".into()));
        assert_eq!(refused("{}"), ("invalid_field".to_owned(), "email".into()));
        assert_eq!(refused("[]").0, "invalid_field");
        assert_eq!(refused(r#"["a", null]"#), ("invalid_field".to_owned(), "body".into()));
        let nested = r#"{"email":"a","limits":{"perMinute":-1}}"#;
        assert_eq!(refused(nested), ("invalid_field".to_owned(), "limits.perMinute".into()));
        assert_eq!(refused(r#"{"email":"a","limits":{}}"#).1, Value::from("limits.perMinute"));
    }

    #[test]
    fn a_nul_character_is_refused_but_an_escaped_backslash_is_not() {
        assert_eq!(refused(r#"{"email":"a\u0000b"}"#), ("invalid_field".to_owned(), "email".into()));
        assert!(parse::<Ask>(br#"{"email":"a\\u0000b"}"#).is_ok());
    }

    #[tokio::test]
    async fn a_model_may_be_asked_about_any_character() {
        let body = r#"{"model":"gpt-4","messages":[{"role":"user","content":"a\u0000b"}]}"#;
        let request = axum::http::Request::builder().method("POST").uri("/v1/chat/completions");
        let request = request.header(header::CONTENT_TYPE, "application/json").body(body.into()).unwrap();
        let post = ModelPost::<RawObject>::from_request(request, &()).await.unwrap_or_else(|error| panic!("{error}"));
        assert!(post.body.given("messages").is_some_and(|text| text.contains(r"\u0000")));
        let named =
            serde_json::from_str(r#"{"model":"gpt\u00004","messages":[{"role":"user","content":"a"}]}"#).unwrap();
        assert_eq!(calos_commands::complete_chat::ChatCall::read(named).unwrap_err().param, "model");
    }

    #[test]
    fn a_garbage_request_id_is_replaced() {
        let request = axum::http::Request::builder().header(REQUEST_ID, "a b\u{e9}").body(()).unwrap();
        assert!(Uuid::parse_str(&RequestContext::of(&request, &[]).request_id).is_ok());
        let request = axum::http::Request::builder().header(REQUEST_ID, "run-7.a").body(()).unwrap();
        assert_eq!(&*RequestContext::of(&request, &[]).request_id, "run-7.a");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_not_repeated() {
        for body in [r#"{"email":12345678}"#, r#"{"email":["hunter2"]}"#, r#"{"limits":"hunter2, expected"}"#] {
            let error = parse::<Ask>(body.as_bytes()).unwrap_err();
            let message = error.message().to_owned();
            assert!(message.contains("expected "), "{message}");
            assert!(!message.contains("12345678") && !message.contains("hunter2"), "{message}");
        }
    }
}
