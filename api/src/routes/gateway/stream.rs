//! A streamed answer as server-sent events, passed on as its pieces come.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use calos_commands::complete_chat::{Billing, ChatFailure, ChatStream, Piece, Served};
use calos_commands::provider;

use super::failure::{Charged, told};
use super::{limits, name_substitution};
use crate::body::Room;
use crate::boundary::LOG_TARGET;
use crate::error::{Dialect, name_request};

const DONE: &[u8] = b"data: [DONE]\n\n";

/// How long a stream is silent before something is said that no client minds: proxies cut what stays silent for a minute.
pub(crate) const QUIET_MAX: Duration = Duration::from_secs(15);

/// A comment, which every reader of server-sent events skips.
pub(crate) const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// What Anthropic sends itself in between.
const PING: &[u8] = b"event: ping\ndata: {\"type\": \"ping\"}\n\n";

/// The last event of a message stream.
const MESSAGE_STOP: &str = "message_stop";

/// The response around a stream that has begun; `room` is what the request's body takes up until it ends.
pub(super) fn respond(stream: ChatStream, request_id: Arc<str>, room: Arc<Room>) -> Response {
    let ChatStream { dialect, served, pieces, metered: _ } = stream;
    let telling = Telling { pieces, words: Words::of(dialect), served: served.clone(), request_id, _room: room };
    let mut response = server_sent_events(telling);
    name_substitution(response.headers_mut(), &served);
    limits::tell_in(dialect, response.headers_mut(), &served.limits);
    response
}

/// Who tells the events of a stream, one after the other.
pub(crate) trait Tells: Send + 'static {
    /// The next event, and whether it is the last.
    fn tell(&mut self) -> impl Future<Output = (Bytes, bool)> + Send;
}

/// A response of events as they come. Whoever tells them is dropped with it.
pub(crate) fn server_sent_events(telling: impl Tells) -> Response {
    let events = stream::unfold(Some(telling), |telling| async move {
        let mut telling = telling?;
        let (event, ended) = telling.tell().await;
        Some((Ok::<_, Infallible>(event), (!ended).then_some(telling)))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // A buffering proxy in front would turn a stream into a wait.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// A stream on its way.
struct Telling {
    pieces: mpsc::Receiver<Piece>,
    words: Words,
    served: Served,
    request_id: Arc<str>,
    _room: Arc<Room>,
}

impl Tells for Telling {
    async fn tell(&mut self) -> (Bytes, bool) {
        self.next(QUIET_MAX).await
    }
}

impl Telling {
    /// The next event, and whether it is the last.
    async fn next(&mut self, quiet: Duration) -> (Bytes, bool) {
        let Ok(piece) = tokio::time::timeout(quiet, self.pieces.recv()).await else {
            return (self.words.keep_alive(), false);
        };
        match piece {
            Some(Piece::Data(json)) => (self.words.data(&json), false),
            Some(Piece::Done) => (self.words.done(), true),
            Some(Piece::Failed { failure, billing }) => (self.error(failure, billing), true),
            None => (self.error(ChatFailure::Lost("its task broke off"), None), true),
        }
    }

    /// What a stream that breaks off ends with: the error object, and what was charged for what came before it. The
    /// status went out long ago, so this is also where the failure is logged.
    fn error(&self, failure: ChatFailure, billing: Option<Billing>) -> Bytes {
        let charged = if billing.is_some() { Charged::WhatWasGiven } else { Charged::Nothing };
        let (failure, usage) = (told(failure, charged), self.served.usage_id);
        tracing::warn!(target: LOG_TARGET, %usage, code = failure.code().as_str(), error = %failure, "a stream broke off");
        let (name, dialect) = match self.words {
            Words::OpenAi => (None, Dialect::OpenAi),
            Words::Anthropic { .. } => (Some("error"), Dialect::Anthropic),
        };
        let mut body = failure.body(dialect);
        name_request(&mut body, dialect, Some(&self.request_id));
        if let (Value::Object(fields), Some(billing)) = (&mut body, billing) {
            fields.insert("provider".to_owned(), json!(self.served.provider.as_str()));
            fields.insert("billing".to_owned(), json!(billing));
        }
        event(name, body.to_string().as_bytes())
    }
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

    /// What says that the answer is still on its way.
    fn keep_alive(&self) -> Bytes {
        Bytes::from_static(match self {
            Self::OpenAi => KEEP_ALIVE,
            Self::Anthropic { .. } => PING,
        })
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
    use calos_commands::complete_chat::{Found, LimitStatus};
    use calos_domain::pricing::Provider;
    use calos_domain::{Timestamp, UsageId};

    use super::*;

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    fn telling(pieces: mpsc::Receiver<Piece>, dialect: provider::Dialect) -> Telling {
        let served = Served {
            provider: Provider::Ollama,
            model: "llama3.2:3b".to_owned(),
            substituted_for: None,
            persona: None,
            found: Found::default(),
            usage_id: UsageId(uuid::Uuid::nil()),
            limits: LimitStatus { calls: None, tokens: None, at: Timestamp::default() },
        };
        let (words, request_id) = (Words::of(dialect), Arc::from("req-7"));
        Telling { pieces, words, served, request_id, _room: Arc::default() }
    }

    #[test]
    fn openais_events_have_no_names_and_an_end_mark() {
        let mut words = Words::of(provider::Dialect::OpenAi);
        assert_eq!(text(&words.data(b"{}")), "data: {}\n\n");
        assert_eq!(text(&words.done()), "data: [DONE]\n\n");
    }

    #[tokio::test]
    async fn a_stream_that_is_silent_says_so_in_between_and_goes_on() {
        let quiet = Duration::from_millis(10);
        for (dialect, kept_alive) in [
            (provider::Dialect::OpenAi, ": keep-alive\n\n"),
            (provider::Dialect::Anthropic, "event: ping\ndata: {\"type\": \"ping\"}\n\n"),
        ] {
            let (sender, pieces) = mpsc::channel(1);
            let mut telling = telling(pieces, dialect);
            let (event, ended) = telling.next(quiet).await;
            assert_eq!((text(&event), ended), (kept_alive, false));
            sender.send(Piece::Data(Bytes::from_static(br#"{"type":"x"}"#))).await.unwrap();
            let (event, ended) = telling.next(Duration::from_secs(5)).await;
            assert!(text(&event).contains("data: {\"type\":\"x\"}") && !ended);
            drop(sender);
            let (event, ended) = telling.next(quiet).await;
            assert!(text(&event).contains("error") && ended);
            let named = text(&event).contains("\"request_id\":\"req-7\"");
            assert_eq!(named, dialect == provider::Dialect::Anthropic, "{}", text(&event));
        }
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
