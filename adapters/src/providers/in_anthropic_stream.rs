//! Tells streams that came in OpenAI's words as the events of Anthropic's message streams.
//!
//! Blocks are opened and closed as the kind of content changes. The last two events wait for the usage, which OpenAI's
//! dialect sends after the reason for the end; what comes behind it is read and passed over. Calls of tools that come
//! interleaved are told one after the other ([`super::in_anthropic_calls`]).

use std::collections::VecDeque;

use bytes::Bytes;
use calos_commands::provider::{ChatRequest, Chunk, ChunkKind, ChunkStream, Produced, ProviderError, TokenUsage};
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::in_anthropic_answer::{Call, Choice, message_id, stop_reason, told_usage};
use super::in_anthropic_calls::{WaitingCall, WaitingCalls};
use super::teller::{Teller, told_by};

/// The events of a message stream, from the chunks of a completion.
pub(super) fn event_stream(provider: &'static str, request: &ChatRequest, chunks: ChunkStream) -> ChunkStream {
    told_by(Reader { chunks, telling: Telling::new(provider, request) })
}

struct Reader {
    chunks: ChunkStream,
    telling: Telling,
}

impl Teller for Reader {
    async fn read_on(&mut self, ready: &mut VecDeque<Chunk>) -> Result<bool, ProviderError> {
        match self.chunks.next().await {
            Some(Ok(chunk)) => self.telling.chunk(chunk, ready).map(|()| true),
            Some(Err(error)) => {
                // An answer that had its end and its count lacks nothing but the provider's own end mark.
                if self.telling.is_complete() {
                    self.telling.end(ready);
                }
                Err(error)
            }
            None => {
                self.telling.end(ready);
                Ok(false)
            }
        }
    }
}

#[derive(Deserialize)]
struct WireChunk {
    #[serde(default)]
    choices: Option<Vec<Choice>>,
}

/// Which block is being written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Text,
    Thinking,
    /// The call of that number in OpenAI's words.
    Call(u64),
}

struct Telling {
    provider: &'static str,
    id: String,
    model: String,
    prompt_estimate_tokens: u64,
    begun: bool,
    open: Option<Open>,
    /// What the open call has been given so far.
    arguments: String,
    /// The calls that wait for the open one to end.
    calls: WaitingCalls,
    /// How many blocks have been opened.
    blocks: u64,
    finish_reason: Option<String>,
    finished: bool,
    usage: Option<TokenUsage>,
    produced: Produced,
    ended: bool,
}

impl Telling {
    fn new(provider: &'static str, request: &ChatRequest) -> Self {
        Self {
            provider,
            id: message_id(request),
            model: request.model.clone(),
            prompt_estimate_tokens: request.prompt_estimate_tokens,
            begun: false,
            open: None,
            arguments: String::new(),
            calls: WaitingCalls::default(),
            blocks: 0,
            finish_reason: None,
            finished: false,
            usage: None,
            produced: Produced::default(),
            ended: false,
        }
    }

    fn is_complete(&self) -> bool {
        self.finished && self.usage.is_some()
    }

    fn chunk(&mut self, chunk: Chunk, ready: &mut VecDeque<Chunk>) -> Result<(), ProviderError> {
        if self.ended {
            return Ok(());
        }
        self.produced.add(chunk.produced);
        self.usage = chunk.usage.or(self.usage);
        self.model = chunk.model.clone().unwrap_or_else(|| self.model.clone());
        let mut events = Vec::new();
        if !self.begun {
            self.begun = true;
            events.push(self.message_start());
        }
        if let Some(json) = &chunk.json {
            let wire: WireChunk = serde_json::from_slice(json)
                .map_err(|error| ProviderError::BadAnswer { provider: self.provider, detail: error.to_string() })?;
            for choice in wire.choices.unwrap_or_default() {
                self.choice(choice, &mut events)?;
            }
        }
        self.finished |= chunk.kind == ChunkKind::Finish;
        let model = chunk.model;
        // Counted once, with the first of the events, or with none where nothing is to be shown.
        let mut counted = Some((chunk.produced, chunk.usage));
        let mut push = |kind, json: Option<Value>| {
            let (produced, usage) = counted.take().unwrap_or_default();
            let json = json.map(|event| Bytes::from(event.to_string()));
            ready.push_back(Chunk { kind, json, model: model.clone(), usage, produced });
        };
        if events.is_empty() {
            push(ChunkKind::Content, None);
        }
        for event in events {
            push(ChunkKind::Content, Some(event));
        }
        if chunk.kind == ChunkKind::Usage {
            self.end(ready);
        } else if chunk.kind == ChunkKind::Finish {
            // Says to the engine that the answer has had its end; the event itself waits for the usage.
            push(ChunkKind::Finish, None);
        }
        Ok(())
    }

    /// The prompt is counted only at the end; until then clients are shown what it most likely has.
    fn message_start(&self) -> Value {
        let expected = TokenUsage { prompt_tokens: self.prompt_estimate_tokens, ..TokenUsage::default() };
        json!({"type": "message_start", "message": {
            "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": told_usage(self.usage.unwrap_or(expected))}})
    }

