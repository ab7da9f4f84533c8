//! Where a caller stands with its limits, in the headers OpenAI's clients read.
//!
//! Of the three windows calls are limited in, the headers show the one that is nearest to being used up: the one the
//! caller would run into first. `reset` is when nothing of it is used any more, as text such as `1s` or `6m0s`. Tokens
//! are the licence's for its period; they are left out without a limit.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use calos_commands::complete_chat::LimitStatus;
use calos_commands::provider::Dialect;
use calos_domain::Timestamp;

use crate::error::{ApiError, Code};
use crate::moment::rfc3339;

const LIMIT_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");
const LIMIT_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-limit-tokens");
const REMAINING_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-tokens");
const RESET_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-reset-tokens");

/// The same as Anthropic's clients read it: a moment, where OpenAI's read a stretch of time.
const ANTHROPIC_LIMIT_REQUESTS: HeaderName = HeaderName::from_static("anthropic-ratelimit-requests-limit");
const ANTHROPIC_REMAINING_REQUESTS: HeaderName = HeaderName::from_static("anthropic-ratelimit-requests-remaining");
const ANTHROPIC_RESET_REQUESTS: HeaderName = HeaderName::from_static("anthropic-ratelimit-requests-reset");
const ANTHROPIC_LIMIT_TOKENS: HeaderName = HeaderName::from_static("anthropic-ratelimit-tokens-limit");
const ANTHROPIC_REMAINING_TOKENS: HeaderName = HeaderName::from_static("anthropic-ratelimit-tokens-remaining");
const ANTHROPIC_RESET_TOKENS: HeaderName = HeaderName::from_static("anthropic-ratelimit-tokens-reset");

/// When to come back, in milliseconds; OpenAI's clients prefer it to `retry-after`.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

const MILLIS_PER_SECOND: u64 = 1_000;

/// Milliseconds from one moment to another, rounded up; none if it has passed.
fn millis(from: Timestamp, to: Timestamp) -> u64 {
    let micros = to.micros().saturating_sub(from.micros()).max(0).unsigned_abs();
    micros.div_ceil(1_000)
}

/// A stretch of time as OpenAI writes it: `120ms`, `59s`, `6m0s`, `24h0m0s`.
fn duration_text(millis: u64) -> String {
    if millis < MILLIS_PER_SECOND {
        return format!("{millis}ms");
    }
    let seconds = millis.div_ceil(MILLIS_PER_SECOND);
    let (hours, minutes, rest) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        (_, _) => format!("{hours}h{minutes}m{rest}s"),
    }
}

/// The headers of a status.
fn headers(status: &LimitStatus) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let reset = |at| HeaderValue::try_from(duration_text(millis(status.at, at))).ok();
    let calls = status.calls.map(|calls| {
        [
            (LIMIT_REQUESTS, Some(HeaderValue::from(calls.limit))),
            (REMAINING_REQUESTS, Some(HeaderValue::from(calls.remaining()))),
            (RESET_REQUESTS, reset(calls.reset_at)),
        ]
    });
    let tokens = status.tokens.map(|tokens| {
        [
            (LIMIT_TOKENS, Some(HeaderValue::from(tokens.limit))),
            (REMAINING_TOKENS, Some(HeaderValue::from(tokens.remaining))),
            (RESET_TOKENS, reset(tokens.reset_at)),
        ]
    });
    let all = calls.into_iter().flatten().chain(tokens.into_iter().flatten());
    all.filter_map(|(name, value)| Some((name, value?)))
}

/// The same for Anthropic's clients.
fn anthropic_headers(status: &LimitStatus) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let reset = |at| rfc3339(at).ok().and_then(|text| HeaderValue::try_from(text).ok());
    let calls = status.calls.map(|calls| {
        [
            (ANTHROPIC_LIMIT_REQUESTS, Some(HeaderValue::from(calls.limit))),
            (ANTHROPIC_REMAINING_REQUESTS, Some(HeaderValue::from(calls.remaining()))),
            (ANTHROPIC_RESET_REQUESTS, reset(calls.reset_at)),
        ]
    });
    let tokens = status.tokens.map(|tokens| {
        [
            (ANTHROPIC_LIMIT_TOKENS, Some(HeaderValue::from(tokens.limit))),
            (ANTHROPIC_REMAINING_TOKENS, Some(HeaderValue::from(tokens.remaining))),
            (ANTHROPIC_RESET_TOKENS, reset(tokens.reset_at)),
        ]
    });
    let all = calls.into_iter().flatten().chain(tokens.into_iter().flatten());
    all.filter_map(|(name, value)| Some((name, value?)))
}

