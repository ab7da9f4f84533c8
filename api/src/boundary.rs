//! The outermost layer of every request: names it, bounds it, catches its panics, renders its errors in the dialect of
//! its path, and logs each failure exactly once.

use std::any::Any;
use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::to_bytes;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use ipnet::IpNet;
use tokio::sync::Semaphore;
use tracing::{Instrument as _, Span};

use calos_adapters::postgres::Pulse;
use calos_commands::in_request::{InRequest, TRACE_TARGET, in_request};

use crate::error::{ApiError, Code, Dialect};
use crate::metrics::HttpFigures;
use crate::request::{REQUEST_ID, RequestContext};
use crate::telemetry::continue_trace;

/// Requests worked on at a time; one more is answered `overloaded` at once.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 4_096;

/// How long a request outside the gateway may take; a model call has its own, longer bounds.
pub const REQUEST_MAX_SECONDS: u64 = 30;

/// A request that has been worked on for this long while the database is lost waits for the database.
const LOST_GRACE: Duration = Duration::from_millis(250);

/// The paths that are answered from memory however many requests are being worked on.
const ALIVE_PATHS: [&str; 2] = ["/health", "/metrics"];

/// How much of a foreign error text is read.
const FOREIGN_TEXT_MAX_BYTES: usize = 4_096;

/// The header Anthropic's clients read a request's name from.
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// The target under which refusals and failures are logged.
pub const LOG_TARGET: &str = "calos::refused";

/// The target under which every answer is logged, at debug level: quiet unless asked for.
pub const ACCESS_TARGET: &str = "calos::access";

/// What the boundary shares between requests.
#[derive(Clone)]
pub struct Boundary {
    permits: Arc<Semaphore>,
    trusted_proxies: Arc<[IpNet]>,
    figures: Arc<HttpFigures>,
    pulse: Option<Pulse>,
}

impl Boundary {
    /// A boundary that works on so many requests at a time and believes these proxies about whom they speak for.
    #[must_use]
    pub fn new(requests_in_flight_max: usize, trusted_proxies: &[IpNet]) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(requests_in_flight_max)),
            trusted_proxies: trusted_proxies.into(),
            figures: Arc::default(),
            pulse: None,
        }
    }

    /// The same, giving up what waits for a database that this finds lost.
    #[must_use]
    pub fn watching(self, pulse: Pulse) -> Self {
        Self { pulse: Some(pulse), ..self }
    }

    /// The same, counting there.
    #[must_use]
    pub fn counting(self, figures: Arc<HttpFigures>) -> Self {
        Self { figures, ..self }
    }
}

tokio::task_local! {
    /// Where the request running on this task panicked, if it did; the hook writes it, the boundary logs it.
    static PANIC_PLACE: RefCell<Option<String>>;
}

