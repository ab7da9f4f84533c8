//! `Idempotency-Key`: the same key with the same request is answered with the first answer; with another it is refused.
//!
//! The row that remembers an answer is written by the append that the answer is about, so there is no moment in which
//! the one exists without the other. A handler therefore builds its answer *before* the append:
//!
//! ```ignore
//! post.attempt.once(&app, &caller, &tenant_key, |claimer| async move {
//!     let answer = Answer::json(StatusCode::CREATED, &issued)?;
//!     let request = claimer.request(context.metadata(actor), &answer)?;
//!     let done = api_keys::issue(&app.log, command, request).await?;
//!     Ok(answer.respond(&done.positions))
//! }).await
//! ```

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sqlx::Row;

use calos_commands::log::{IdempotencyClaim, Positions, Request};
use calos_commands::metadata::Metadata;
use calos_domain::UsageId;

use crate::error::{ApiError, Code};
use crate::position;
use crate::wiring::App;

/// The caller's key.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Marks an answer that was given before.
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The longest key.
pub const KEY_MAX_BYTES: usize = 255;

/// How long an answer is kept.
pub const ANSWER_KEPT_HOURS: i32 = 24;

/// The largest answer that is kept: a large batch of vectors. A call whose answer may be larger is refused before it is
/// made, rather than paid again when it is repeated.
pub const ANSWER_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Headers of an answer that are part of it.
const KEPT_HEADERS: [HeaderName; 2] = [header::CONTENT_TYPE, header::SET_COOKIE];

/// What makes a repetition of a request the same request. Read it with [`crate::request::Post`], or from the headers
/// and raw body where a handler reads those itself.
#[derive(Clone)]
pub struct Attempt {
    key: Option<String>,
    method: Method,
    path: String,
    body: Bytes,
}

impl fmt::Debug for Attempt {
    /// Without the body: it may hold a password or a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").field("method", &self.method).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Attempt {
    /// Takes the key from the headers.
    ///
    /// # Errors
    /// 400 `invalid_header` for a key that is empty, too long or not printable ASCII.
    pub fn read(headers: &HeaderMap, method: &Method, path: &str, body: Bytes) -> Result<Self, ApiError> {
        let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
        let key = match (given.next(), given.next()) {
            (None, _) => None,
            (Some(value), None) => {
                let text = value.to_str().ok().map(str::trim);
                let text = text.filter(|text| !text.is_empty() && text.len() <= KEY_MAX_BYTES);
                Some(text.ok_or_else(unreadable_key)?.to_owned())
            }
            (Some(_), Some(_)) => return Err(unreadable_key()),
        };
        // Without a key nobody compares it: a large one need not wait for its call to end.
        let body = if key.is_some() { body } else { Bytes::new() };
        Ok(Self { key, method: method.clone(), path: path.to_owned(), body })
    }

    /// Whether the caller gave a key.
    #[must_use]
    pub fn is_keyed(&self) -> bool {
        self.key.is_some()
    }

    /// Does the work, unless it was done before; then the first answer is given again.
    ///
    /// `caller` is who repeats (a key means nothing to anybody else), `partition_key` names the stream key whose
    /// partition keeps the answer. It must be the same for every repetition, so it is known before the work begins; the
    /// work need not write to it.
    ///
    /// # Errors
    /// 409 `idempotency_key_reused` for the same key with another request, 409 `idempotency_in_progress` while the
    /// first one is still being worked on, and whatever the work is refused for: a refusal is not remembered.
    pub async fn once<W, F>(self, app: &App, caller: &str, partition_key: &str, work: W) -> Result<Response, ApiError>
    where
        W: FnOnce(Claimer) -> F,
        F: Future<Output = Result<Response, ApiError>>,
    {
        let Some(key) = self.key else { return work(Claimer(None)).await };
        let request_hash = app.secrets.keyed_hash(&[
            b"idempotent request",
            self.method.as_str().as_bytes(),
            self.path.as_bytes(),
            // The tenant acted for, which a header may name.
            partition_key.as_bytes(),
            &self.body,
        ]);
        let Some(working) = app.in_progress.enter(caller, &key) else { return Err(in_progress()) };
        let seed = Arc::new(Seed {
            _working: working,
            app: app.clone(),
            caller: caller.to_owned(),
            key,
            request_hash,
            partition_key: partition_key.to_owned(),
        });
        if let Some(first) = seed.first_answer().await? {
            return first.respond_again(&seed);
        }
        match work(Claimer(Some(Arc::clone(&seed)))).await {
            // What refuses this request may be its own first attempt: one of another process, or one whose client hung
            // up before it was durable. By now that one's answer stands.
            Err(error) => match seed.first_answer().await {
                Ok(Some(first)) => first.respond_again(&seed),
                Ok(None) => Err(error),
                Err(unread) => {
                    tracing::warn!(%unread, "whether a refused request was answered before could not be looked up");
                    Err(error)
                }
            },
            done => done,
        }
    }
}

