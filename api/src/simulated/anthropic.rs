//! A simulated Anthropic: `/v1/messages`, plain and streaming, and `/v1/models`.
//!
//! As strict as the real one about what it is sent: a field it does not know, an empty text or a tool's result nobody
//! asked for is refused.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use calos_domain::pricing::{PriceBook, Provider};
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use uuid::Uuid;

use super::anthropic_prompt::{Asked, Cached, Prompt};
use super::produced::Counted;
use super::story::Story;
use super::switches::{Switches, break_off};
use super::{OWNER, Stage};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

const RETRY_AFTER_SECONDS: &str = "1";

/// What it thinks when it is told to, each word a token.
const THOUGHTS: [&str; 5] = ["Let", " me", " think", " of", " it."];

pub(crate) fn router() -> Router<Arc<Stage>> {
    Router::new().route("/v1/messages", post(messages)).route("/v1/models", get(models))
}

/// Whether the simulated account has a model: it has every one of Anthropic's in the price book.
fn has_model(name: &str) -> bool {
    PriceBook::current().model(name).is_some_and(|entry| entry.provider == Provider::Anthropic)
}

async fn models(State(stage): State<Arc<Stage>>, headers: HeaderMap) -> Response {
    if let Err(refusal) = account(&stage, &headers) {
        return *refusal;
    }
    let entries = PriceBook::current().models().iter().filter(|entry| entry.provider == Provider::Anthropic);
    let data: Vec<Value> = entries
        .map(|entry| {
            json!({"type": "model", "id": entry.name, "display_name": entry.name,
                "created_at": "2025-02-19T00:00:00Z", "owned_by": OWNER})
        })
        .collect();
    let (first, last) = (data.first().map(|model| &model["id"]), data.last().map(|model| &model["id"]));
    Json(json!({"data": data, "has_more": false, "first_id": first, "last_id": last})).into_response()
}

async fn messages(State(stage): State<Arc<Stage>>, headers: HeaderMap, body: Bytes) -> Response {
    let key = match account(&stage, &headers) {
        Ok(key) => key,
        Err(refusal) => return *refusal,
    };
    stage.accounts.count(key);
    let asked = match Asked::read(&body) {
        Ok(asked) => asked,
        Err(problem) => return failure(StatusCode::BAD_REQUEST, &problem),
    };
    if !has_model(&asked.model) {
        return failure(StatusCode::NOT_FOUND, &format!("model: {}", asked.model));
    }
    let prompt = asked.prompt();
    let mut switches = super::story::switches(stage.switches(), &prompt.messages);
    switches.before_first_byte().await;
    let echo = switches.echo(key);
    if let Some(status) = stage.failure(&switches) {
        return failure(status, &format!("[simulated] The switch fail_with is set.{echo}"));
    }
    switches.call_tool |= asked.must_call_tool();
    let cached = stage.prompt_cache.look_up(&asked.model, &prompt);
    let call = Call::new(&stage, &asked, &prompt, cached, switches, echo);
    if asked.stream { call.stream() } else { call.whole().await }
}

/// One accepted call and its answer.
struct Call {
    id: String,
    model: String,
    story: Story,
    thinks: bool,
    prompt_tokens: u64,
    cached: Cached,
    tool: Option<String>,
    switches: Switches,
    /// What an error adds to its message.
    echo: String,
    counted: Counted,
}

impl Call {
    fn new(
        stage: &Arc<Stage>,
        asked: &Asked,
        prompt: &Prompt,
        cached: Cached,
        switches: Switches,
        echo: String,
    ) -> Self {
        let tool = asked.tool();
        let prompt_tokens = super::story::prompt_tokens(&prompt.messages);
        Self {
            id: format!("msg_{}", Uuid::now_v7().simple()),
            story: Story::tell(&prompt.messages, Some(asked.max_tokens), tool.is_some(), &switches),
            thinks: asked.thinks(),
            prompt_tokens,
            cached,
            tool,
            switches,
            echo,
            counted: Counted::new(stage, "anthropic", &asked.model, prompt_tokens),
            model: asked.model.clone(),
        }
    }

