//! Ollama's own dialect: JSON lines from `/api/chat`.

use std::collections::VecDeque;
use std::sync::Arc;

use calos_commands::log::Boxed;
use calos_commands::provider::{
    ChatProvider, ChatRequest, Chunk, ChunkStream, Completion, ModelListing, ProviderError,
};
use futures_util::stream;
use reqwest::RequestBuilder;
use serde::Deserialize;

use super::http::{LISTING_TIMEOUT, Pieces, ProviderHttp, base_url};
use super::lines::Lines;
use super::ollama_answer::Telling;
use super::ollama_request::translate;
use super::openai::too_long;

/// The name in events and answers.
pub const NAME: &str = "ollama";

/// Where Ollama is when nothing else is configured.
pub const DEFAULT_BASE_URL: &str = "http://127.0.0.1:11434";

/// The most models of a listing that are taken in.
const LISTING_MAX_MODELS: usize = 2_000;

/// One Ollama server.
#[derive(Clone, Debug)]
pub struct Ollama {
    http: ProviderHttp,
    base: Arc<str>,
}

impl Ollama {
    /// `base` is the server's root, as in [`DEFAULT_BASE_URL`].
    #[must_use]
    pub fn new(http: ProviderHttp, base: &str) -> Self {
        Self { http, base: base_url(base) }
    }

    fn post(&self, request: &ChatRequest, streaming: bool) -> Result<RequestBuilder, ProviderError> {
        let body = translate(request, streaming)?;
        Ok(self.http.client().post(format!("{}/api/chat", self.base)).json(&body))
    }
}

impl ChatProvider for Ollama {
    fn name(&self) -> &'static str {
        NAME
    }

    fn complete<'a>(&'a self, request: &'a ChatRequest) -> Boxed<'a, Result<Completion, ProviderError>> {
        Box::pin(async move {
            let answer = self.http.whole(NAME, self.post(request, false)?, self.http.settings().whole).await;
            let text = answer.map_err(refusing_tools)?;
            Telling::new(request).whole(&text)
        })
    }

    fn stream<'a>(&'a self, request: &'a ChatRequest) -> Boxed<'a, Result<ChunkStream, ProviderError>> {
        Box::pin(async move {
            let pieces = self.http.pieces(NAME, self.post(request, true)?).await.map_err(refusing_tools)?;
            let reader = Reader {
                pieces,
                lines: Lines::default(),
                telling: Telling::new(request),
                ready: VecDeque::new(),
                ended: false,
            };
            let chunks = stream::unfold(reader, |mut reader| async move { Some((reader.next().await?, reader)) });
            Ok(Box::pin(chunks) as ChunkStream)
        })
    }

    fn models(&self) -> Boxed<'_, Result<Vec<ModelListing>, ProviderError>> {
        Box::pin(async move {
            let request = self.http.client().get(format!("{}/api/tags", self.base));
            read_listing(&self.http.whole(NAME, request, LISTING_TIMEOUT).await?)
        })
    }
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

struct Reader {
    pieces: Pieces,
    lines: Lines,
    telling: Telling,
    ready: VecDeque<Chunk>,
    ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<Chunk, ProviderError>> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Some(Ok(chunk));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.read_piece().await {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }

    async fn read_piece(&mut self) -> Result<(), ProviderError> {
        let Some(piece) = self.pieces.next().await? else {
            // The last line may come without its line end.
            let rest = self.lines.rest();
            if !rest.trim_ascii().is_empty() {
                self.take_line(&rest)?;
            }
            if self.ended {
                return Ok(());
            }
            let detail = "the stream ended without done".to_owned();
            return Err(ProviderError::BadAnswer { provider: NAME, detail });
        };
        self.lines.push(&piece);
        while let Some(line) = self.lines.next_line().map_err(|error| too_long(NAME, error))? {
            if !line.trim_ascii().is_empty() && !self.ended {
                self.pieces.alive();
                self.take_line(&line)?;
            }
        }
        Ok(())
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), ProviderError> {
        let (chunks, done) = self.telling.line(line)?;
        self.ready.extend(chunks);
        self.ended |= done;
        Ok(())
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
}

fn read_listing(text: &[u8]) -> Result<Vec<ModelListing>, ProviderError> {
    let tags: WireTags = serde_json::from_slice(text)
        .map_err(|error| ProviderError::BadAnswer { provider: NAME, detail: error.to_string() })?;
    let models = tags.models.into_iter().take(LISTING_MAX_MODELS);
    let named = models.map(|model| {
        let owned_by = model.owned_by.unwrap_or_else(|| "library".to_owned());
        ModelListing { id: model.name, created: 0, owned_by }
    });
    Ok(named.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read() {
        let text = r#"{"models":[{"name":"llama3.2:3b","modified_at":"2023-11-04T14:56:49.277302595-07:00","size":7365960935,
            "digest":"9f438cb9cd58","details":{"format":"gguf","family":"llama"}}]}"#;
        assert_eq!(read_listing(text.as_bytes()).unwrap()[0].id, "llama3.2:3b");
        assert!(read_listing(b"[]").is_err());
    }
}