fn unreadable_key() -> ApiError {
    ApiError::header("idempotency-key", format!("must be one text of 1 to {KEY_MAX_BYTES} printable ASCII characters"))
        .with_fact("max_bytes", KEY_MAX_BYTES)
}

fn in_progress() -> ApiError {
    ApiError::new(
        Code::IdempotencyInProgress,
        "the first request with this idempotency key is still being worked on; repeat in a moment to read its answer",
    )
    .retry_after(1)
}

/// The keys being worked on by this process, so that a repetition waits for its answer instead of doing the work too.
#[derive(Clone, Debug, Default)]
pub struct InProgress(Arc<Mutex<HashSet<(String, String)>>>);

impl InProgress {
    fn enter(&self, caller: &str, key: &str) -> Option<Working> {
        let place = (caller.to_owned(), key.to_owned());
        let mut working = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        working.insert(place.clone()).then(|| Working { all: self.clone(), place })
    }
}

struct Working {
    all: InProgress,
    place: (String, String),
}

impl Drop for Working {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.place);
    }
}

struct Seed {
    /// Keeps repetitions out for as long as anybody may still claim the answer: a model call goes on after its caller
    /// has hung up.
    _working: Working,
    app: App,
    caller: String,
    key: String,
    request_hash: [u8; 32],
    partition_key: String,
}

/// Hands out the claim for the answer that is about to be given.
#[derive(Clone)]
pub struct Claimer(Option<Arc<Seed>>);

impl Claimer {
    /// The command's envelope with the claim in it, or without one when the caller gave no key.
    ///
    /// # Errors
    /// 500 when the answer is too large to keep.
    pub fn request(&self, metadata: Metadata, answer: &Answer) -> Result<Request, ApiError> {
        Ok(Request { metadata, idempotency: self.claim(answer)? })
    }

    /// The claim on the answer of a call that is charged whatever comes of it, rendered only where somebody gave a key.
    /// An answer that cannot be kept is charged and given all the same: the client has what it paid for, and only its
    /// repetition will be a new call.
    pub fn keep(&self, usage: UsageId, answer: impl FnOnce() -> Result<Answer, ApiError>) -> Option<IdempotencyClaim> {
        self.0.as_ref()?;
        answer().and_then(|answer| self.claim(&answer)).unwrap_or_else(|error| {
            tracing::warn!(%usage, %error, "an answer is given without being kept");
            None
        })
    }

    /// The claim alone.
    ///
    /// # Errors
    /// 500 when the answer is too large to keep.
    pub fn claim(&self, answer: &Answer) -> Result<Option<IdempotencyClaim>, ApiError> {
        let Some(seed) = &self.0 else { return Ok(None) };
        if answer.body.len() > ANSWER_MAX_BYTES {
            return Err(ApiError::internal(format_args!("an answer of {} bytes cannot be kept", answer.body.len())));
        }
        let plain = serde_json::to_vec(&answer.kept()).map_err(ApiError::internal)?;
        Ok(Some(IdempotencyClaim {
            caller: seed.caller.clone(),
            key: seed.key.clone(),
            request_hash: seed.request_hash,
            sealed_answer: seed.app.secrets.seal_answer(&plain, &seed.bound_to()).map_err(ApiError::internal)?,
            partition_key: seed.partition_key.clone(),
        }))
    }
}

impl Seed {
    /// What a sealed answer is bound to: moved to another row, it does not open.
    fn bound_to(&self) -> Vec<u8> {
        let mut bound = Vec::with_capacity(self.caller.len() + self.key.len() + 48);
        for part in [self.caller.as_bytes(), self.key.as_bytes(), &self.request_hash] {
            bound.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bound.extend_from_slice(part);
        }
        bound
    }

    /// The answer given before, if one is still kept; one that is too old is removed on the way.
    async fn first_answer(&self) -> Result<Option<FirstAnswer>, ApiError> {
        let partition = self.app.log.partition_of(&self.partition_key);
        let row = sqlx::query(
            "SELECT request_hash, positions, sealed_answer, created_at < now() - make_interval(hours => $4) AS too_old
             FROM idempotency WHERE partition = $1 AND caller = $2 AND key = $3",
        )
        .bind(partition)
        .bind(&self.caller)
        .bind(&self.key)
        .bind(ANSWER_KEPT_HOURS)
        .fetch_optional(&self.app.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        if row.try_get::<bool, _>("too_old")? {
            let sweep = "DELETE FROM idempotency WHERE partition = $1 AND caller = $2 AND key = $3
                         AND created_at < now() - make_interval(hours => $4)";
            let sweep = sqlx::query(sweep).bind(partition).bind(&self.caller).bind(&self.key).bind(ANSWER_KEPT_HOURS);
            sweep.execute(&self.app.pool).await?;
            return Ok(None);
        }
        Ok(Some(FirstAnswer {
            request_hash: row.try_get("request_hash")?,
            positions: row.try_get("positions")?,
            sealed_answer: row.try_get("sealed_answer")?,
        }))
    }
}

struct FirstAnswer {
    request_hash: Vec<u8>,
    positions: String,
    sealed_answer: Vec<u8>,
}

impl FirstAnswer {
    fn respond_again(self, seed: &Seed) -> Result<Response, ApiError> {
        if self.request_hash != seed.request_hash {
            return Err(ApiError::new(
                Code::IdempotencyKeyReused,
                "this idempotency key was used for another request; use a new key, or send the same request again",
            ));
        }
        let plain = seed.app.secrets.open_answer(&self.sealed_answer, &seed.bound_to()).map_err(ApiError::internal)?;
        let kept: Kept = serde_json::from_slice(&plain).map_err(ApiError::internal)?;
        let positions = Positions::from_str(&self.positions).unwrap_or_default();
        let mut response = Answer::from_kept(kept)?.respond(&positions);
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        Ok(response)
    }
}

/// An answer that can be kept: built before the append, given after it.
#[derive(Clone, Debug)]
pub struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// The stored form of an answer, sealed.
#[derive(Serialize, Deserialize)]
struct Kept {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    /// A JSON answer.
    ///
    /// # Errors
    /// 500 when it cannot be written as JSON, which a plain struct always can.
    pub fn json(status: StatusCode, body: &impl Serialize) -> Result<Self, ApiError> {
        let body = Bytes::from(serde_json::to_vec(body).map_err(ApiError::internal)?);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Self { status, headers, body })
    }

