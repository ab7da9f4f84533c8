//! The demo's client: what any OpenAI client does, in a few lines.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Client, RequestBuilder};
use serde_json::Value;

use crate::cli::CliError;

/// How long any answer may take.
const ANSWER_MAX_SECONDS: u64 = 30;

/// A client of one server.
pub(super) struct DemoClient {
    client: Client,
    base: String,
}

/// An answer, read whole.
pub(super) struct Answer {
    /// The JSON body.
    pub(super) body: Value,
    /// `calos-position`, when the call wrote something.
    pub(super) position: Option<String>,
}

/// What a streamed answer came to.
#[derive(Default)]
pub(super) struct Streamed {
    /// How many chunks came before the end mark.
    pub(super) chunks: usize,
    /// The text of all of them.
    pub(super) text: String,
    /// The last chunk before the end mark: it carries the bill.
    pub(super) last: Value,
    /// Whether the end mark came.
    pub(super) is_done: bool,
}

impl DemoClient {
    pub(super) fn new(address: SocketAddr) -> Result<Self, CliError> {
        // Whoever installed one before did so with the same one.
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .timeout(Duration::from_secs(ANSWER_MAX_SECONDS))
            .build()
            .map_err(|error| failed(&error))?;
        Ok(Self { client, base: format!("http://{address}") })
    }

    pub(super) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.base))
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.base)).json(body)
    }
}

/// Sends a request whose answer must be a success.
pub(super) async fn answer(request: RequestBuilder) -> Result<Answer, CliError> {
    let response = request.send().await.map_err(|error| failed(&error))?;
    let (status, path) = (response.status(), response.url().path().to_owned());
    let position = response.headers().get("calos-position").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let text = response.text().await.map_err(|error| failed(&error))?;
    if !status.is_success() {
        return Err(CliError::Refused(format!("{path} answered {status}: {text}")));
    }
    let body = serde_json::from_str(&text).map_err(|error| CliError::Refused(format!("{path}: {error}: {text}")))?;
    Ok(Answer { body, position })
}

/// Sends a request whose answer must be a stream of events.
pub(super) async fn stream(request: RequestBuilder) -> Result<Streamed, CliError> {
    let response = request.send().await.map_err(|error| failed(&error))?;
    let status = response.status();
    let text = response.text().await.map_err(|error| failed(&error))?;
    if !status.is_success() {
        return Err(CliError::Refused(format!("the stream was answered {status}: {text}")));
    }
    let mut streamed = Streamed::default();
    for data in text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim) {
        if data == "[DONE]" {
            streamed.is_done = true;
            break;
        }
        let chunk: Value = serde_json::from_str(data)
            .map_err(|error| CliError::Refused(format!("a chunk is no JSON: {error}: {data}")))?;
        streamed.text.push_str(chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
        streamed.chunks += 1;
        streamed.last = chunk;
    }
    Ok(streamed)
}

fn failed(error: &reqwest::Error) -> CliError {
    CliError::Refused(format!("the call failed: {error}"))
}
