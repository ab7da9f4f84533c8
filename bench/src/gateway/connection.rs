//! One caller's connection, and one call on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;

use super::provider::TOKEN_TEXT;
use crate::error::BenchError;

/// The most of an unexpected answer that is shown.
const SHOWN_MAX_CHARACTERS: usize = 300;
/// The last event of a stream.
const DONE: &[u8] = b"data: [DONE]";

/// What is asked, of whom: the same bytes for whoever is measured.
pub struct Goal {
    /// Where.
    pub address: SocketAddr,
    host: HeaderValue,
    keys: Vec<HeaderValue>,
    body: Bytes,
    /// Tokens a stream must have; none for a plain answer.
    tokens: Option<u64>,
}

impl Goal {
    /// A chat of an ordinary length, with one of these keys, streaming when it is told how many tokens to expect.
    ///
    /// # Errors
    /// When a key cannot stand in a header.
    pub fn new(address: SocketAddr, keys: &[String], tokens: Option<u64>) -> Result<Arc<Self>, BenchError> {
        let mut body = json!({
            "model": "gpt-4", "max_tokens": tokens.unwrap_or(16), "temperature": 0.2,
            "messages": [
                {"role": "system", "content": "You are a careful assistant. Answer briefly and say so when you do not know."},
                {"role": "user", "content": "Why is an immutable ledger easier to trust than a table of balances that \
                    programs may change? Name two reasons and one thing that it costs."},
            ],
        });
        if tokens.is_some() {
            body["stream"] = json!(true);
            body["stream_options"] = json!({"include_usage": true});
        }
        let bad = |error| BenchError::Check(format!("a header cannot be sent: {error}"));
        let keys = keys.iter().map(|key| HeaderValue::try_from(format!("Bearer {key}")));
        Ok(Arc::new(Self {
            address,
            host: HeaderValue::try_from(address.to_string()).map_err(bad)?,
            keys: keys.collect::<Result<_, _>>().map_err(bad)?,
            body: body.to_string().into(),
            tokens,
        }))
    }

    fn request(&self, caller: usize) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static("/v1/chat/completions");
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = self.keys.get(caller % self.keys.len().max(1)) {
            headers.insert(AUTHORIZATION, key.clone());
        }
        request
    }
}

/// When what came.
pub struct Answered {
    /// When it was sent.
    pub sent: Instant,
    /// When the first token of a stream came.
    pub first_token: Option<Instant>,
    /// When all of it was there.
    pub ended: Instant,
    /// Between the tokens of a stream.
    pub gaps: Vec<Duration>,
}

/// A connection that is kept alive between calls.
pub struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    /// Opens one.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub async fn open(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("no connection: {error}"))?;
        stream.set_nodelay(true).map_err(|error| format!("no TCP_NODELAY: {error}"))?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| format!("no connection: {error}"))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke off");
            }
        });
        Ok(Self(sender))
    }

    /// Asks and reads the answer to its end.
    ///
    /// # Errors
    /// What went wrong, in words; the connection is of no use afterwards.
    pub async fn call(&mut self, goal: &Goal, caller: usize) -> Result<Answered, String> {
        let broken = |error: hyper::Error| format!("the connection broke: {error}");
        self.0.ready().await.map_err(broken)?;
        let request = goal.request(caller);
        let sent = Instant::now();
        let response = self.0.send_request(request).await.map_err(broken)?;
        if response.status() != hyper::StatusCode::OK {
            return Err(unexpected(response).await);
        }
        let mut body = response.into_body();
        let Some(expected) = goal.tokens else {
            let mut bytes = 0;
            while let Some(frame) = body.frame().await {
                bytes += frame.map_err(broken)?.data_ref().map_or(0, Bytes::len);
            }
            let ended = Instant::now();
            let answered = Answered { sent, first_token: None, ended, gaps: Vec::new() };
            return if bytes > 0 { Ok(answered) } else { Err("an empty answer".to_owned()) };
        };
        let mut reading = Reading::default();
        while let Some(frame) = body.frame().await {
            if let Some(piece) = frame.map_err(broken)?.data_ref() {
                reading.take(piece);
            }
        }
        reading.end(sent, expected)
    }
}

async fn unexpected(response: Response<Incoming>) -> String {
    let status = response.status();
    let text = match response.into_body().collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).chars().take(SHOWN_MAX_CHARACTERS).collect(),
        Err(error) => format!("{error}"),
    };
    format!("{status}: {text}")
}

/// What was read of a stream so far: its tokens are counted by their text, across pieces.
#[derive(Default)]
struct Reading {
    matched: usize,
    tokens: u64,
    last: Vec<u8>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    gaps: Vec<Duration>,
}

impl Reading {
    fn take(&mut self, piece: &[u8]) {
        let now = Instant::now();
        let needle = TOKEN_TEXT.as_bytes();
        let before = self.tokens;
        for &byte in piece {
            // Only the first byte of the needle is a quotation mark, so a mismatch can begin nothing but a new match.
            self.matched = match needle.get(self.matched) {
                Some(&expected) if expected == byte => self.matched + 1,
                _ => usize::from(needle.first() == Some(&byte)),
            };
            if self.matched == needle.len() {
                self.tokens += 1;
                self.matched = 0;
            }
        }
        if self.tokens > before {
            self.first_token.get_or_insert(now);
            if let Some(last) = self.last_token.replace(now) {
                self.gaps.push(now.duration_since(last));
            }
        }
        let kept = piece.len().min(2 * DONE.len());
        self.last.extend_from_slice(&piece[piece.len() - kept..]);
        let surplus = self.last.len().saturating_sub(2 * DONE.len());
        self.last.drain(..surplus);
    }

    fn end(self, sent: Instant, expected: u64) -> Result<Answered, String> {
        let ended = Instant::now();
        if self.tokens != expected {
            return Err(format!("{} tokens instead of {expected}", self.tokens));
        }
        if !self.last.windows(DONE.len()).any(|window| window == DONE) {
            return Err("a stream ended without [DONE]".to_owned());
        }
        Ok(Answered { sent, first_token: self.first_token, ended, gaps: self.gaps })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_counted_across_pieces_and_the_end_is_demanded() {
        let text = b"data: {\"content\":\"\"}\n\ndata: {\"content\":\" token\"}\n\ndata: {\"content\":\" token\"}\n\ndata: [DONE]\n\n";
        for cut in 0..text.len() {
            let mut reading = Reading::default();
            reading.take(&text[..cut]);
            reading.take(&text[cut..]);
            assert!(reading.end(Instant::now(), 2).is_ok(), "cut at {cut}");
        }
        let mut cut_off = Reading::default();
        cut_off.take(&text[..text.len() - 4]);
        assert!(cut_off.end(Instant::now(), 2).is_err());
    }
}
