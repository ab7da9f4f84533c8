//! Ollama's own dialect: JSON lines from `/api/chat`, vectors from `/api/embed`.
//!
//! Personas may have hosts of their own; a call goes to the host of its model.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use calos_commands::log::Boxed;
use calos_commands::provider::{
    ChatProvider, ChatRequest, Chunk, ChunkStream, Completion, LocalModel, ModelListing, ProviderError,
};
use calos_commands::tokens::TokenCounter;
use reqwest::RequestBuilder;
use serde::{Deserialize, Serialize};

use super::embeddings;
use super::http::{LISTING_TIMEOUT, Pieces, ProviderHttp, base_url};
use super::lines::Lines;
use super::ollama_answer::{Telling, WireAnswer, read};
use super::ollama_count::Counting;
use super::ollama_embed;
use super::ollama_request::{OllamaRequest, translate};
use super::openai::too_long;
use super::retry_after::soon_again;
use super::teller::{Teller, told_by};

/// The name in events and answers.
pub const NAME: &str = "ollama";

/// Where Ollama is when nothing else is configured.
pub const DEFAULT_BASE_URL: &str = "http://127.0.0.1:11434";

/// The most models of a listing that are taken in.
const LISTING_MAX_MODELS: usize = 2_000;

/// The platform's Ollama servers.
#[derive(Clone)]
pub struct Ollama {
    http: ProviderHttp,
    base: Arc<str>,
    /// Models with a server of their own, by their names without a tag.
    hosts: Arc<[(String, Arc<str>)]>,
    counter: Option<Arc<dyn TokenCounter>>,
}

impl fmt::Debug for Ollama {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ollama").field("base", &self.base).field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl Ollama {
    /// `base` is the server's root, as in [`DEFAULT_BASE_URL`].
    #[must_use]
    pub fn new(http: ProviderHttp, base: &str) -> Self {
        Self { http, base: base_url(base), hosts: Arc::default(), counter: None }
    }

    /// The same with servers of their own for some models, named without a tag.
    #[must_use]
    pub fn with_hosts<'h>(self, hosts: impl IntoIterator<Item = (&'h str, &'h str)>) -> Self {
        let hosts = hosts.into_iter().map(|(model, base)| (bare(model).to_owned(), base_url(base))).collect();
        Self { hosts, ..self }
    }

    /// The same, which has counted what a server does not report.
    #[must_use]
    pub fn counting_with(self, counter: Arc<dyn TokenCounter>) -> Self {
        Self { counter: Some(counter), ..self }
    }

    /// The server a model runs on.
    fn host(&self, model: &str) -> &str {
        let own = self.hosts.iter().find(|(name, _)| name == bare(model));
        own.map_or(&self.base, |(_, base)| base)
    }

    fn post(&self, path: &str, model: &str, body: &impl Serialize) -> RequestBuilder {
        self.http.client().post(format!("{}/api/{path}", self.host(model))).json(body)
    }

    fn counting(&self, request: &ChatRequest) -> Counting {
        Counting::new(self.counter.clone(), request)
    }

    /// The models of one server; on a persona's own only the persona's count, since no call for another goes there.
    async fn listing(&self, base: &str, only: Option<&str>) -> Result<Vec<ModelListing>, ProviderError> {
        let request = self.http.client().get(format!("{base}/api/tags"));
        let mut models = read_listing(&self.http.whole(NAME, request, LISTING_TIMEOUT).await?, base)?;
        models.retain(|model| match only {
            Some(name) => bare(&model.id) == name,
            None => self.hosts.iter().all(|(name, _)| name != bare(&model.id)),
        });
        Ok(models)
    }
}

/// A model's name without its tag.
fn bare(model: &str) -> &str {
    model.split_once(':').map_or(model, |(name, _)| name)
}

/// Ollama tells a model that calls no tools from other mistakes in its words alone.
fn refusing_tools(error: ProviderError) -> ProviderError {
    match error {
        ProviderError::Status { status: 400, message, .. } if message.contains("does not support tools") => {
            ProviderError::Unsupported { provider: NAME, param: "tools", message }
        }
        other => other,
    }
}

fn refuses_thinking(error: &ProviderError) -> bool {
    let ProviderError::Status { status: 400, message, .. } = error else { return false };
    message.contains("does not support thinking")
        || message.contains("think value") && message.contains("is not supported")
}

