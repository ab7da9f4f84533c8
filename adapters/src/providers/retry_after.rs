//! When a provider that refused a call wants to be asked again.

use std::time::Duration;

use calos_commands::provider::ProviderError;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// The longest pause that is passed on.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// The pause where a provider says that there are too many calls and not for how long.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

/// In milliseconds, which OpenAI says beside the seconds.
const RETRY_AFTER_MS: &str = "retry-after-ms";

/// The codes of accounts that have spent what they may: waiting does not lift that.
const SPENT_CODES: [&str; 3] = ["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"];

/// The pause the headers of an answer ask for: milliseconds, seconds with or without a fraction, or a date; none where
/// there is nothing readable.
pub(super) fn read(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let milliseconds = text(RETRY_AFTER_MS).and_then(|text| number(text, 1_000.0));
    let pause = milliseconds.or_else(|| {
        let text = text(RETRY_AFTER.as_str())?;
        number(text, 1.0).or_else(|| until(text, now))
    });
    pause.map(|pause| pause.min(RETRY_AFTER_MAX))
}

fn number(text: &str, per_second: f64) -> Option<Duration> {
    let seconds = text.parse::<f64>().ok()? / per_second;
    // What is too long for a duration is as long as may be; what is no time at all is unreadable.
    if seconds > RETRY_AFTER_MAX.as_secs_f64() {
        return Some(RETRY_AFTER_MAX);
    }
    Duration::try_from_secs_f64(seconds).ok()
}

/// A date that has passed asks for no pause.
fn until(text: &str, now: OffsetDateTime) -> Option<Duration> {
    let then = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    Some(Duration::try_from(then - now).unwrap_or_default())
}

/// Gives a refusal for too many calls a pause where it names none, unless the account has spent what it may. Only
/// Anthropic means a cap on spending when it names no pause.
pub(super) fn soon_again(error: ProviderError) -> ProviderError {
    match error {
        ProviderError::Status { provider, status: 429, message, code, param, retry_after: None }
            if !code.as_deref().is_some_and(|code| SPENT_CODES.contains(&code)) =>
        {
            let retry_after = Some(RETRY_AFTER_DEFAULT);
            ProviderError::Status { provider, status: 429, message, code, param, retry_after }
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;
    use time::macros::datetime;

    use super::*;

    fn pause(headers: &[(&'static str, &'static str)]) -> Option<Duration> {
        let named = headers
            .iter()
            .map(|(name, value)| (reqwest::header::HeaderName::from_static(name), HeaderValue::from_static(value)));
        read(&named.collect(), datetime!(1994-11-06 08:49:00 UTC))
    }

    #[test]
    fn a_pause_is_read_in_every_form_it_comes_in() {
        for (text, expected) in [
            ("2", Some(2_000)),
            (" 0.25 ", Some(250)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37_000)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("99999999999999999999", Some(24 * 3_600_000)),
            ("1e400", Some(24 * 3_600_000)),
            ("-1", None),
            ("NaN", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(pause(&[("retry-after", text)]), expected.map(Duration::from_millis), "{text}");
        }
        assert_eq!(pause(&[]), None);
    }

    #[test]
    fn milliseconds_say_more_than_seconds() {
        let pauses = [("retry-after", "1"), ("retry-after-ms", "420")];
        assert_eq!(pause(&pauses), Some(Duration::from_millis(420)));
        assert_eq!(pause(&[("retry-after", "3"), ("retry-after-ms", "x")]), Some(Duration::from_secs(3)));
    }

    #[test]
    fn too_many_calls_pass_and_a_spent_account_stays() {
        let pause = |status, code: Option<&str>, named: Option<u64>| {
            let refused = ProviderError::Status {
                provider: "openai",
                status,
                message: "x".to_owned(),
                code: code.map(str::to_owned),
                param: None,
                retry_after: named.map(Duration::from_secs),
            };
            match soon_again(refused) {
                ProviderError::Status { retry_after, .. } => retry_after,
                other => panic!("{other}"),
            }
        };
        assert_eq!(pause(429, Some("rate_limit_exceeded"), None), Some(RETRY_AFTER_DEFAULT));
        assert_eq!(pause(429, None, None), Some(RETRY_AFTER_DEFAULT));
        assert_eq!(pause(429, None, Some(7)), Some(Duration::from_secs(7)));
        assert_eq!(pause(429, Some("insufficient_quota"), None), None);
        assert_eq!(pause(503, None, None), None);
    }
}