    fn choice(&mut self, choice: Choice, events: &mut Vec<Value>) -> Result<(), ProviderError> {
        let said = choice.delta.unwrap_or_default();
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(thinking) = given(said.reasoning_content) {
            self.open(Open::Thinking, || json!({"type": "thinking", "thinking": "", "signature": ""}), events);
            events.push(self.delta(&json!({"type": "thinking_delta", "thinking": thinking})));
        }
        for text in [said.content, said.refusal].into_iter().filter_map(given) {
            self.open(Open::Text, || json!({"type": "text", "text": ""}), events);
            events.push(self.delta(&json!({"type": "text_delta", "text": text})));
        }
        for call in said.tool_calls.unwrap_or_default() {
            self.call(call, events)?;
        }
        if choice.finish_reason.is_some() {
            self.finish_reason = choice.finish_reason;
        }
        Ok(())
    }

    /// Pieces of several calls may come in turns, while Anthropic's blocks follow each other: a call is told while it is
    /// the one that is open, and waits until then.
    fn call(&mut self, piece: Call, events: &mut Vec<Value>) -> Result<(), ProviderError> {
        match self.open {
            Some(Open::Call(open)) if open == piece.index => {
                let arguments = piece.function.and_then(|function| function.arguments).unwrap_or_default();
                self.arguments(&arguments, events);
                Ok(())
            }
            Some(Open::Call(_)) if !self.written_to_its_end() => self.calls.keep(self.provider, piece),
            Some(_) | None => {
                let index = piece.index;
                self.calls.keep(self.provider, piece)?;
                if let Some(call) = self.calls.take(index) {
                    self.open_call(index, call, events);
                }
                Ok(())
            }
        }
    }

    /// Whether the arguments of the open call are whole, so that no more of them can come.
    fn written_to_its_end(&self) -> bool {
        let text = self.arguments.trim_end();
        text.ends_with('}') && serde_json::from_str::<IgnoredAny>(text).is_ok()
    }

    fn open_call(&mut self, index: u64, call: WaitingCall, events: &mut Vec<Value>) {
        let id = call.id.unwrap_or_else(|| format!("toolu_{}_{index}", self.id.trim_start_matches("msg_")));
        let name = call.name;
        self.open(Open::Call(index), || json!({"type": "tool_use", "id": id, "name": name, "input": {}}), events);
        self.arguments(&call.arguments, events);
    }

    fn arguments(&mut self, piece: &str, events: &mut Vec<Value>) {
        if !piece.is_empty() {
            self.arguments.push_str(piece);
            events.push(self.delta(&json!({"type": "input_json_delta", "partial_json": piece})));
        }
    }

    /// Opens a block unless it is the one that is open; the one before it is closed.
    fn open(&mut self, kind: Open, block: impl FnOnce() -> Value, events: &mut Vec<Value>) {
        if self.open == Some(kind) {
            return;
        }
        // Calls that waited for the one before are told before anything else is.
        if matches!(kind, Open::Call(_)) {
            self.close(events)
        } else {
            self.close_all(events)
        }
        self.open = Some(kind);
        self.blocks += 1;
        events.push(json!({"type": "content_block_start", "index": self.blocks - 1, "content_block": block()}));
    }

    fn close(&mut self, events: &mut Vec<Value>) {
        if let Some(open) = self.open.take() {
            if let Open::Call(index) = open {
                self.calls.end(index);
                self.arguments.clear();
            }
            events.push(json!({"type": "content_block_stop", "index": self.blocks - 1}));
        }
    }

    /// Closes what is open, and tells the calls that waited for it.
    fn close_all(&mut self, events: &mut Vec<Value>) {
        self.close(events);
        while let Some((index, call)) = self.calls.take_first() {
            self.open_call(index, call, events);
            self.close(events);
        }
    }

    fn delta(&self, delta: &Value) -> Value {
        json!({"type": "content_block_delta", "index": self.blocks.saturating_sub(1), "delta": delta})
    }

    /// Closes what is open, and says why it ended and what it took.
    fn end(&mut self, ready: &mut VecDeque<Chunk>) {
        if std::mem::replace(&mut self.ended, true) || !self.begun {
            return;
        }
        let mut closing = Vec::new();
        self.close_all(&mut closing);
        let usage = self.usage.unwrap_or_else(|| TokenUsage {
            prompt_tokens: self.prompt_estimate_tokens,
            completion_tokens: self.produced.tokens(),
            ..TokenUsage::default()
        });
        let reason = stop_reason(self.finish_reason.as_deref());
        let delta = json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null},
            "usage": told_usage(usage)});
        let events = closing.into_iter().map(|event| (ChunkKind::Content, event));
        let last = [(ChunkKind::Finish, delta), (ChunkKind::Usage, json!({"type": "message_stop"}))];
        for (kind, event) in events.chain(last) {
            let json = Some(Bytes::from(event.to_string()));
            ready.push_back(Chunk { kind, json, model: None, usage: None, produced: Produced::default() });
        }
    }
}

#[cfg(test)]
#[path = "in_anthropic_stream_tests.rs"]
mod tests;
