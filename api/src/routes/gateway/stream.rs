//! A streamed answer as server-sent events, passed on as its pieces come.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use serde_json::{Value, json};

use calos_commands::complete_chat::{Billing, ChatFailure, ChatStream, Piece, Served};

use super::failure::{Charged, told};
use super::{limits, name_substitution};
use crate::boundary::LOG_TARGET;
use crate::error::Dialect;

const DONE: &[u8] = b"data: [DONE]\n\n";

/// The response around a stream that has begun.
pub(super) fn respond(stream: ChatStream) -> Response {
    let ChatStream { dialect: _, served, pieces } = stream;
    let state = Some((pieces, served.clone()));
    let events = stream::unfold(state, |state| async move {
        let (mut pieces, served) = state?;
        let (event, ended) = match pieces.recv().await {
            Some(Piece::Data(json)) => (data(&json), false),
            Some(Piece::Done) => (Bytes::from_static(DONE), true),
            Some(Piece::Failed { failure, billing }) => (error(failure, billing, &served), true),
            None => (error(ChatFailure::Lost("its task broke off"), None, &served), true),
        };
        Some((Ok::<_, Infallible>(event), (!ended).then_some((pieces, served))))
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

fn data(json: &[u8]) -> Bytes {
    let mut event = BytesMut::with_capacity(json.len() + 8);
    event.put_slice(b"data: ");
    event.put_slice(json);
    event.put_slice(b"\n\n");
    event.freeze()
}

/// What a stream that breaks off ends with: the error object, and what was charged for what came before it. The status
/// went out long ago, so this is also where the failure is logged.
fn error(failure: ChatFailure, billing: Option<Billing>, served: &Served) -> Bytes {
    let charged = if billing.is_some() { Charged::WhatWasGiven } else { Charged::Nothing };
    let failure = told(failure, charged);
    tracing::warn!(target: LOG_TARGET, usage = %served.usage_id, code = failure.code().as_str(), error = %failure, "a stream broke off");
    let mut body = failure.body(Dialect::OpenAi);
    if let (Value::Object(fields), Some(billing)) = (&mut body, billing) {
        fields.insert("provider".to_owned(), json!(served.provider.as_str()));
        fields.insert("billing".to_owned(), json!(billing));
    }
    data(body.to_string().as_bytes())
}
