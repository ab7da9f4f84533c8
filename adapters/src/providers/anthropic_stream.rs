//! The events of Anthropic's message streams: passed on as they come, or told as OpenAI's chunks.
//!
//! The prompt's tokens are reported with the first event and the answer's with the last but one, each time as the whole so
//! far. In between the answer is counted here, so that whoever leaves is charged for the prompt as reported and for what
//! was written until then.

use std::collections::VecDeque;

use bytes::Bytes;
use calos_commands::provider::{
    ChatRequest, Chunk, ChunkKind, ChunkStream, Dialect, Produced, ProviderError, TokenUsage, Transcript,
};
use calos_commands::raw_object::RawObject;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::anthropic::NAME;
use super::anthropic_answer::{
    Function, Reported, ToldUsage, ToolCall, WireBlock, bad, event_error, finish_reason, now_seconds, proven,
};
use super::anthropic_parts::ThinkingBlock;
use super::chunks::{set, written};
use super::http::Pieces;
use super::openai::too_long;
use super::sse::Sse;
use super::teller::{Teller, told_by};

/// The longest thought that is kept until it can be proven; of a longer one the proof is left out.
const THOUGHT_MAX_BYTES: usize = 4 * 1024 * 1024;

/// The chunks of a message stream, in the dialect of the request.
pub(super) fn chunk_stream(pieces: Pieces, request: &ChatRequest) -> ChunkStream {
    told_by(Reader { pieces, sse: Sse::default(), telling: Telling::new(request) })
}

struct Reader {
    pieces: Pieces,
    sse: Sse,
    telling: Telling,
}