    fn thought_tokens(&self) -> u64 {
        if self.thinks { THOUGHTS.len() as u64 } else { 0 }
    }

    fn tokens(&self) -> u64 {
        self.story.tokens() + self.thought_tokens()
    }

    fn stop_reason(&self) -> &'static str {
        if self.story.calls_tool {
            "tool_use"
        } else if self.story.cut {
            "max_tokens"
        } else {
            "end_turn"
        }
    }

    fn usage(&self, output_tokens: u64) -> Value {
        let Cached { read, written_minutes, written_hour } = self.cached;
        json!({
            "input_tokens": self.prompt_tokens.saturating_sub(read + written_minutes + written_hour),
            "cache_creation_input_tokens": written_minutes + written_hour, "cache_read_input_tokens": read,
            "cache_creation": {"ephemeral_5m_input_tokens": written_minutes, "ephemeral_1h_input_tokens": written_hour},
            "output_tokens": output_tokens, "service_tier": "standard",
        })
    }

    fn message(&self, content: &[Value], stop_reason: Option<&str>, output_tokens: u64) -> Value {
        let mut message = json!({"id": self.id, "type": "message", "role": "assistant", "model": self.model,
            "content": content, "stop_reason": stop_reason, "stop_sequence": null});
        if !self.switches.omit_usage {
            message["usage"] = self.usage(output_tokens);
        }
        message
    }

    fn tool_use(&self, input: &Value) -> Value {
        json!({"type": "tool_use", "id": format!("toolu_{}", self.id), "name": self.tool, "input": input})
    }

    async fn whole(mut self) -> Response {
        self.switches.whole_answer(self.tokens()).await;
        if let Some(after) = self.switches.drop_after_tokens {
            self.counted.wrote(after.min(self.tokens()));
            let begun = stream::iter([Ok(Bytes::from_static(b"{\"id\":"))]);
            let broken = stream::once(async { Err::<Bytes, _>(break_off().await) });
            return Response::new(Body::from_stream(begun.chain(broken)));
        }
        let mut content = Vec::new();
        if self.thinks {
            content.push(json!({"type": "thinking", "thinking": THOUGHTS.concat(), "signature": "c2ltdWxhdGVk"}));
        }
        content.push(if self.story.calls_tool {
            self.tool_use(&self.switches.tool_arguments())
        } else {
            json!({"type": "text", "text": self.story.text()})
        });
        self.counted.wrote(self.tokens());
        self.counted.complete();
        let message = self.message(&content, Some(self.stop_reason()), self.tokens());
        ([(REQUEST_ID, request_id())], Json(message)).into_response()
    }

    fn stream(self) -> Response {
        let steps = stream::unfold((self, Step::Start), |(mut call, step)| async move {
            let (event, next) = call.step(step).await?;
            Some((event, (call, next)))
        });
        let mut response = Response::new(Body::from_stream(steps));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(REQUEST_ID, request_id());
        response
    }

    async fn step(&mut self, step: Step) -> Option<(std::io::Result<Bytes>, Step)> {
        let block = u64::from(self.thinks);
        match step {
            Step::Start => {
                let message = self.message(&[], None, 1);
                let next = if self.thinks { Step::Thoughts } else { Step::Open };
                Some((Ok(event(&json!({"type": "message_start", "message": message}))), next))
            }
            Step::Thoughts => {
                self.counted.wrote(self.thought_tokens());
                Some((Ok(thoughts()), Step::Open))
            }
            Step::Open => {
                let content =
                    if self.story.calls_tool { self.tool_use(&json!({})) } else { json!({"type": "text", "text": ""}) };
                let mut text =
                    event(&json!({"type": "content_block_start", "index": block, "content_block": content})).to_vec();
                text.extend_from_slice(&event(&json!({"type": "ping"})));
                Some((Ok(text.into()), Step::Word(0)))
            }
            Step::Word(index) if self.switches.drop_after_tokens == Some(index as u64) => {
                Some((Err(break_off().await), Step::End))
            }
            Step::Word(index) if self.switches.error_after_tokens == Some(index as u64) => {
                let message = format!("[simulated] The switch error_after_tokens is set.{}", self.echo);
                let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": message}});
                Some((Ok(event(&error)), Step::End))
            }
            Step::Word(0) if self.story.calls_tool => {
                self.counted.wrote(self.story.tokens());
                let input = self.switches.tool_arguments().to_string();
                let middle = input.char_indices().nth(input.chars().count() / 2).map_or(0, |(place, _)| place);
                let mut text = Vec::new();
                for part in ["", &input[..middle], &input[middle..]] {
                    text.extend_from_slice(&delta(block, &json!({"type": "input_json_delta", "partial_json": part})));
                }
                Some((Ok(text.into()), Step::Close))
            }
            Step::Word(index) if index < self.story.words.len() => {
                self.switches.before_token(index as u64).await;
                self.counted.wrote(1);
                let word = json!({"type": "text_delta", "text": self.story.words[index]});
                Some((Ok(delta(block, &word)), Step::Word(index + 1)))
            }
            Step::Word(_) | Step::Close => {
                Some((Ok(event(&json!({"type": "content_block_stop", "index": block}))), Step::Delta))
            }
            Step::Delta => {
                let mut last = json!({"type": "message_delta",
                    "delta": {"stop_reason": self.stop_reason(), "stop_sequence": null}});
                if !self.switches.omit_usage {
                    last["usage"] = json!({"output_tokens": self.tokens()});
                }
                Some((Ok(event(&last)), Step::Stop))
            }
            Step::Stop => {
                self.counted.complete();
                Some((Ok(event(&json!({"type": "message_stop"}))), Step::End))
            }
            Step::End => None,
        }
    }
}

