//! A streamed answer as server-sent events, passed on as its pieces come.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};

use calos_commands::complete_chat::{Billing, ChatFailure, ChatStream, Piece, Served};
use calos_commands::provider;

use super::failure::{Charged, told};
use super::{limits, name_substitution};
use crate::boundary::LOG_TARGET;
use crate::error::Dialect;

const DONE: &[u8] = b"data: [DONE]\n\n";

/// The last event of a message stream.
const MESSAGE_STOP: &str = "message_stop";

/// The response around a stream that has begun.
pub(super) fn respond(stream: ChatStream) -> Response {
    let ChatStream { dialect, served, pieces, metered: _ } = stream;
    let state = Some((pieces, Words::of(dialect), served.clone()));
    let events = stream::unfold(state, |state| async move {
        let (mut pieces, mut words, served) = state?;
        let (event, ended) = match pieces.recv().await {
            Some(Piece::Data(json)) => (words.data(&json), false),
            Some(Piece::Done) => (words.done(), true),
            Some(Piece::Failed { failure, billing }) => (words.error(failure, billing, &served), true),
            None => (words.error(ChatFailure::Lost("its task broke off"), None, &served), true),
        };
        Some((Ok::<_, Infallible>(event), (!ended).then_some((pieces, words, served))))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // A buffering proxy in front would turn a stream into a wait.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    name_substitution(headers, &served);
    limits::tell(headers, &served.limits);
    response
}

/// In whose words a stream's events are.
enum Words {
    /// OpenAI's: events without names, and a mark at the end.
    OpenAi,
    /// Anthropic's: every event is named as its data is typed.
    Anthropic {
        /// Whether the last of them went out.
        stopped: bool,
    },
}

impl Words {
    fn of(dialect: provider::Dialect) -> Self {
        match dialect {
            provider::Dialect::OpenAi => Self::OpenAi,
            provider::Dialect::Anthropic => Self::Anthropic { stopped: false },
        }
    }

    fn data(&mut self, json: &[u8]) -> Bytes {
        match self {
            Self::OpenAi => event(None, json),
            Self::Anthropic { stopped } => {
                let name = type_of(json);
                *stopped = name == MESSAGE_STOP;
                event(Some(&name), json)
            }
        }
    }

    /// What says that the answer is complete. A provider that went away right before saying so has left it to us.
    fn done(&self) -> Bytes {
        match self {
            Self::OpenAi => Bytes::from_static(DONE),
            Self::Anthropic { stopped: true } => Bytes::new(),
            Self::Anthropic { stopped: false } => {
                event(Some(MESSAGE_STOP), json!({"type": MESSAGE_STOP}).to_string().as_bytes())
            }
        }
    }

    /// What a stream that breaks off ends with: the error object, and what was charged for what came before it. The
    /// status went out long ago, so this is also where the failure is logged.
    fn error(&self, failure: ChatFailure, billing: Option<Billing>, served: &Served) -> Bytes {
        let charged = if billing.is_some() { Charged::WhatWasGiven } else { Charged::Nothing };
        let failure = told(failure, charged);
        tracing::warn!(target: LOG_TARGET, usage = %served.usage_id, code = failure.code().as_str(), error = %failure, "a stream broke off");
        let (name, mut body) = match self {
            Self::OpenAi => (None, failure.body(Dialect::OpenAi)),
            Self::Anthropic { .. } => (Some("error"), failure.body(Dialect::Anthropic)),
        };
        if let (Value::Object(fields), Some(billing)) = (&mut body, billing) {
            fields.insert("provider".to_owned(), json!(served.provider.as_str()));
            fields.insert("billing".to_owned(), json!(billing));
        }
        event(name, body.to_string().as_bytes())
    }
}

/// The type an event's data has.
fn type_of(json: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Typed {
        r#type: String,
    }
    // Every adapter writes a type; without one a client takes the event for a message, as the standard has it.
    serde_json::from_slice(json).map_or_else(|_| "message".to_owned(), |typed: Typed| typed.r#type)
}

fn event(name: Option<&str>, json: &[u8]) -> Bytes {
    let mut event = BytesMut::with_capacity(json.len() + 48);
    if let Some(name) = name {
        event.put_slice(b"event: ");
        // A name of several lines would be several fields.
        event.extend(name.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')));
        event.put_slice(b"\n");
    }
    event.put_slice(b"data: ");
    event.put_slice(json);
    event.put_slice(b"\n\n");
    event.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn openais_events_have_no_names_and_an_end_mark() {
        let mut words = Words::of(provider::Dialect::OpenAi);
        assert_eq!(text(&words.data(b"{}")), "data: {}\n\n");
        assert_eq!(text(&words.done()), "data: [DONE]\n\n");
    }

    #[test]
    fn anthropics_events_are_named_as_they_are_typed_and_end_with_one_stop() {
        let mut words = Words::of(provider::Dialect::Anthropic);
        let ping = words.data(br#"{"type": "ping"}"#);
        assert_eq!(text(&ping), "event: ping\ndata: {\"type\": \"ping\"}\n\n");
        assert_eq!(text(&words.done()), "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
        words.data(br#"{"type":"message_stop","billing":{}}"#);
        assert_eq!(text(&words.done()), "");
        let odd = words.data(br#"{"type":"a\nb"}"#);
        assert!(text(&odd).starts_with("event: ab\ndata: "));
    }
}