    /// An answer without a body.
    #[must_use]
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// Adds a header; `set-cookie` is kept with the answer, others belong to this one alone.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Gives the answer, with `calos-position`.
    #[must_use]
    pub fn respond(self, positions: &Positions) -> Response {
        let mut response = (self.status, self.body).into_response();
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_TYPE);
        headers.extend(self.headers);
        position::stamp(headers, positions);
        response
    }

    fn kept(&self) -> Kept {
        let kept =
            KEPT_HEADERS.iter().flat_map(|name| self.headers.get_all(name).iter().map(move |value| (name, value)));
        Kept {
            status: self.status.as_u16(),
            headers: kept.map(|(name, value)| (name.to_string(), BASE64.encode(value.as_bytes()))).collect(),
            body: BASE64.encode(&self.body),
        }
    }

    fn from_kept(kept: Kept) -> Result<Self, ApiError> {
        let mut headers = HeaderMap::new();
        for (name, value) in kept.headers {
            let name = HeaderName::from_str(&name).map_err(ApiError::internal)?;
            let value = BASE64.decode(value).map_err(ApiError::internal)?;
            headers.append(name, HeaderValue::from_bytes(&value).map_err(ApiError::internal)?);
        }
        Ok(Self {
            status: StatusCode::from_u16(kept.status).map_err(ApiError::internal)?,
            headers,
            body: BASE64.decode(kept.body).map_err(ApiError::internal)?.into(),
        })
    }
}

/// Removes answers that are too old.
///
/// # Errors
/// The database's.
pub async fn sweep(pool: &sqlx::PgPool) -> Result<u64, sqlx::Error> {
    let old = sqlx::query("DELETE FROM idempotency WHERE created_at < now() - make_interval(hours => $1)");
    Ok(old.bind(ANSWER_KEPT_HOURS).execute(pool).await?.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(values: &[&[u8]]) -> Result<Attempt, ApiError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap());
        }
        Attempt::read(&headers, &Method::POST, "/x", Bytes::new())
    }

    #[test]
    fn a_key_is_one_short_printable_text() {
        assert!(attempt(&[b"order-17"]).unwrap().is_keyed());
        assert!(!attempt(&[]).unwrap().is_keyed());
        for garbage in [&[b"\xff\xfe".as_slice()][..], &[b""], &[&[b'a'; 256]], &[b"a", b"b"]] {
            assert_eq!(attempt(garbage).unwrap_err().code(), Code::InvalidHeader, "{garbage:?}");
        }
    }

    #[test]
    fn a_kept_answer_is_the_answer_with_its_cookies() {
        let answer = Answer::json(StatusCode::CREATED, &serde_json::json!({"a": 1}))
            .unwrap()
            .with_header(header::SET_COOKIE, HeaderValue::from_static("a=1"))
            .with_header(header::SET_COOKIE, HeaderValue::from_static("b=2"))
            .with_header(header::ETAG, HeaderValue::from_static("\"x\""));
        let again = Answer::from_kept(answer.kept()).unwrap();
        assert_eq!((again.status, &again.body), (answer.status, &answer.body));
        assert_eq!(again.headers.get_all(header::SET_COOKIE).iter().count(), 2);
        assert!(!again.headers.contains_key(header::ETAG));
    }

    #[test]
    fn an_answer_nobody_can_ask_for_again_is_not_rendered_to_be_kept() {
        let claim = Claimer(None).keep(UsageId(uuid::Uuid::nil()), || panic!("it was rendered"));
        assert!(claim.is_none());
    }

    #[test]
    fn a_key_being_worked_on_is_entered_once() {
        let all = InProgress::default();
        let first = all.enter("me", "k");
        assert!(first.is_some() && all.enter("me", "k").is_none() && all.enter("you", "k").is_some());
        drop(first);
        assert!(all.enter("me", "k").is_some());
    }
}
