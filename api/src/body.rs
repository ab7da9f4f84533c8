//! Reading a request's body within the bounds of its path.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::error::{ApiError, Code};

/// The largest body of a model call; whose key or session it comes with was looked at before it is read.
pub const MODEL_BODY_MAX_BYTES: usize = 4 * 1024 * 1024;

/// The largest body of every other request: what the longest permitted lists of a tenant key take.
pub const BODY_MAX_BYTES: usize = 64 * 1024;

/// The largest body of a request that anybody may send without showing who they are.
pub const ANONYMOUS_BODY_MAX_BYTES: usize = 16 * 1024;

/// How much of a body that is too large is still read, so that its sender reads the refusal instead of a reset.
const BODY_DRAIN_MAX_BYTES: usize = 64 * 1024 * 1024;

/// How long the body of a model call may take to arrive.
const MODEL_BODY_MAX_SECONDS: u64 = 30;

/// How long any other body may take to arrive.
const BODY_MAX_SECONDS: u64 = 10;

/// How much of a body is kept, and for how long it is waited for.
#[derive(Clone, Copy)]
struct Bounds {
    bytes: usize,
    seconds: u64,
}

impl Bounds {
    /// What a path is worth: the less is known about whoever calls it, the less is kept for them.
    fn of(path: &str) -> Self {
        if path.starts_with("/v1/") || path.starts_with("/api/chat/") {
            Self { bytes: MODEL_BODY_MAX_BYTES, seconds: MODEL_BODY_MAX_SECONDS }
        } else if path.starts_with("/api/auth/") {
            Self { bytes: ANONYMOUS_BODY_MAX_BYTES, seconds: BODY_MAX_SECONDS }
        } else {
            Self { bytes: BODY_MAX_BYTES, seconds: BODY_MAX_SECONDS }
        }
    }
}

/// Reads a body within the bounds of its path.
///
/// # Errors
/// 413 `body_too_large`, 408 `request_timeout`, 400 `invalid_request` for a body that breaks off.
pub async fn read(request: Request) -> Result<(HeaderMap, Bytes), ApiError> {
    let bounds = Bounds::of(request.uri().path());
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(Duration::from_secs(bounds.seconds), collect(body, bounds.bytes)).await {
        Ok(bytes) => Ok((parts.headers, bytes?)),
        Err(_) => Err(ApiError::new(
            Code::RequestTimeout,
            format!("the body did not arrive within {} seconds; send it again", bounds.seconds),
        )),
    }
}

async fn collect(body: Body, max_bytes: usize) -> Result<Bytes, ApiError> {
    let mut stream = body.into_data_stream();
    let mut bytes = BytesMut::new();
    let mut total_bytes = 0_usize;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| {
            ApiError::new(Code::InvalidRequest, "the body broke off; send the request again").because(error)
        })?;
        total_bytes = total_bytes.saturating_add(chunk.len());
        if total_bytes > BODY_DRAIN_MAX_BYTES {
            break;
        }
        if total_bytes <= max_bytes {
            bytes.extend_from_slice(&chunk);
        } else {
            bytes = BytesMut::new();
        }
    }
    if total_bytes > max_bytes {
        let limit = format!("the body is larger than {max_bytes} bytes; send less");
        return Err(ApiError::new(Code::BodyTooLarge, limit).with_fact("max_bytes", max_bytes));
    }
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stranger_may_send_less_than_a_known_caller() {
        let send = async |path: &str, bytes: usize| {
            let request = axum::http::Request::builder().uri(path).body(Body::from(vec![b' '; bytes])).unwrap();
            read(request).await.map(|(_, bytes)| bytes.len()).map_err(|error| error.code())
        };
        for (path, most) in [
            ("/api/auth/register", ANONYMOUS_BODY_MAX_BYTES),
            ("/api/tenants", BODY_MAX_BYTES),
            ("/v1/chat/completions", MODEL_BODY_MAX_BYTES),
            ("/api/chat/complete", MODEL_BODY_MAX_BYTES),
        ] {
            assert_eq!(send(path, most).await, Ok(most), "{path}");
            assert_eq!(send(path, most + 1).await, Err(Code::BodyTooLarge), "{path}");
        }
        assert!(Bounds::of("/api/auth/login").seconds < Bounds::of("/v1/chat/completions").seconds);
    }
}