/// Where a stream stands.
enum Step {
    Start,
    Thoughts,
    Open,
    Word(usize),
    Close,
    Delta,
    Stop,
    End,
}

/// A whole block of thinking, signed at its end.
fn thoughts() -> Bytes {
    let opened = json!({"type": "content_block_start", "index": 0,
        "content_block": {"type": "thinking", "thinking": "", "signature": ""}});
    let mut text = event(&opened).to_vec();
    for thought in THOUGHTS {
        text.extend_from_slice(&delta(0, &json!({"type": "thinking_delta", "thinking": thought})));
    }
    text.extend_from_slice(&delta(0, &json!({"type": "signature_delta", "signature": "c2ltdWxhdGVk"})));
    text.extend_from_slice(&event(&json!({"type": "content_block_stop", "index": 0})));
    text.into()
}

fn delta(block: u64, delta: &Value) -> Bytes {
    event(&json!({"type": "content_block_delta", "index": block, "delta": delta}))
}

fn event(data: &Value) -> Bytes {
    let name = data["type"].as_str().unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n").into()
}

fn request_id() -> HeaderValue {
    HeaderValue::from_str(&format!("req_{}", Uuid::now_v7().simple())).unwrap_or(HeaderValue::from_static("req_0"))
}

/// The key a call came with, unless it is missing or refused; a call names the version it was written for.
fn account<'h>(stage: &Stage, headers: &'h HeaderMap) -> Result<&'h str, Box<Response>> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let refused = |message: &str| Box::new(failure(StatusCode::UNAUTHORIZED, message));
    let key = text(X_API_KEY).filter(|key| !key.is_empty()).ok_or_else(|| refused("x-api-key header is required"))?;
    if stage.switches().rejects(key) {
        return Err(refused("invalid x-api-key"));
    }
    if text(ANTHROPIC_VERSION).is_none() {
        return Err(Box::new(failure(StatusCode::BAD_REQUEST, "anthropic-version: header is required")));
    }
    Ok(key)
}

fn failure(status: StatusCode, message: &str) -> Response {
    let kind = match status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    let id = request_id();
    let body = json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": id.to_str().ok()});
    let mut response = (status, [(REQUEST_ID, id)], Json(body)).into_response();
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    }
    response
}
