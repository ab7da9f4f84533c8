//! Reading a request's body within the bounds of its path.
//!
//! A prompt with pictures is large, and there may be thousands of calls at a time: what is kept of all of them together is
//! bounded too. A body that grows beyond what any request may bring takes room from the process, piece by piece, and keeps
//! it until its call has ended.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{ApiError, Code};

/// The largest body of a prompt, pictures included; whose key it comes with was looked at before it is read.
pub const PROMPT_BODY_MAX_BYTES: usize = 32 * 1024 * 1024;

/// The largest body of any other model call; whose key or session it comes with was looked at before it is read.
pub const MODEL_BODY_MAX_BYTES: usize = 4 * 1024 * 1024;

/// The largest statement handed in for a reconciliation: some 20,000 transactions with everything Stripe prints about each.
/// That an operator hands it in was looked at before it is read.
pub const STATEMENT_BODY_MAX_BYTES: usize = 16 * 1024 * 1024;

/// The largest body of every other request: what the longest permitted lists of a tenant key take. So much of any body is
/// bounded by how many requests there may be at a time.
pub const BODY_MAX_BYTES: usize = 64 * 1024;

/// The largest body of a request that anybody may send without showing who they are.
pub const ANONYMOUS_BODY_MAX_BYTES: usize = 16 * 1024;

/// What all bodies together may have beyond [`BODY_MAX_BYTES`] each, as they came; what is read from them takes as much
/// again.
pub const BODIES_MAX_BYTES: usize = 256 * 1024 * 1024;

/// How much room a growing body takes at a time.
const ROOM_STEP_BYTES: usize = 64 * 1024;

/// How long a body waits for others to give their room back.
const ROOM_WAIT_MAX_SECONDS: u64 = 5;

/// How much of a body that is too large is still read, so that its sender reads the refusal instead of a reset.
const BODY_DRAIN_MAX_BYTES: usize = 64 * 1024 * 1024;

/// How long the body of a model call may take to arrive.
const MODEL_BODY_MAX_SECONDS: u64 = 60;

/// How long any other body may take to arrive.
const BODY_MAX_SECONDS: u64 = 10;

/// The paths that take prompts with pictures in them.
const PROMPT_PATHS: [&str; 3] = ["/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens"];

/// The path that takes statements.
const STATEMENT_PATH: &str = "/api/finance/reconciliation";

/// The room of this process.
static ALL_ROOM: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(BODIES_MAX_BYTES)));

/// How much of a body is kept, and for how long it is waited for.
#[derive(Clone, Copy)]
struct Bounds {
    bytes: usize,
    seconds: u64,
}

impl Bounds {
    /// What a path is worth: the less is known about whoever calls it, the less is kept for them.
    fn of(path: &str) -> Self {
        if PROMPT_PATHS.contains(&path) {
            Self { bytes: PROMPT_BODY_MAX_BYTES, seconds: MODEL_BODY_MAX_SECONDS }
        } else if path.starts_with("/v1/") || path.starts_with("/api/chat/") {
            Self { bytes: MODEL_BODY_MAX_BYTES, seconds: MODEL_BODY_MAX_SECONDS }
        } else if path == STATEMENT_PATH {
            Self { bytes: STATEMENT_BODY_MAX_BYTES, seconds: MODEL_BODY_MAX_SECONDS }
        } else if path.starts_with("/api/auth/") {
            Self { bytes: ANONYMOUS_BODY_MAX_BYTES, seconds: BODY_MAX_SECONDS }
        } else {
            Self { bytes: BODY_MAX_BYTES, seconds: BODY_MAX_SECONDS }
        }
    }
}

/// A body that arrived.
#[derive(Debug)]
pub struct Arrived {
    /// The request's headers.
    pub headers: HeaderMap,
    /// The body.
    pub bytes: Bytes,
    /// What it takes up; dropped once nothing read from it is left.
    pub room: Room,
}

/// The room one body takes up beyond [`BODY_MAX_BYTES`].
#[derive(Debug, Default)]
pub struct Room(Option<OwnedSemaphorePermit>);

impl Room {
    /// Makes room for a body of so many bytes.
    async fn reach(&mut self, all: &Arc<Semaphore>, wait: Duration, bytes: usize) -> Result<(), ApiError> {
        let there = BODY_MAX_BYTES + self.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Some(missing) = bytes.checked_sub(there).filter(|missing| *missing > 0) else { return Ok(()) };
        let step = u32::try_from(missing.next_multiple_of(ROOM_STEP_BYTES)).map_err(ApiError::internal)?;
        let waiting = Arc::clone(all).acquire_many_owned(step);
        let Ok(taken) = tokio::time::timeout(wait, waiting).await else {
            let text = "too many large requests are being worked on; try again in a moment";
            return Err(ApiError::new(Code::Overloaded, text).retry_after(ROOM_WAIT_MAX_SECONDS));
        };
        let taken = taken.map_err(ApiError::internal)?;
        match &mut self.0 {
            Some(held) => held.merge(taken),
            None => self.0 = Some(taken),
        }
        Ok(())
    }
}

