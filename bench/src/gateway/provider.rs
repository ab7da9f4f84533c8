//! A simulated OpenAI, as a process of its own and as light as one can be: it shares the cores with what is measured.
//!
//! It speaks the wire format of chat.completions, plain and streaming with usage, is labelled on every response, and
//! answers what was prepared when its switches were set. It parses nothing: a request streams when it says so.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;

use crate::error::BenchError;

/// On every response of a simulated provider, as those inside the server have it.
const LABEL_HEADER: &str = "x-calos-simulated";
/// Tokens of every prompt, as it reports them.
const PROMPT_TOKENS: u64 = 40;
/// The most tokens an answer can be set to.
pub const ANSWER_MAX_TOKENS: u64 = 10_000;
/// The text of every token of a stream, in JSON: what a reader counts tokens by.
pub const TOKEN_TEXT: &str = "\" token";
/// What a request that streams says.
const STREAMS: &[u8] = b"\"stream\":true";
/// Where switches are set and calls counted.
pub const SWITCHES_PATH: &str = "/simulated/switches";

/// How it behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switches {
    /// Milliseconds until an answer begins.
    pub first_byte_delay_ms: u64,
    /// Milliseconds before each token of a stream.
    pub token_delay_ms: u64,
    /// Tokens of each answer.
    pub answer_tokens: u64,
}

/// What it answers, rendered once.
struct Prepared {
    switches: Switches,
    plain: Bytes,
    /// The role, the tokens, the end, the usage and `[DONE]`.
    events: Vec<Bytes>,
}

struct Stage {
    prepared: RwLock<Arc<Prepared>>,
    calls: AtomicU64,
}

/// What it says of itself: the switches in force and the calls it accepted since it began.
#[derive(Debug, Serialize, Deserialize)]
pub struct Account {
    /// How it behaves.
    pub switches: Switches,
    /// Calls accepted.
    pub calls: u64,
}

impl Prepared {
    fn new(switches: Switches) -> Self {
        let switches = Switches { answer_tokens: switches.answer_tokens.min(ANSWER_MAX_TOKENS), ..switches };
        let tokens = switches.answer_tokens;
        let usage = json!({
            "prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": PROMPT_TOKENS + tokens,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0,
                "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
        });
        let text = "[simulated] ".to_owned() + &"token ".repeat(usize::try_from(tokens).unwrap_or_default());
        let choice = json!({"index": 0, "message": {"role": "assistant", "content": text, "refusal": null},
            "logprobs": null, "finish_reason": "stop"});
        let plain = json!({"id": "chatcmpl-simulated", "object": "chat.completion", "created": 1_700_000_000,
            "model": "gpt-4", "choices": [choice], "service_tier": "default",
            "system_fingerprint": "fp_simulated", "usage": usage});
        let mut events = vec![delta(&json!({"role": "assistant", "content": "", "refusal": null}), None)];
        let token = delta(&json!({"content": " token"}), None);
        events.extend(std::iter::repeat_n(token, usize::try_from(tokens).unwrap_or_default()));
        events.push(delta(&json!({}), Some("stop")));
        events.push(event(&[], &usage));
        events.push(Bytes::from_static(b"data: [DONE]\n\n"));
        Self { switches, plain: plain.to_string().into(), events }
    }
}

fn delta(delta: &Value, finish: Option<&str>) -> Bytes {
    let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
    event(&[choice], &Value::Null)
}

fn event(choices: &[Value], usage: &Value) -> Bytes {
    let chunk = json!({"id": "chatcmpl-simulated", "object": "chat.completion.chunk", "created": 1_700_000_000,
        "model": "gpt-4", "service_tier": "default", "system_fingerprint": "fp_simulated", "choices": choices,
        "usage": usage});
    format!("data: {chunk}\n\n").into()
}

/// Serves until the task is dropped.
///
/// # Errors
/// When the listener can accept no more.
pub async fn serve(listener: TcpListener) -> Result<(), BenchError> {
    let prepared = RwLock::new(Arc::new(Prepared::new(Switches { answer_tokens: 16, ..Switches::default() })));
    let stage = Arc::new(Stage { prepared, calls: AtomicU64::new(0) });
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(connection(stream, Arc::clone(&stage)));
    }
}