/// The layer itself; see the module.
pub async fn boundary(State(boundary): State<Boundary>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let _inside = boundary.figures.in_flight.enter();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let context = RequestContext::of(&request, &boundary.trusted_proxies);
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let dialect = Dialect::of(&path, request.headers());
    request.extensions_mut().insert(context.clone());
    let span = span_of(&context, &method, route.as_ref());
    continue_trace(&span, request.headers());

    let standing = InRequest::new(Arc::clone(&context.request_id));
    let work = async {
        match boundary.permits.try_acquire() {
            Ok(_permit) => run(request, next, &path).await,
            // Whether the process is alive is answered from memory, and asked most urgently when it is overloaded.
            Err(_) if ALIVE_PATHS.contains(&&*path) => run(request, next, &path).await,
            Err(_) => ApiError::new(Code::Overloaded, "too many requests are being worked on; try again in a moment")
                .into_response(),
        }
    };
    let work = in_request(Arc::clone(&standing), work).instrument(span.clone());
    let response = tokio::select! {
        biased;
        response = work => response,
        error = waits_in_vain(boundary.pulse.as_ref(), &standing, &path) => error.into_response(),
    };
    span.record("http.response.status_code", response.status().as_u16());
    let mut response = in_dialect(response, dialect, &context.request_id).await;
    if let Some(error) = response.extensions().get::<ApiError>() {
        boundary.figures.refused(error.code());
        log(error, &context, &method, &path, started);
    }
    let route = route.as_ref().map(MatchedPath::as_str);
    boundary.figures.answered(route, &method, response.status(), started.elapsed());
    tracing::debug!(
        target: ACCESS_TARGET,
        request_id = &*context.request_id,
        status = response.status().as_u16(),
        %method,
        path,
        took_ms = started.elapsed().as_millis(),
        "answered"
    );
    if let Ok(id) = HeaderValue::from_str(&context.request_id) {
        // Anthropic's clients look for it under a name of their own.
        if dialect == Dialect::Anthropic {
            response.headers_mut().insert(ANTHROPIC_REQUEST_ID, id.clone());
        }
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Resolves when the request waits for a database that is lost, with what its caller is told: that nothing happened, which
/// is so from then on, or, when it has begun to change something, that the outcome is not known.
async fn waits_in_vain(pulse: Option<&Pulse>, standing: &InRequest, path: &str) -> ApiError {
    let Some(pulse) = pulse else { return std::future::pending().await };
    // What needs no database is answered by then.
    tokio::time::sleep(LOST_GRACE).await;
    pulse.lost().await;
    if standing.give_up() {
        return ApiError::new(Code::DatabaseUnavailable, "the database does not answer; try again in a moment");
    }
    if has_own_bounds(path) {
        return std::future::pending().await;
    }
    // The log tells what became of what it was handed; what is looked up afterwards is given up.
    tokio::time::sleep(LOST_GRACE).await;
    pulse.lost().await;
    ApiError::new(
        Code::OutcomeUnknown,
        "the database went away meanwhile; repeat the request with the same idempotency key to learn its outcome",
    )
}

/// The beginning of a request's trace: named by method and route, never by a path from outside.
fn span_of(context: &RequestContext, method: &Method, route: Option<&MatchedPath>) -> Span {
    tracing::trace_span!(
        target: TRACE_TARGET,
        "http",
        otel.name = format!("{method} {}", route.map_or("unmatched", MatchedPath::as_str)),
        otel.kind = "server",
        http.request.method = %method,
        http.route = route.map_or("unmatched", MatchedPath::as_str),
        http.response.status_code = tracing::field::Empty,
        calos.request_id = &*context.request_id,
        calos.correlation_id = %context.correlation_id,
    )
}

/// Runs the request within its time, and turns a panic into an error.
async fn run(request: Request, next: Next, path: &str) -> Response {
    let work = PANIC_PLACE.scope(RefCell::new(None), async {
        let ran = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        ran.unwrap_or_else(|panic| {
            let place = PANIC_PLACE.with(|place| place.borrow_mut().take()).unwrap_or_default();
            ApiError::internal(format_args!("panicked at {place}: {}", panic_text(panic.as_ref()))).into_response()
        })
    });
    if has_own_bounds(path) {
        return work.await;
    }
    match tokio::time::timeout(Duration::from_secs(REQUEST_MAX_SECONDS), work).await {
        Ok(response) => response,
        Err(_) => ApiError::new(Code::Overloaded, "the request took too long and was given up; try again in a moment")
            .because(format_args!("not answered within {REQUEST_MAX_SECONDS} s"))
            .into_response(),
    }
}

/// Model calls and sockets live longer than a request may, and bound themselves.
fn has_own_bounds(path: &str) -> bool {
    path.starts_with("/v1/") || path.starts_with("/api/chat/") || path == "/ws"
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// Renders an error in the dialect of its path. An error somebody else made (an extractor of axum, a router) is put
/// into the documented shape; a JSON error a handler wrote itself is left as it is.
async fn in_dialect(response: Response, dialect: Dialect, request_id: &str) -> Response {
    if let Some(error) = response.extensions().get::<ApiError>() {
        if dialect == Dialect::Calos {
            return response;
        }
        let mut rendered = error.clone().render_named(dialect, Some(request_id));
        for (name, value) in response.headers() {
            if !rendered.headers().contains_key(name) && name != header::CONTENT_LENGTH {
                rendered.headers_mut().append(name.clone(), value.clone());
            }
        }
        return rendered;
    }
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() || is_json(&response) {
        return response;
    }
    let allow = response.headers().get(header::ALLOW).cloned();
    let text = to_bytes(response.into_body(), FOREIGN_TEXT_MAX_BYTES).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut error = foreign(status, text);
    if let Some(allow) = allow {
        error = error.with_header(header::ALLOW, allow);
    }
    error.render_named(dialect, Some(request_id))
}

fn is_json(response: &Response) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.starts_with("application/json"))
}

/// An error that arrived as plain text, in our words.
fn foreign(status: StatusCode, text: String) -> ApiError {
    let text = if text.is_empty() { status.canonical_reason().unwrap_or("refused").to_owned() } else { text };
    match status {
        StatusCode::NOT_FOUND => ApiError::new(Code::UnknownPath, "there is nothing at this path; see /openapi.json"),
        StatusCode::METHOD_NOT_ALLOWED => ApiError::new(Code::MethodNotAllowed, "this path does not take this method"),
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(Code::BodyTooLarge, text),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ApiError::new(Code::UnsupportedMediaType, text),
        StatusCode::REQUEST_TIMEOUT => ApiError::new(Code::RequestTimeout, text),
        status if status.is_server_error() => ApiError::internal(text),
        _ => ApiError::new(Code::InvalidRequest, text),
    }
}

/// One line: an error for a failure of ours, a warning for refused bad input, a note for a caller who is not known or asks
/// for what is not there. Running out of credit or of a limit is part of the day and shows at debug level only.
fn log(error: &ApiError, context: &RequestContext, method: &Method, path: &str, started: Instant) {
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: LOG_TARGET,
                request_id = &*context.request_id,
                status = error.status().as_u16(),
                code = error.code().as_str(),
                %method,
                path,
                took_ms = started.elapsed().as_millis(),
                cause = error.cause().unwrap_or_default(),
                "{}",
                error.message()
            )
        };
    }
    match error.status().as_u16() {
        500.. => line!(error),
        402 | 429 => line!(debug),
        401 | 403 => line!(info),
        404 if error.code() != Code::ModelNotFound => line!(info),
        _ => line!(warn),
    }
}