impl Teller for Reader {
    async fn read_on(&mut self, ready: &mut VecDeque<Chunk>) -> Result<bool, ProviderError> {
        let Some(piece) = self.pieces.next().await? else {
            let detail = "the stream ended without message_stop".to_owned();
            return Err(ProviderError::BadAnswer { provider: NAME, detail });
        };
        self.sse.push(&piece);
        while let Some(event) = self.sse.next_event().map_err(|error| too_long(NAME, error))? {
            if event.data.is_empty() {
                continue;
            }
            // A ping is an event of its own, sent while the model thinks unseen: unlike a comment it is a sign of life.
            self.pieces.alive();
            if self.telling.event(event.data, ready)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[derive(Deserialize)]
struct WireKind {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    billing: Option<IgnoredAny>,
    #[serde(default)]
    provider: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct WireEvent<'a> {
    #[serde(borrow, default)]
    message: Option<WireMessage<'a>>,
    #[serde(default)]
    index: u64,
    #[serde(borrow, default)]
    content_block: Option<WireBlock<'a>>,
    #[serde(default)]
    delta: Option<WireDelta>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WireMessage<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct WireDelta {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    thinking: Option<String>,
    #[serde(default)]
    signature: Option<String>,
    #[serde(default)]
    partial_json: Option<String>,
    #[serde(default)]
    stop_reason: Option<String>,
}

impl WireDelta {
    fn texts(&self) -> impl Iterator<Item = &str> {
        [&self.text, &self.thinking, &self.partial_json].into_iter().flatten().map(String::as_str)
    }
}

/// What a stream has been so far, which every next event builds on.
struct Telling {
    reported: Reported,
    produced: Produced,
    transcript: Transcript,
    max_tokens: u64,
    /// Set when the client speaks OpenAI's dialect.
    in_openais_words: Option<Words>,
}

impl Telling {
    fn new(request: &ChatRequest) -> Self {
        Self {
            reported: Reported::default(),
            produced: Produced::default(),
            transcript: request.transcript.clone(),
            max_tokens: request.max_tokens,
            in_openais_words: (request.dialect == Dialect::OpenAi).then(|| Words::new(request)),
        }
    }

    /// Takes an event, and whether it was the last.
    fn event(&mut self, data: Vec<u8>, ready: &mut VecDeque<Chunk>) -> Result<bool, ProviderError> {
        let wire: WireKind = serde_json::from_slice(&data).map_err(|error| bad(&error))?;
        let kind = match wire.kind.as_str() {
            "error" => return Err(event_error(&data)),
            "message_delta" => ChunkKind::Finish,
            "message_stop" => ChunkKind::Usage,
            _ => ChunkKind::Content,
        };
        let known = ["message_start", "content_block_start", "content_block_delta", "content_block_stop"];
        let event = if kind != ChunkKind::Content || known.contains(&wire.kind.as_str()) {
            serde_json::from_slice(&data).map_err(|error| bad(&error))?
        } else {
            // A ping, or something that is not known yet.
            WireEvent { message: None, index: 0, content_block: None, delta: None, usage: None }
        };
        let (usage, produced) = self.count(&event, kind);
        match &mut self.in_openais_words {
            Some(words) => words.event(&wire.kind, event, usage, produced, ready)?,
            None => {
                let model = event.message.and_then(|message| message.model);
                let is_billed = wire.billing.is_some() || wire.provider.is_some();
                let json = Some(as_it_came(data, is_billed)?);
                ready.push_back(Chunk { kind, json, model, usage, produced });
            }
        }
        Ok(kind == ChunkKind::Usage)
    }

    /// What an event reports, and what it holds.
    fn count(&mut self, event: &WireEvent<'_>, kind: ChunkKind) -> (Option<TokenUsage>, Produced) {
        self.reported.take_raw(event.message.as_ref().and_then(|message| message.usage));
        self.reported.take_raw(event.usage);
        let block = event.content_block.iter().flat_map(WireBlock::texts);
        let mut bytes = 0;
        for text in block.chain(event.delta.iter().flat_map(WireDelta::texts)) {
            self.transcript.add(text);
            bytes += text.len() as u64;
        }
        let produced = Produced::piece(bytes);
        self.produced.add(produced);
        let usage = match kind {
            ChunkKind::Finish if event.usage.is_some() => self.reported.usage(),
            ChunkKind::Content if produced.pieces > 0 || event.message.is_some() => {
                self.reported.so_far(self.produced, self.max_tokens)
            }
            ChunkKind::Content | ChunkKind::Finish | ChunkKind::Usage => None,
        };
        (usage, produced)
    }
}

/// The event's own text. Only one of several lines, or with a bill that is not ours, is written anew.
fn as_it_came(data: Vec<u8>, is_billed: bool) -> Result<Bytes, ProviderError> {
    if is_billed {
        let mut body: RawObject = serde_json::from_slice(&data).map_err(|error| bad(&error))?;
        body.remove("billing");
        body.remove("provider");
        return super::chunks::one_line(NAME, &body);
    }
    if data.contains(&b'\n') {
        let value: serde_json::Value = serde_json::from_slice(&data).map_err(|error| bad(&error))?;
        return serde_json::to_vec(&value).map(Bytes::from).map_err(|error| bad(&error));
    }
    Ok(data.into())
}

/// A stream in OpenAI's words.
struct Words {
    id: String,
    created: u64,
    model: String,
    show_usage: bool,
    /// The blocks that call tools, and how many there have been.
    calls: Vec<OpenCall>,
    called: usize,
    /// The thoughts that are being had, each told once more with its proof when it is over.
    thoughts: Vec<OpenThought>,
    usage: Option<TokenUsage>,
}

struct OpenCall {
    block: u64,
    index: usize,
    has_arguments: bool,
}

struct OpenThought {
    block: u64,
    thinking: String,
    signature: String,
}

#[derive(Default, Serialize)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    thinking_blocks: Vec<ThinkingBlock>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
}

#[derive(Serialize)]
struct Choice {
    index: u32,
    delta: Delta,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

impl Delta {
    fn proof(block: ThinkingBlock) -> Self {
        Self { thinking_blocks: vec![block], ..Self::default() }
    }
}

impl Words {
    fn new(request: &ChatRequest) -> Self {
        Self {
            id: request.answer_id.clone(),
            created: now_seconds(),
            model: request.model.clone(),
            show_usage: request.show_usage,
            calls: Vec::new(),
            called: 0,
            thoughts: Vec::new(),
            usage: None,
        }
    }

    fn event(
        &mut self,
        kind: &str,
        event: WireEvent<'_>,
        usage: Option<TokenUsage>,
        produced: Produced,
        ready: &mut VecDeque<Chunk>,
    ) -> Result<(), ProviderError> {
        self.usage = usage.or(self.usage);
        let (kind, delta, finish) = match kind {
            "message_start" => {
                let message = event.message;
                let (id, model) = message.map_or((None, None), |message| (message.id, message.model));
                self.id = id.unwrap_or_else(|| self.id.clone());
                self.model = model.unwrap_or_else(|| self.model.clone());
                (
                    ChunkKind::Content,
                    Some(Delta { role: Some("assistant"), content: Some(String::new()), ..Delta::default() }),
                    None,
                )
            }
            "content_block_start" => {
                (ChunkKind::Content, event.content_block.and_then(|block| self.opens(event.index, block)), None)
            }
            "content_block_delta" => {
                (ChunkKind::Content, event.delta.and_then(|delta| self.goes_on(event.index, delta)), None)
            }
            "content_block_stop" => (ChunkKind::Content, self.closes(event.index), None),
            "message_delta" => {
                let reason = event.delta.and_then(|delta| delta.stop_reason);
                (ChunkKind::Finish, Some(Delta::default()), Some(finish_reason(reason.as_deref())))
            }
            "message_stop" => {
                let chunk = self.usage_chunk()?;
                ready.push_back(chunk);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let json = match delta {
            Some(delta) => Some(self.chunk(&[Choice { index: 0, delta, logprobs: None, finish_reason: finish }])?),
            None if produced.pieces == 0 && usage.is_none() => return Ok(()),
            None => None,
        };
        ready.push_back(Chunk { kind, json, model: Some(self.model.clone()), usage, produced });
        Ok(())
    }

    fn opens(&mut self, block: u64, content: WireBlock<'_>) -> Option<Delta> {
        if content.kind == "tool_use" {
            let index = self.called;
            self.called += 1;
            let arguments = content.arguments().unwrap_or_default().to_owned();
            self.calls.push(OpenCall { block, index, has_arguments: !arguments.is_empty() });
            let function = Function { name: content.name, arguments };
            let call = ToolCall { index: Some(index), id: content.id, kind: Some("function"), function };
            return Some(Delta { tool_calls: vec![call], ..Delta::default() });
        }
        match content.kind.as_str() {
            "thinking" => self.thoughts.push(OpenThought {
                block,
                thinking: content.thinking.clone().unwrap_or_default(),
                signature: content.signature.clone().unwrap_or_default(),
            }),
            "redacted_thinking" => return proven(&content).map(Delta::proof),
            _ => {}
        }
        said(content.text, content.thinking)
    }

    fn goes_on(&mut self, block: u64, delta: WireDelta) -> Option<Delta> {
        if let Some(thought) = self.thoughts.iter_mut().find(|thought| thought.block == block) {
            thought.thinking.push_str(delta.thinking.as_deref().unwrap_or_default());
            thought.signature.push_str(delta.signature.as_deref().unwrap_or_default());
        }
        self.thoughts.retain(|thought| thought.thinking.len() <= THOUGHT_MAX_BYTES);
        match delta.partial_json.filter(|json| !json.is_empty()) {
            Some(json) => {
                let call = self.calls.iter_mut().find(|call| call.block == block)?;
                call.has_arguments = true;
                Some(more_arguments(call.index, json))
            }
            None => said(delta.text, delta.thinking),
        }
    }

    /// A call without any input still has an object for it, which OpenAI's clients parse. A thought is proven when it is
    /// over, in one piece: clients put the lists of the deltas together.
    fn closes(&mut self, block: u64) -> Option<Delta> {
        if let Some(place) = self.thoughts.iter().position(|thought| thought.block == block) {
            let OpenThought { thinking, signature, .. } = self.thoughts.swap_remove(place);
            return (!signature.is_empty()).then(|| {
                let (thinking, signature) = (Some(thinking), Some(signature));
                Delta::proof(ThinkingBlock { kind: "thinking".to_owned(), thinking, signature, data: None })
            });
        }
        let place = self.calls.iter().position(|call| call.block == block)?;
        let call = self.calls.swap_remove(place);
        (!call.has_arguments).then(|| more_arguments(call.index, "{}".to_owned()))
    }

    fn envelope(&self) -> Result<RawObject, ProviderError> {
        let mut body = RawObject::default();
        set(NAME, &mut body, "id", &self.id)?;
        set(NAME, &mut body, "object", "chat.completion.chunk")?;
        set(NAME, &mut body, "created", &self.created)?;
        set(NAME, &mut body, "model", &self.model)?;
        Ok(body)
    }

    fn chunk(&self, choices: &[Choice]) -> Result<Bytes, ProviderError> {
        let mut body = self.envelope()?;
        set(NAME, &mut body, "choices", choices)?;
        if self.show_usage {
            set(NAME, &mut body, "usage", &())?;
        }
        written(NAME, &body)
    }

    fn usage_chunk(&self) -> Result<Chunk, ProviderError> {
        let json = match self.usage {
            Some(usage) if self.show_usage => {
                let mut body = self.envelope()?;
                set(NAME, &mut body, "choices", &[(); 0])?;
                set(NAME, &mut body, "usage", &ToldUsage::from(usage))?;
                Some(written(NAME, &body)?)
            }
            Some(_) | None => None,
        };
        let (model, produced) = (Some(self.model.clone()), Produced::default());
        Ok(Chunk { kind: ChunkKind::Usage, json, model, usage: None, produced })
    }
}

fn said(text: Option<String>, thinking: Option<String>) -> Option<Delta> {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let delta = Delta { content: given(text), reasoning_content: given(thinking), ..Delta::default() };
    (delta.content.is_some() || delta.reasoning_content.is_some()).then_some(delta)
}

fn more_arguments(index: usize, arguments: String) -> Delta {
    let function = Function { name: None, arguments };
    Delta { tool_calls: vec![ToolCall { index: Some(index), id: None, kind: None, function }], ..Delta::default() }
}

#[cfg(test)]
#[path = "anthropic_stream_tests.rs"]
mod tests;