/// Reads a body within the bounds of its path.
///
/// # Errors
/// 413 `body_too_large`, 408 `request_timeout`, 400 `invalid_request` for a body that breaks off, 503 `overloaded` when
/// others take up all room.
pub async fn read(request: Request) -> Result<Arrived, ApiError> {
    let bounds = Bounds::of(request.uri().path());
    let (parts, body) = request.into_parts();
    let collecting = collect(body, bounds.bytes, &ALL_ROOM, Duration::from_secs(ROOM_WAIT_MAX_SECONDS));
    match tokio::time::timeout(Duration::from_secs(bounds.seconds), collecting).await {
        Ok(collected) => {
            let (bytes, room) = collected?;
            Ok(Arrived { headers: parts.headers, bytes, room })
        }
        Err(_) => Err(ApiError::new(
            Code::RequestTimeout,
            format!("the body did not arrive within {} seconds; send it again", bounds.seconds),
        )),
    }
}

async fn collect(
    body: Body,
    max_bytes: usize,
    all_room: &Arc<Semaphore>,
    wait: Duration,
) -> Result<(Bytes, Room), ApiError> {
    let mut stream = body.into_data_stream();
    let mut kept = Ok((BytesMut::new(), Room::default()));
    let mut total_bytes = 0_usize;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| {
            ApiError::new(Code::InvalidRequest, "the body broke off; send the request again").because(error)
        })?;
        total_bytes = total_bytes.saturating_add(chunk.len());
        if total_bytes > BODY_DRAIN_MAX_BYTES {
            break;
        }
        // What was refused is read on without being kept.
        let Ok((bytes, room)) = &mut kept else { continue };
        let reached = if total_bytes > max_bytes {
            Err(too_large(max_bytes))
        } else {
            room.reach(all_room, wait, total_bytes).await
        };
        match reached {
            Ok(()) => bytes.extend_from_slice(&chunk),
            Err(refusal) => kept = Err(refusal),
        }
    }
    kept.map(|(bytes, room)| (bytes.freeze(), room))
}

fn too_large(max_bytes: usize) -> ApiError {
    let limit = format!("the body is larger than {max_bytes} bytes; send less");
    ApiError::new(Code::BodyTooLarge, limit).with_fact("max_bytes", max_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stranger_may_send_less_than_a_known_caller() {
        let send = async |path: &str, bytes: usize| {
            let request = axum::http::Request::builder().uri(path).body(Body::from(vec![b' '; bytes])).unwrap();
            read(request).await.map(|arrived| arrived.bytes.len()).map_err(|error| error.code())
        };
        for (path, most) in [
            ("/api/auth/register", ANONYMOUS_BODY_MAX_BYTES),
            ("/api/tenants", BODY_MAX_BYTES),
            ("/v1/chat/completions", PROMPT_BODY_MAX_BYTES),
            ("/v1/messages", PROMPT_BODY_MAX_BYTES),
            ("/v1/embeddings", MODEL_BODY_MAX_BYTES),
            ("/api/chat/complete", MODEL_BODY_MAX_BYTES),
            ("/api/finance/reconciliation", STATEMENT_BODY_MAX_BYTES),
            ("/api/finance/adjustments", BODY_MAX_BYTES),
        ] {
            assert_eq!(send(path, most).await, Ok(most), "{path}");
            assert_eq!(send(path, most + 1).await, Err(Code::BodyTooLarge), "{path}");
        }
        assert!(Bounds::of("/api/auth/login").seconds < Bounds::of("/v1/chat/completions").seconds);
    }

    #[tokio::test]
    async fn large_bodies_wait_for_room_but_not_for_long_and_small_ones_never() {
        let all = Arc::new(Semaphore::new(4 * ROOM_STEP_BYTES));
        let wait = Duration::from_millis(20);
        let send = async |bytes: usize| collect(Body::from(vec![b' '; bytes]), PROMPT_BODY_MAX_BYTES, &all, wait).await;
        let (first, room) = send(BODY_MAX_BYTES + 3 * ROOM_STEP_BYTES).await.unwrap();
        assert_eq!((first.len(), all.available_permits()), (BODY_MAX_BYTES + 3 * ROOM_STEP_BYTES, ROOM_STEP_BYTES));
        assert!(send(BODY_MAX_BYTES).await.is_ok());
        assert!(send(BODY_MAX_BYTES + ROOM_STEP_BYTES).await.is_ok());
        let refused = send(BODY_MAX_BYTES + ROOM_STEP_BYTES + 1).await.unwrap_err();
        assert_eq!(refused.code(), Code::Overloaded);
        drop(room);
        assert_eq!(all.available_permits(), 4 * ROOM_STEP_BYTES);
        assert!(send(BODY_MAX_BYTES + 4 * ROOM_STEP_BYTES).await.is_ok());
    }
}
