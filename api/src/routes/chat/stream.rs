//! A streamed answer as server-sent events: `{"delta": "…"}` for each piece, then everything about it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};

use calos_commands::complete_chat::{Billing, ChatFailure, ChatStream, Piece};
use calos_commands::raw_object::RawObject;
use calos_commands::tool_loop::Said;
use calos_domain::MicroUsd;

use super::answer::About;
use super::failed;
use crate::body::Room;
use crate::boundary::LOG_TARGET;
use crate::error::Dialect;
use crate::routes::gateway::{Charged, KEEP_ALIVE, QUIET_MAX, Tells, limits, server_sent_events};

/// The most tool calls one answer is read for.
const TOOL_CALLS_MAX: u64 = 128;

/// The response around a stream that has begun; `room` is what the question's body takes up until it ends.
pub(super) fn respond(stream: ChatStream, begun: Instant, room: Arc<Room>) -> Response {
    let status = stream.served.limits;
    let mut response = server_sent_events(Telling { stream, begun, heard: Heard::default(), _room: room });
    limits::tell(response.headers_mut(), &status);
    response
}

/// A stream on its way.
struct Telling {
    stream: ChatStream,
    begun: Instant,
    heard: Heard,
    _room: Arc<Room>,
}

/// What its chunks have said beside text.
#[derive(Default)]
struct Heard {
    cost: MicroUsd,
    finish_reason: Option<String>,
    /// By the provider's index: id, name, arguments so far.
    calls: BTreeMap<u64, (String, String, String)>,
}

impl Tells for Telling {
    async fn tell(&mut self) -> (Bytes, bool) {
        let quiet_until = tokio::time::Instant::now() + QUIET_MAX;
        loop {
            let Ok(piece) = tokio::time::timeout_at(quiet_until, self.stream.pieces.recv()).await else {
                return (Bytes::from_static(KEEP_ALIVE), false);
            };
            match piece {
                Some(Piece::Data(json)) => {
                    let delta = self.heard.take(&json);
                    if !delta.is_empty() {
                        return (event(&json!({"delta": delta})), false);
                    }
                }
                Some(Piece::Done) => return (event(&self.about()), true),
                Some(Piece::Failed { failure, billing }) => return (self.error(failure, billing), true),
                None => return (self.error(ChatFailure::Lost("its task broke off"), None), true),
            }
        }
    }
}

impl Telling {
    fn about(&mut self) -> Value {
        let usage = self.stream.metered.get().copied().unwrap_or_default();
        let latency_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let heard = std::mem::take(&mut self.heard);
        json!(About::new(&self.stream.served, usage, heard.cost, latency_ms, heard.said()))
    }

    /// What a stream that breaks off ends with: the error, and what was charged for what came before it. The status went
    /// out long ago, so this is also where the failure is logged.
    fn error(&self, failure: ChatFailure, billing: Option<Billing>) -> Bytes {
        let charged = if billing.is_some() { Charged::WhatWasGiven } else { Charged::Nothing };
        let error = failed(failure, charged);
        let usage = self.stream.served.usage_id;
        tracing::warn!(target: LOG_TARGET, %usage, code = error.code().as_str(), %error, "a stream broke off");
        let error = match billing {
            Some(billing) => error.with_fact("billing", json!(billing)),
            None => error,
        };
        event(&error.body(Dialect::Calos))
    }
}

impl Heard {
    /// Takes a `chat.completion.chunk` in and answers its text.
    fn take(&mut self, json: &[u8]) -> String {
        let Ok(chunk) = serde_json::from_slice::<Value>(json) else { return String::new() };
        if let Some(micros) = chunk["billing"]["total_cost_micros"].as_i64() {
            self.cost = MicroUsd::new(micros);
        }
        let choice = &chunk["choices"][0];
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish_reason = Some(reason.to_owned());
        }
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let index = call["index"].as_u64().unwrap_or_default();
            if index < TOOL_CALLS_MAX {
                let (id, name, arguments) = self.calls.entry(index).or_default();
                for (text, more) in [(id, &call["id"]), (name, &call["function"]["name"])] {
                    if text.is_empty() {
                        more.as_str().unwrap_or_default().clone_into(text);
                    }
                }
                arguments.push_str(call["function"]["arguments"].as_str().unwrap_or_default());
            }
        }
        choice["delta"]["content"].as_str().unwrap_or_default().to_owned()
    }

    /// The same in the words of an answer that came in one piece.
    fn said(self) -> Said {
        let calls = self.calls.into_values().map(|(id, name, arguments)| {
            json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
        });
        let calls: Vec<Value> = calls.collect();
        let mut body = RawObject::default();
        let choices = json!([{"message": {"tool_calls": calls}, "finish_reason": self.finish_reason}]);
        match body.set("choices", &choices) {
            Ok(()) => Said::read(&body),
            Err(_) => Said { finish_reason: self.finish_reason, ..Said::default() },
        }
    }
}

fn event(body: &Value) -> Bytes {
    format!("data: {body}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_of_a_tool_is_put_together_from_its_pieces() {
        let mut heard = Heard::default();
        let chunk = |delta: Value| json!({"choices": [{"delta": delta, "finish_reason": null}]}).to_string();
        let call = |call: Value| chunk(json!({"tool_calls": [call]}));
        assert_eq!(heard.take(chunk(json!({"content": "Let me see."})).as_bytes()), "Let me see.");
        heard.take(call(json!({"index": 0, "id": "c", "function": {"name": "f", "arguments": "{\"a\""}})).as_bytes());
        heard.take(call(json!({"index": 0, "function": {"arguments": ":1}"}})).as_bytes());
        heard.take(br#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}],"billing":{"total_cost_micros":7}}"#);
        assert_eq!(heard.cost, MicroUsd::new(7));
        let said = heard.said();
        assert_eq!((said.tool_calls[0].name.as_str(), &said.tool_calls[0].parameters), ("f", &json!({"a": 1})));
        assert_eq!(said.finish_reason.as_deref(), Some("tool_calls"));
    }

    #[test]
    fn what_is_no_chunk_says_nothing() {
        let mut heard = Heard::default();
        assert_eq!(heard.take(b"[]") + &heard.take(b"{") + &heard.take(br#"{"choices":[]}"#), "");
    }
}
