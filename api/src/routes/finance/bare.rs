//! POSTs whose bodies are unlike others': those that may be left out, and those that may be large.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::body::{Arrived, Room, read};
use crate::error::ApiError;
use crate::idempotency::Attempt;
use crate::request::{ModelPost, large, parse};

/// A POST without a body, or with an empty object in it, together with its `Idempotency-Key`.
pub struct BarePost {
    /// What makes a repetition of it the same request.
    pub attempt: Attempt,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl<S: Sync> FromRequest<S> for BarePost {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let Arrived { headers, bytes, .. } = read(request).await?;
        if !bytes.trim_ascii().is_empty() {
            let Nothing {} = parse(&bytes)?;
        }
        let attempt = Attempt::read(&headers, &method, &path, bytes)?;
        Ok(Self { attempt })
    }
}

/// A JSON body that may be large: it is parsed off the event loop.
pub struct LargePost<T> {
    /// What was asked.
    pub body: T,
    /// What makes a repetition of it the same request.
    pub attempt: Attempt,
    /// What it takes up; to be kept until it has been worked on.
    pub room: Arc<Room>,
}

impl<S: Sync, T: DeserializeOwned + Send + 'static> FromRequest<S> for LargePost<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let ModelPost { body, attempt, room, .. } = large(request, parse).await?;
        Ok(Self { body, attempt, room })
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[tokio::test]
    async fn a_body_may_be_missing_or_empty_and_says_nothing_else() {
        let post = async |body: &'static str| {
            let request = Request::builder().method("POST").uri("/x").body(Body::from(body)).unwrap();
            BarePost::from_request(request, &()).await.map(drop).map_err(|error| error.code().as_str())
        };
        assert_eq!((post("").await, post(" ").await, post("{}").await), (Ok(()), Ok(()), Ok(())));
        assert_eq!(post("{\"a\":1}").await, Err("invalid_field"));
        assert_eq!(post("[]").await, Err("invalid_field"));
        assert_eq!(post("nonsense").await, Err("invalid_json"));
    }
}
