//! A simulated OpenAI: `/v1/chat/completions`, plain and streaming, `/v1/embeddings` and `/v1/models`; and whoever else
//! speaks its dialect.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use calos_domain::pricing::{ModelEntry, PriceBook, Provider};
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::accounts::bearer;
use super::produced::Counted;
use super::story::{SaidMessage, Story, prompt_tokens, switches};
use super::switches::{Switches, break_off};
use super::{OWNER, Stage};

/// Who speaks the dialect, and how.
#[derive(Debug)]
pub(super) struct Speaker {
    /// Its name in the tallies.
    pub(super) name: &'static str,
    /// Whose models of the price book the simulated account has: every one.
    pub(super) provider: Provider,
    /// Whether it thinks aloud, says so in fields of its own, and shows that it is still there: DeepSeek's ways.
    pub(super) is_deepseek: bool,
}

const OPENAI: Speaker = Speaker { name: "openai", provider: Provider::OpenAi, is_deepseek: false };

impl Speaker {
    fn models(&self) -> impl Iterator<Item = &'static ModelEntry> {
        let provider = self.provider;
        PriceBook::current().models().iter().filter(move |entry| entry.provider == provider)
    }

    fn has_chat_model(&self, name: &str) -> bool {
        let is_preview = self.provider == Provider::OpenAi && name == PREVIEW_MODEL;
        is_preview || self.models().any(|entry| entry.names().any(|known| known == name) && !entry.kind.is_embedding())
    }
}

/// What the simulated account has beside the price book, as accounts have previews that nobody prices.
pub const PREVIEW_MODEL: &str = "gpt-simulated-preview";

/// The most answers to one call, as at OpenAI.
const CHOICES_MAX: u64 = 128;

const RETRY_AFTER_SECONDS: &str = "1";

pub(crate) fn router() -> Router<Arc<Stage>> {
    speaking(&OPENAI).route("/v1/embeddings", post(super::embeddings::openai))
}

/// The endpoints every speaker has.
pub(super) fn speaking(speaker: &'static Speaker) -> Router<Arc<Stage>> {
    Router::new()
        .route("/v1/chat/completions", post(move |stage, headers, body| chat(speaker, stage, headers, body)))
        .route("/v1/models", get(move |stage, headers| models(speaker, stage, headers)))
}

#[derive(Deserialize)]
struct Asked {
    model: String,
    messages: Vec<SaidMessage>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    max_completion_tokens: Option<u64>,
    #[serde(default)]
    n: Option<u64>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    tools: Option<Vec<Tool>>,
    #[serde(default)]
    tool_choice: Option<Value>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
struct Tool {
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
}

async fn models(speaker: &Speaker, State(stage): State<Arc<Stage>>, headers: HeaderMap) -> Response {
    if let Err(refusal) = account(&stage, &headers) {
        return *refusal;
    }
    let data: Vec<Value> = speaker
        .models()
        .map(|entry| json!({"id": entry.name, "object": "model", "created": 1_686_935_002, "owned_by": OWNER}))
        .collect();
    Json(json!({"object": "list", "data": data})).into_response()
}

async fn chat(speaker: &'static Speaker, State(stage): State<Arc<Stage>>, headers: HeaderMap, body: Bytes) -> Response {
    let key = match account(&stage, &headers) {
        Ok(key) => key,
        Err(refusal) => return *refusal,
    };
    stage.accounts.count(key);
    let asked: Asked = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return failure(StatusCode::BAD_REQUEST, &format!("We could not parse the body: {error}"), None),
    };
    if asked.messages.is_empty() {
        return failure(StatusCode::BAD_REQUEST, "[] is too short - 'messages'", None);
    }
    if !speaker.has_chat_model(&asked.model) {
        let message = format!("The model `{}` does not exist or you do not have access to it.", asked.model);
        return failure(StatusCode::NOT_FOUND, &message, Some("model_not_found"));
    }
    let switches = switches(stage.switches(), &asked.messages);
    switches.before_first_byte().await;
    if let Some(status) = stage.failure(&switches) {
        let message = format!("[simulated] The switch fail_with is set.{}", switches.echo(key));
        return failure(status, &message, Some("simulated_failure"));
    }
    let echo = switches.echo(key);
    let call = Call { echo, ..Call::new(speaker, &stage, asked, switches) };
    if call.streaming { call.stream() } else { call.whole().await }
}

/// One accepted call and its answer.
struct Call {
    speaker: &'static Speaker,
    id: String,
    created: u64,
    model: String,
    story: Story,
    choices: u64,
    prompt_tokens: u64,
    streaming: bool,
    include_usage: bool,
    tool: Option<String>,
    switches: Switches,
    /// What an error adds to its message.
    echo: String,
    counted: Counted,
}