async fn connection(stream: TcpStream, stage: Arc<Stage>) {
    let service = service_fn(move |request| answer(Arc::clone(&stage), request));
    // Small pieces must not wait for the acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection ended before it began");
    } else if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection broke off");
    }
}

async fn answer(stage: Arc<Stage>, request: Request<Incoming>) -> Result<Response<Answer>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    match (&head.method, head.uri.path()) {
        (&Method::POST, "/v1/chat/completions") => Ok(chat(&stage, &body).await),
        (&Method::GET, "/v1/models") => {
            let model = json!({"id": "gpt-4", "object": "model", "created": 1_686_935_002, "owned_by": "simulated"});
            Ok(json_answer(json!({"object": "list", "data": [model]}).to_string().into()))
        }
        (&Method::GET, SWITCHES_PATH) => Ok(account(&stage)),
        (&Method::PUT, SWITCHES_PATH) => match serde_json::from_slice(&body) {
            Ok(switches) => {
                let prepared = Arc::new(Prepared::new(switches));
                *stage.prepared.write().unwrap_or_else(PoisonError::into_inner) = prepared;
                Ok(account(&stage))
            }
            Err(error) => Ok(failure(StatusCode::BAD_REQUEST, &error.to_string())),
        },
        _ => Ok(failure(StatusCode::NOT_FOUND, "a simulated provider has nothing here")),
    }
}

async fn chat(stage: &Stage, body: &[u8]) -> Response<Answer> {
    stage.calls.fetch_add(1, Ordering::Relaxed);
    let prepared = Arc::clone(&stage.prepared.read().unwrap_or_else(PoisonError::into_inner));
    // A timer of no time would still wait for the next millisecond.
    if prepared.switches.first_byte_delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(prepared.switches.first_byte_delay_ms)).await;
    }
    if body.windows(STREAMS.len()).any(|window| window == STREAMS) {
        let events = Events { prepared, next: 0, pause: None };
        respond(StatusCode::OK, "text/event-stream", Answer::Events(events))
    } else {
        json_answer(prepared.plain.clone())
    }
}

fn account(stage: &Stage) -> Response<Answer> {
    let switches = stage.prepared.read().unwrap_or_else(PoisonError::into_inner).switches;
    let account = Account { switches, calls: stage.calls.load(Ordering::Relaxed) };
    json_answer(json!(account).to_string().into())
}

fn failure(status: StatusCode, message: &str) -> Response<Answer> {
    let body = json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": null}});
    respond(status, "application/json", Answer::Whole(Full::new(body.to_string().into())))
}

fn json_answer(body: Bytes) -> Response<Answer> {
    respond(StatusCode::OK, "application/json", Answer::Whole(Full::new(body)))
}

fn respond(status: StatusCode, kind: &'static str, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(LABEL_HEADER, HeaderValue::from_static("true"));
    response
}

/// The body of an answer.
enum Answer {
    Whole(Full<Bytes>),
    Events(Events),
}

/// The events of a stream, each token after its pause.
struct Events {
    prepared: Arc<Prepared>,
    next: usize,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Events {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Switches { token_delay_ms, answer_tokens, .. } = self.prepared.switches;
        let is_token = self.next >= 1 && self.next <= usize::try_from(answer_tokens).unwrap_or(usize::MAX);
        if is_token && token_delay_ms > 0 {
            let sleep = || Box::pin(tokio::time::sleep(Duration::from_millis(token_delay_ms)));
            ready!(self.pause.get_or_insert_with(sleep).as_mut().poll(context));
            self.pause = None;
        }
        let event = self.prepared.events.get(self.next).cloned();
        self.next += 1;
        Poll::Ready(event)
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole).poll_frame(context),
            Self::Events(events) => events.poll_next(context).map(|event| event.map(|event| Ok(Frame::data(event)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Events(events) => events.next >= events.prepared.events.len(),
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Events(_) => hyper::body::SizeHint::default(),
        }
    }
}