impl ChatProvider for Ollama {
    fn name(&self) -> &'static str {
        NAME
    }

    fn complete<'a>(&'a self, request: &'a ChatRequest) -> Boxed<'a, Result<Completion, ProviderError>> {
        Box::pin(async move {
            let limit = self.http.settings().whole;
            let answer = self.asked(translate(request, false)?, |post| self.http.whole(NAME, post, limit)).await?;
            let answer = read(&answer)?;
            let mut telling = Telling::new(request);
            self.count_what_is_missing(&answer, request, &mut telling).await;
            telling.whole(answer)
        })
    }

    fn stream<'a>(&'a self, request: &'a ChatRequest) -> Boxed<'a, Result<ChunkStream, ProviderError>> {
        Box::pin(async move {
            let pieces = self.asked(translate(request, true)?, |post| self.http.pieces(NAME, post)).await?;
            let (telling, counting) = (Telling::new(request), self.counting(request));
            Ok(told_by(Reader { pieces, lines: Lines::default(), telling, counting }))
        })
    }

    fn embed<'a>(&'a self, request: &'a ChatRequest) -> Boxed<'a, Result<Completion, ProviderError>> {
        Box::pin(async move {
            embeddings::fits_as_numbers(NAME, request)?;
            let post = self.post("embed", &request.model, &ollama_embed::translate(request)?);
            let limit = self.http.settings().whole;
            let text = self.http.whole_within(NAME, post, limit, embeddings::ANSWER_MAX_BYTES).await?;
            let answer = ollama_embed::read(&text)?;
            let prompt = match answer.prompt_eval_count {
                Some(reported) => Ok(reported),
                None => Err(self.counting(request).prompt().await),
            };
            ollama_embed::tell(answer, prompt, request)
        })
    }

    fn models(&self) -> Boxed<'_, Result<Vec<ModelListing>, ProviderError>> {
        Box::pin(async move {
            let personas = self.hosts.iter().map(|(name, base)| self.listing(base, Some(name)));
            let (shared, own) = tokio::join!(self.listing(&self.base, None), futures_util::future::join_all(personas));
            let mut listed = Vec::new();
            let mut failed = None;
            for models in std::iter::once(shared).chain(own) {
                match models {
                    Ok(models) => listed.extend(models),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            match failed {
                // One server that is away does not hide what the others have.
                Some(error) if listed.is_empty() => Err(error),
                Some(_) | None => Ok(listed),
            }
        })
    }
}

impl Ollama {
    /// Sends a chat; once more without a word on thinking where the model does not think, or not in that measure. Both
    /// are only known from its words.
    async fn asked<T, F>(
        &self,
        mut body: OllamaRequest<'_>,
        send: impl Fn(RequestBuilder) -> F,
    ) -> Result<T, ProviderError>
    where
        F: Future<Output = Result<T, ProviderError>>,
    {
        let first = send(self.post("chat", body.model(), &body)).await;
        let answer = match first {
            Err(error) if refuses_thinking(&error) && body.leave_thinking_out() => {
                send(self.post("chat", body.model(), &body)).await
            }
            answer => answer,
        };
        answer.map_err(|error| refusing_tools(soon_again(error)))
    }

    async fn count_what_is_missing(&self, answer: &WireAnswer, request: &ChatRequest, telling: &mut Telling) {
        if answer.lacks_prompt_count() {
            telling.prompt_estimate_tokens = self.counting(request).prompt().await;
        }
    }
}

struct Reader {
    pieces: Pieces,
    lines: Lines,
    telling: Telling,
    counting: Counting,
}

