//! A simulated Ollama: `/api/chat`, plain and as JSON lines, `/api/embed`, `/api/tags` and `/api/version`.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::produced::Counted;
use super::story::{SaidMessage, Story, prompt_tokens, switches};
use super::switches::{Switches, break_off};
use super::{OWNER, Stage};

/// The models the simulated server has pulled.
pub const MODELS: [&str; 8] = [
    "llama3.2:3b",
    "llama2:latest",
    "codellama:latest",
    "soulfra:latest",
    "deathtodata:latest",
    "saveorsink:latest",
    "roughsparks:latest",
    super::embeddings::LOCAL_MODEL,
];

/// Those of them that call tools; the others refuse a request that offers one.
const TOOL_MODELS: [&str; 1] = ["llama3.2:3b"];

/// The version it claims.
const VERSION: &str = "0.9.6";

pub(crate) fn router() -> Router<Arc<Stage>> {
    Router::new()
        .route("/", get(async || "Ollama is running (simulated by CALOS)"))
        .route("/api/chat", post(chat))
        .route("/api/embed", post(super::embeddings::ollama))
        .route("/api/tags", get(tags))
        .route("/api/version", get(async || Json(json!({"version": VERSION}))))
}

#[derive(Deserialize)]
struct Asked {
    model: String,
    #[serde(default)]
    messages: Vec<SaidMessage>,
    /// Ollama streams unless it is told not to.
    #[serde(default = "streams")]
    stream: bool,
    #[serde(default)]
    options: Options,
    #[serde(default)]
    tools: Vec<Tool>,
}

const fn streams() -> bool {
    true
}

#[derive(Default, Deserialize)]
struct Options {
    #[serde(default)]
    num_predict: Option<i64>,
}

#[derive(Deserialize)]
struct Tool {
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
}

async fn tags() -> Json<Value> {
    let models: Vec<Value> = MODELS
        .iter()
        .map(|name| {
            json!({"name": name, "model": name, "modified_at": "2025-01-01T00:00:00Z", "size": 0,
                "digest": "simulated", "owned_by": OWNER, "details": {"format": "simulated", "family": OWNER}})
        })
        .collect();
    Json(json!({"models": models}))
}

async fn chat(State(stage): State<Arc<Stage>>, body: Bytes) -> Response {
    let asked: Asked = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return failure(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let model = if asked.model.contains(':') { asked.model.clone() } else { format!("{}:latest", asked.model) };
    if !MODELS.contains(&model.as_str()) {
        return failure(StatusCode::NOT_FOUND, &format!("model '{}' not found", asked.model));
    }
    if !asked.tools.is_empty() && !TOOL_MODELS.contains(&model.as_str()) {
        stage.refuse_tools(&model);
        let message = format!("registry.ollama.ai/library/{model} does not support tools");
        return failure(StatusCode::BAD_REQUEST, &message);
    }
    let begun = Instant::now();
    let switches = switches(stage.switches(), &asked.messages);
    switches.before_first_byte().await;
    if let Some(status) = stage.failure(&switches) {
        return failure(status, "[simulated] The switch fail_with is set.");
    }
    let streaming = asked.stream;
    let call = Call::new(&stage, asked, switches, begun);
    if streaming { call.stream() } else { call.whole().await }
}

/// One accepted call and its answer.
struct Call {
    model: String,
    story: Story,
    prompt_tokens: u64,
    tool: Option<String>,
    switches: Switches,
    begun: Instant,
    counted: Counted,
}

impl Call {
    fn new(stage: &Arc<Stage>, asked: Asked, switches: Switches, begun: Instant) -> Self {
        // A negative limit means none, as Ollama has it.
        let limit = asked.options.num_predict.and_then(|limit| u64::try_from(limit).ok());
        let tool = asked.tools.into_iter().next().map(|tool| tool.function.name);
        let prompt_tokens = prompt_tokens(&asked.messages);
        Self {
            story: Story::tell(&asked.messages, limit, tool.is_some(), &switches),
            prompt_tokens,
            tool,
            switches,
            begun,
            counted: Counted::new(stage, "ollama", &asked.model, prompt_tokens),
            model: asked.model,
        }
    }

    fn line(&self, message: &Value) -> Value {
        let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        json!({"model": self.model, "created_at": now, "message": message, "done": false})
    }

    /// The last object of an answer, or its only one.
    fn last(&self, message: &Value) -> Value {
        let mut line = self.line(message);
        let nanoseconds = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        line["done"] = json!(true);
        line["done_reason"] = json!(if self.story.cut { "length" } else { "stop" });
        line["total_duration"] = json!(nanoseconds);
        line["load_duration"] = json!(0);
        line["prompt_eval_duration"] = json!(0);
        line["eval_duration"] = json!(nanoseconds);
        if !self.switches.omit_usage {
            line["prompt_eval_count"] = json!(self.prompt_tokens);
            line["eval_count"] = json!(self.story.tokens());
        }
        line
    }

    fn tool_call(&self) -> Value {
        json!({"role": "assistant", "content": "",
            "tool_calls": [{"function": {"name": self.tool, "arguments": self.switches.tool_arguments()}}]})
    }

    async fn whole(mut self) -> Response {
        self.switches.whole_answer(self.story.tokens()).await;
        if let Some(after) = self.switches.drop_after_tokens {
            self.counted.wrote(after.min(self.story.tokens()));
            let begun = stream::iter([Ok(Bytes::from_static(b"{"))]);
            let broken = stream::once(async { Err::<Bytes, _>(break_off().await) });
            return Response::new(Body::from_stream(begun.chain(broken)));
        }
        let message = if self.story.calls_tool {
            self.tool_call()
        } else {
            json!({"role": "assistant", "content": self.story.text()})
        };
        self.counted.wrote(self.story.tokens());
        self.counted.complete();
        Json(self.last(&message)).into_response()
    }

    fn stream(self) -> Response {
        let lines = stream::unfold((self, Some(0)), |(mut call, next)| async move {
            let (line, next) = call.step(next?).await;
            Some((line, (call, next)))
        });
        let mut response = Response::new(Body::from_stream(lines));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        response
    }

    /// The line of one word, and which word is next.
    async fn step(&mut self, index: usize) -> (std::io::Result<Bytes>, Option<usize>) {
        if self.switches.drop_after_tokens == Some(index as u64) {
            return (Err(break_off().await), None);
        }
        if self.switches.error_after_tokens == Some(index as u64) {
            return (Ok(text(&json!({"error": "[simulated] The switch error_after_tokens is set."}))), None);
        }
        if index == 0 && self.story.calls_tool {
            self.counted.wrote(self.story.tokens());
            return (Ok(text(&self.line(&self.tool_call()))), Some(1));
        }
        let Some(word) = self.story.words.get(index).cloned() else {
            self.counted.complete();
            return (Ok(text(&self.last(&json!({"role": "assistant", "content": ""})))), None);
        };
        self.switches.before_token(index as u64).await;
        self.counted.wrote(1);
        (Ok(text(&self.line(&json!({"role": "assistant", "content": word})))), Some(index + 1))
    }
}

fn text(value: &Value) -> Bytes {
    format!("{value}\n").into()
}

fn failure(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"error": message}))).into_response()
}