impl Call {
    fn new(speaker: &'static Speaker, stage: &Arc<Stage>, asked: Asked, switches: Switches) -> Self {
        let tools = asked.tools.filter(|_| asked.tool_choice != Some(json!("none"))).unwrap_or_default();
        let tool = tools.into_iter().next().map(|tool| tool.function.name);
        let limit = asked.max_completion_tokens.or(asked.max_tokens);
        let prompt_tokens = prompt_tokens(&asked.messages);
        Self {
            speaker,
            id: format!("chatcmpl-{}", Uuid::now_v7().simple()),
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            story: Story::tell(&asked.messages, limit, tool.is_some(), &switches),
            choices: asked.n.unwrap_or(1).clamp(1, CHOICES_MAX),
            prompt_tokens,
            streaming: asked.stream.unwrap_or(false),
            include_usage: asked.stream_options.is_some_and(|options| options.include_usage),
            tool,
            switches,
            echo: String::new(),
            counted: Counted::new(stage, speaker.name, &asked.model, prompt_tokens),
            model: asked.model,
        }
    }

    fn finish_reason(&self) -> &'static str {
        if self.story.calls_tool {
            "tool_calls"
        } else if self.switches.out_of_room {
            "insufficient_system_resource"
        } else if self.story.cut {
            "length"
        } else {
            "stop"
        }
    }

    /// Tokens of all answers, thoughts included.
    fn written(&self) -> u64 {
        (self.story.tokens() + self.switches.reasoning_tokens) * self.choices
    }

    fn usage(&self) -> Value {
        let (prompt, completion) = (self.prompt_tokens, self.written());
        let cached = self.switches.cached_tokens.min(prompt);
        let reasoning = self.switches.reasoning_tokens * self.choices;
        if self.speaker.is_deepseek {
            return json!({
                "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
                "prompt_cache_hit_tokens": cached, "prompt_cache_miss_tokens": prompt - cached,
                "completion_tokens_details": {"reasoning_tokens": reasoning},
            });
        }
        json!({
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": 0,
                "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
        })
    }

    /// What it thinks aloud.
    fn thoughts(&self) -> u64 {
        if self.speaker.is_deepseek { self.switches.reasoning_tokens } else { 0 }
    }

    fn tool_call(&self) -> Value {
        json!({"id": format!("call_{}", self.id), "type": "function",
            "function": {"name": self.tool, "arguments": self.switches.tool_arguments().to_string()}})
    }

    async fn whole(mut self) -> Response {
        self.switches.whole_answer(self.story.tokens()).await;
        if let Some(after) = self.switches.drop_after_tokens {
            self.counted.wrote(after.min(self.story.tokens()));
            return broken_body();
        }
        let mut message = if self.story.calls_tool {
            json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": [self.tool_call()]})
        } else {
            json!({"role": "assistant", "content": self.story.text(), "refusal": null})
        };
        if self.thoughts() > 0 {
            let thoughts: String = (0..self.thoughts()).map(thought).collect();
            message["reasoning_content"] = json!(thoughts);
        }
        let finish = self.finish_reason();
        let choices: Vec<Value> = (0..self.choices)
            .map(|index| json!({"index": index, "message": message, "logprobs": null, "finish_reason": finish}))
            .collect();
        let mut answer = json!({"id": self.id, "object": "chat.completion", "created": self.created,
            "model": self.model, "choices": choices, "service_tier": "default", "system_fingerprint": "fp_simulated"});
        if !self.switches.omit_usage {
            answer["usage"] = self.usage();
        }
        self.counted.wrote(self.written());
        self.counted.complete();
        if self.speaker.is_deepseek {
            // Empty lines keep the connection alive while an answer is being written.
            let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
            return (json, format!("\n\n{answer}")).into_response();
        }
        Json(answer).into_response()
    }

    fn stream(self) -> Response {
        let steps = stream::unfold((self, Step::Role), |(mut call, step)| async move {
            let (event, next) = call.step(step).await?;
            Some((event, (call, next)))
        });
        let mut response = Response::new(Body::from_stream(steps));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }

    async fn step(&mut self, step: Step) -> Option<(std::io::Result<Bytes>, Step)> {
        match step {
            Step::Role => {
                let delta = json!({"role": "assistant", "content": "", "refusal": null});
                let mut text = if self.speaker.is_deepseek { Vec::from(KEEP_ALIVE) } else { Vec::new() };
                text.extend_from_slice(&self.event(&delta, None));
                if self.thoughts() == 0 {
                    self.counted.wrote(self.switches.reasoning_tokens * self.choices);
                    return Some((Ok(text.into()), Step::Word(0)));
                }
                Some((Ok(text.into()), Step::Thought(0)))
            }
            Step::Thought(index) if index < self.thoughts() => {
                self.counted.wrote(self.choices);
                let delta = json!({"content": null, "reasoning_content": thought(index)});
                Some((Ok(self.event(&delta, None)), Step::Thought(index + 1)))
            }
            Step::Thought(_) => Some((Ok(Bytes::from_static(KEEP_ALIVE)), Step::Word(0))),
            Step::Word(index) if self.switches.drop_after_tokens == Some(index as u64) => {
                Some((Err(break_off().await), Step::End))
            }
            Step::Word(index) if self.switches.error_after_tokens == Some(index as u64) => {
                let message = format!("[simulated] The switch error_after_tokens is set.{}", self.echo);
                let error = json!({"error": {"message": message, "type": "server_error",
                    "param": null, "code": null}});
                Some((Ok(data(&error)), Step::End))
            }
            Step::Word(0) if self.story.calls_tool => {
                let mut call = self.tool_call();
                call["index"] = json!(0);
                self.counted.wrote(self.story.tokens());
                Some((Ok(self.event(&json!({"tool_calls": [call]}), None)), Step::Finish))
            }
            Step::Word(index) if index < self.story.words.len() => {
                self.switches.before_token(index as u64).await;
                self.counted.wrote(self.choices);
                Some((Ok(self.event(&json!({"content": self.story.words[index]}), None)), Step::Word(index + 1)))
            }
            Step::Word(_) | Step::Finish => {
                let next = if self.include_usage && !self.switches.omit_usage { Step::Usage } else { Step::Done };
                Some((Ok(self.event(&json!({}), Some(self.finish_reason()))), next))
            }
            Step::Usage => {
                let mut chunk = self.chunk(&[]);
                chunk["usage"] = self.usage();
                Some((Ok(data(&chunk)), Step::Done))
            }
            Step::Done => {
                self.counted.complete();
                Some((Ok(Bytes::from_static(b"data: [DONE]\n\n")), Step::End))
            }
            Step::End => None,
        }
    }

    /// The same delta for every choice, each in a chunk of its own, as OpenAI sends them.
    fn event(&self, delta: &Value, finish_reason: Option<&str>) -> Bytes {
        let mut text = Vec::with_capacity(320);
        for index in 0..self.choices {
            let choice = json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": finish_reason});
            text.extend_from_slice(&data(&self.chunk(&[choice])));
        }
        text.into()
    }

    fn chunk(&self, choices: &[Value]) -> Value {
        let mut chunk = json!({"id": self.id, "object": "chat.completion.chunk", "created": self.created,
            "model": self.model, "service_tier": "default", "system_fingerprint": "fp_simulated", "choices": choices});
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }
}