impl Teller for Reader {
    async fn read_on(&mut self, ready: &mut VecDeque<Chunk>) -> Result<bool, ProviderError> {
        let Some(piece) = self.pieces.next().await? else {
            // The last line may come without its line end.
            let rest = self.lines.rest();
            if !rest.trim_ascii().is_empty() && self.take_line(&rest, ready).await? {
                return Ok(false);
            }
            let detail = "the stream ended without done".to_owned();
            return Err(ProviderError::BadAnswer { provider: NAME, detail });
        };
        self.lines.push(&piece);
        while let Some(line) = self.lines.next_line().map_err(|error| too_long(NAME, error))? {
            if line.trim_ascii().is_empty() {
                continue;
            }
            self.pieces.alive();
            if self.take_line(&line, ready).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Reader {
    /// Whether the line was the last.
    async fn take_line(&mut self, line: &[u8], ready: &mut VecDeque<Chunk>) -> Result<bool, ProviderError> {
        let answer = read(line)?;
        if answer.lacks_prompt_count() {
            self.telling.prompt_estimate_tokens = self.counting.prompt().await;
        }
        let (chunks, done) = self.telling.line(answer)?;
        ready.extend(chunks);
        Ok(done)
    }
}

#[derive(Deserialize)]
struct WireTags {
    models: Vec<WireModel>,
}

#[derive(Deserialize)]
struct WireModel {
    name: String,
    /// Ollama itself does not say; a server that speaks its language may.
    #[serde(default)]
    owned_by: Option<String>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    modified_at: Option<String>,
    #[serde(default)]
    details: WireDetails,
}

#[derive(Default, Deserialize)]
struct WireDetails {
    #[serde(default)]
    family: Option<String>,
    #[serde(default)]
    parameter_size: Option<String>,
}

fn read_listing(text: &[u8], host: &str) -> Result<Vec<ModelListing>, ProviderError> {
    let tags: WireTags = serde_json::from_slice(text)
        .map_err(|error| ProviderError::BadAnswer { provider: NAME, detail: error.to_string() })?;
    let models = tags.models.into_iter().take(LISTING_MAX_MODELS);
    let named = models.map(|model| ModelListing {
        id: model.name,
        created: 0,
        owned_by: model.owned_by.unwrap_or_else(|| "library".to_owned()),
        local: Some(LocalModel {
            host: host.to_owned(),
            size_bytes: model.size,
            modified_at: model.modified_at,
            family: model.details.family,
            parameter_size: model.details.parameter_size,
        }),
    });
    Ok(named.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read() {
        let text = r#"{"models":[{"name":"llama3.2:3b","modified_at":"2023-11-04T14:56:49.277302595-07:00","size":7365960935,
            "digest":"9f438cb9cd58","details":{"format":"gguf","family":"llama","parameter_size":"3.2B"}}]}"#;
        let models = read_listing(text.as_bytes(), "http://a:1").unwrap();
        assert_eq!(models[0].id, "llama3.2:3b");
        let local = models[0].local.as_ref().unwrap();
        assert_eq!((local.host.as_str(), local.size_bytes), ("http://a:1", Some(7_365_960_935)));
        assert_eq!((local.family.as_deref(), local.parameter_size.as_deref()), (Some("llama"), Some("3.2B")));
        assert!(read_listing(b"[]", "").is_err());
    }

    #[test]
    fn a_persona_with_a_host_of_its_own_is_asked_there() {
        let http = ProviderHttp::new(super::super::HttpSettings::default()).unwrap();
        let ollama = Ollama::new(http, DEFAULT_BASE_URL).with_hosts([("soulfra", "http://127.0.0.1:11435/")]);
        assert_eq!(ollama.host("soulfra:latest"), "http://127.0.0.1:11435");
        assert_eq!(ollama.host("soulfra"), "http://127.0.0.1:11435");
        assert_eq!(ollama.host("soulfra2"), DEFAULT_BASE_URL);
    }

    /// A server that answers each connection with the next of these, and keeps what it was sent.
    async fn server(
        answers: [(&'static str, &'static str); 2],
    ) -> (String, tokio::task::JoinHandle<Vec<serde_json::Value>>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = tokio::spawn(async move {
            let mut seen = Vec::new();
            for (status, answer) in answers {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                let body = loop {
                    let mut piece = [0; 4_096];
                    let length = connection.read(&mut piece).await.unwrap();
                    request.extend_from_slice(&piece[..length]);
                    let text = String::from_utf8_lossy(&request);
                    let body = text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok());
                    if let Some(body) = body {
                        break body;
                    }
                };
                seen.push(body);
                let head =
                    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", answer.len());
                connection.write_all(format!("{head}{answer}").as_bytes()).await.unwrap();
            }
            seen
        });
        (url, seen)
    }

    #[tokio::test]
    async fn a_model_that_does_not_think_is_asked_once_more_without_a_word_on_it() {
        let refused = ("400 Bad Request", r#"{"error":"\"llama3.2:3b\" does not support thinking"}"#);
        let answered = (
            "200 OK",
            r#"{"model":"llama3.2:3b","message":{"role":"assistant","content":"hello"},"done":true,
                "prompt_eval_count":5,"eval_count":1}"#,
        );
        let (url, seen) = server([refused, answered]).await;
        let http = ProviderHttp::new(super::super::HttpSettings::default()).unwrap();
        let request = ChatRequest {
            answer_id: "chatcmpl-test".to_owned(),
            dialect: calos_commands::provider::Dialect::OpenAi,
            key: None,
            model: "llama3.2:3b".to_owned(),
            fields: Arc::new(
                serde_json::from_str(r#"{"messages":[{"role":"user","content":"hi"}],"think":true}"#).unwrap(),
            ),
            betas: None,
            max_tokens: 64,
            max_tokens_field: calos_commands::provider::MaxTokensField::MaxTokens,
            show_usage: false,
            prompt_estimate_tokens: 10,
            transcript: calos_commands::provider::Transcript::default(),
        };
        let answer = Ollama::new(http, &url).complete(&request).await.unwrap();
        assert!(answer.body.get("choices").unwrap().contains("hello"));
        let seen = seen.await.unwrap();
        assert_eq!((&seen[0]["think"], seen[1].get("think")), (&serde_json::json!(true), None));
    }

    #[test]
    fn only_a_refusal_to_think_is_one() {
        let refusal = |status, message: &str| ProviderError::Status {
            provider: NAME,
            status,
            message: message.to_owned(),
            code: None,
            param: None,
            retry_after: None,
        };
        assert!(refuses_thinking(&refusal(400, r#"think value "high" is not supported for this model"#)));
        assert!(!refuses_thinking(&refusal(400, "does not support tools")));
        assert!(!refuses_thinking(&refusal(500, "does not support thinking")));
    }
}
