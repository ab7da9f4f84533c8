//! The floor: what any proxy in Rust has to pay. A bare `axum` and `reqwest` proxy that parses the request, hashes the key
//! and forwards; it holds nothing, charges nothing and keeps no record.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use axum::serve::ListenerExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use crate::error::BenchError;
use crate::gateway::set_up::KEY;

struct Floor {
    client: reqwest::Client,
    upstream: String,
    key_hash: [u8; 32],
}

/// Forwards to `upstream` (`http://host:port`) until the task is dropped. It knows the one key `key`.
///
/// # Errors
/// When it cannot listen or call.
pub async fn serve(listener: TcpListener, upstream: &str, key: &str) -> Result<(), BenchError> {
    let client = super::http_client()?;
    let upstream = format!("{upstream}/v1/chat/completions");
    let floor = Arc::new(Floor { client, upstream, key_hash: Sha256::digest(key).into() });
    // Without it the pieces of a stream wait for the other side's acknowledgements.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY on a connection");
        }
    });
    let router = Router::new().route("/v1/chat/completions", post(forward)).with_state(floor);
    Ok(axum::serve(listener, router).await?)
}

async fn forward(State(floor): State<Arc<Floor>>, headers: HeaderMap, body: Bytes) -> Result<Response, StatusCode> {
    let key = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = key.and_then(|text| text.strip_prefix("Bearer ")).ok_or(StatusCode::UNAUTHORIZED)?;
    if <[u8; 32]>::from(Sha256::digest(key)) != floor.key_hash {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let asked: Value = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    asked.get("model").and_then(Value::as_str).ok_or(StatusCode::BAD_REQUEST)?;
    let request = floor.client.post(&floor.upstream).bearer_auth(KEY);
    let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
    let answer = request.send().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let status = answer.status();
    let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
    let kind = kind.unwrap_or(HeaderValue::from_static("application/json"));
    let body = if kind.as_bytes().starts_with(b"text/event-stream") {
        Body::from_stream(answer.bytes_stream())
    } else {
        Body::from(answer.bytes().await.map_err(|_| StatusCode::BAD_GATEWAY)?)
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