/// Says on an answer where the caller stands.
pub(crate) fn tell(answer: &mut HeaderMap, status: &LimitStatus) {
    for (name, value) in headers(status) {
        answer.insert(name, value);
    }
}

/// Says it in the words of the answer's dialect too.
pub(super) fn tell_in(dialect: Dialect, answer: &mut HeaderMap, status: &LimitStatus) {
    tell(answer, status);
    if dialect == Dialect::Anthropic {
        for (name, value) in anthropic_headers(status) {
            answer.insert(name, value);
        }
    }
}

/// The answer to a call too many: when to come back, and where the caller stands.
pub(super) fn too_many(status: &LimitStatus, message: &str) -> ApiError {
    let free_at = status.calls.and_then(|calls| calls.free_at).unwrap_or(status.at);
    let wait_ms = millis(status.at, free_at).max(1);
    let wait_seconds = wait_ms.div_ceil(MILLIS_PER_SECOND);
    let message = format!("{message}; try again in {}", duration_text(wait_ms));
    let error = ApiError::new(Code::RateLimitExceeded, message)
        .retry_after(wait_seconds)
        .with_header(RETRY_AFTER_MS, HeaderValue::from(wait_ms));
    let error = match status.calls {
        Some(calls) => error
            .with_fact("window", calls.window.as_str())
            .with_fact("limit", calls.limit)
            .with_fact("retry_after_ms", wait_ms),
        None => error,
    };
    let error = headers(status).fold(error, |error, (name, value)| error.with_header(name, value));
    anthropic_headers(status).fold(error, |error, (name, value)| error.with_anthropic_header(name, value))
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use calos_commands::complete_chat::TokenStatus;
    use calos_domain::wallet::{CallWindow, WindowStatus};

    use super::*;

    #[test]
    fn a_duration_reads_as_openai_writes_it() {
        for (millis, text) in [
            (0, "0ms"),
            (120, "120ms"),
            (1_000, "1s"),
            (1_001, "2s"),
            (59_999, "1m0s"),
            (360_000, "6m0s"),
            (86_400_000, "24h0m0s"),
            (5_025_000, "1h23m45s"),
        ] {
            assert_eq!(duration_text(millis), text);
        }
    }

    #[test]
    fn a_call_too_many_says_when_to_come_back() {
        let at = Timestamp::from_micros(1_000_000_000);
        let calls = WindowStatus {
            window: CallWindow::Minute,
            limit: 60,
            used: 60,
            free_at: Some(Timestamp::from_micros(1_012_345_678)),
            reset_at: at.plus_seconds(61),
        };
        let tokens = TokenStatus { limit: 1_000, remaining: 400, reset_at: at.plus_seconds(86_400) };
        let status = LimitStatus { calls: Some(calls), tokens: Some(tokens), at };
        let response = too_many(&status, "rate limit reached").into_response();
        for (name, value) in [
            ("retry-after", "13"),
            ("retry-after-ms", "12346"),
            ("x-ratelimit-limit-requests", "60"),
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "1m1s"),
            ("x-ratelimit-limit-tokens", "1000"),
            ("x-ratelimit-remaining-tokens", "400"),
            ("x-ratelimit-reset-tokens", "24h0m0s"),
        ] {
            assert_eq!(response.headers()[name], value, "{name}");
        }
        assert_eq!(response.status(), 429);
        assert!(!response.headers().contains_key(ANTHROPIC_LIMIT_REQUESTS));
        let response = too_many(&status, "rate limit reached").render(crate::error::Dialect::Anthropic);
        for (name, value) in [
            ("anthropic-ratelimit-requests-limit", "60"),
            ("anthropic-ratelimit-requests-remaining", "0"),
            ("anthropic-ratelimit-requests-reset", "1970-01-01T00:17:41Z"),
            ("anthropic-ratelimit-tokens-remaining", "400"),
        ] {
            assert_eq!(response.headers()[name], value, "{name}");
        }
    }

    #[test]
    fn what_has_no_limit_has_no_header() {
        let mut answer = HeaderMap::new();
        tell(&mut answer, &LimitStatus { calls: None, tokens: None, at: Timestamp::default() });
        assert!(answer.is_empty());
    }
}