/// Where a stream stands.
enum Step {
    Role,
    Thought(u64),
    Word(usize),
    Finish,
    Usage,
    Done,
    End,
}

/// What DeepSeek sends while there is nothing to send.
const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

fn thought(index: u64) -> String {
    format!(" thought{index}")
}

fn data(value: &Value) -> Bytes {
    format!("data: {value}\n\n").into()
}

fn broken_body() -> Response {
    let begun = stream::iter([Ok(Bytes::from_static(b"{\"id\":"))]);
    let broken = stream::once(async { Err::<Bytes, _>(break_off().await) });
    let mut response = Response::new(Body::from_stream(begun.chain(broken)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The key a call came with, unless it is missing or refused.
pub(super) fn account<'h>(stage: &Stage, headers: &'h HeaderMap) -> Result<&'h str, Box<Response>> {
    let refused = |message: &str| Box::new(failure(StatusCode::UNAUTHORIZED, message, Some("invalid_api_key")));
    let key = bearer(headers).ok_or_else(|| refused("You didn't provide an API key."))?;
    if stage.switches().rejects(key) {
        return Err(refused(&format!("Incorrect API key provided: {key}. You can find your API key in your account.")));
    }
    Ok(key)
}

pub(super) fn failure(status: StatusCode, message: &str, code: Option<&str>) -> Response {
    let kind = match status.as_u16() {
        429 => "requests",
        400..500 => "invalid_request_error",
        _ => "server_error",
    };
    let body = json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
    let mut response = (status, Json(body)).into_response();
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    }
    response
}