/// Makes a panic inside a request part of that request's one log line; any other panic is logged where it happens.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let noted =
            PANIC_PLACE.try_with(|noted| noted.try_borrow_mut().map(|mut noted| *noted = Some(place.clone())).is_ok());
        if !matches!(noted, Ok(true)) {
            tracing::error!(target: "calos::panic", place, "{}", panic_text(panic.payload()));
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    fn router(boundary_state: Boundary) -> Router {
        async fn panics() -> &'static str {
            panic!("on purpose")
        }
        Router::new()
            .route("/panics", get(panics))
            .route("/v1/panics", get(panics))
            .route("/fine", get(|| async { "fine" }))
            .route(ALIVE_PATHS[0], get(|| async { "alive" }))
            .layer(axum::middleware::from_fn_with_state(boundary_state, boundary))
    }

    async fn call(router: Router, method: &str, path: &str) -> (StatusCode, Response<()>, Value) {
        let request = Request::builder().method(method).uri(path).header(REQUEST_ID, "mine-1").body(Body::empty());
        let response = router.oneshot(request.unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 10_000).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        (parts.status, Response::from_parts(parts, ()), body)
    }

    #[tokio::test]
    async fn a_panic_is_a_500_in_the_dialect_of_its_path_and_tells_nothing() {
        let (status, response, body) = call(router(Boundary::new(8, &[])), "GET", "/panics").await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(body["code"], json!("internal"));
        assert_eq!(response.headers()[REQUEST_ID], "mine-1");
        assert!(!body.to_string().contains("on purpose"));
        let (status, _, body) = call(router(Boundary::new(8, &[])), "GET", "/v1/panics").await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(body["error"]["type"], json!("server_error"));
    }

    #[tokio::test]
    async fn an_unknown_path_and_a_wrong_method_have_the_documented_shape() {
        let (status, _, body) = call(router(Boundary::new(8, &[])), "GET", "/nowhere").await;
        assert_eq!((status, &body["code"]), (StatusCode::NOT_FOUND, &json!("unknown_path")));
        let (status, response, body) = call(router(Boundary::new(8, &[])), "POST", "/fine").await;
        assert_eq!((status, &body["code"]), (StatusCode::METHOD_NOT_ALLOWED, &json!("method_not_allowed")));
        assert_eq!(response.headers()[header::ALLOW], "GET,HEAD");
    }

    #[tokio::test]
    async fn one_request_too_many_is_told_to_come_back() {
        let (status, response, body) = call(router(Boundary::new(0, &[])), "GET", "/fine").await;
        assert_eq!((status, &body["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("overloaded")));
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let (status, ..) = call(router(Boundary::new(0, &[])), "GET", ALIVE_PATHS[0]).await;
        assert_eq!(status, StatusCode::OK, "an overloaded process is alive");
    }
}
