//! Takes a secret out of somebody else's words: providers like to repeat the key they were shown.

use crate::ports::SecretText;
use crate::provider::ProviderError;

/// The shortest stretch of a secret that is taken out. Shorter ones are what everybody's keys share, such as `sk-proj-`.
const STRETCH_MIN_BYTES: usize = 12;

/// What stands in a secret's place.
const REDACTED: &str = "[redacted]";

/// The text without any stretch of the secret of 12 bytes or more: words that were cut short may hold half of it.
#[must_use]
pub fn redact(text: &str, secret: &SecretText) -> String {
    let secret = secret.expose();
    let shortest = secret.len().min(STRETCH_MIN_BYTES);
    if shortest == 0 {
        return text.to_owned();
    }
    let mut told = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let stretch = stretch(rest, secret);
        if stretch >= shortest {
            told.push_str(REDACTED);
            rest = &rest[stretch..];
        } else {
            told.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    told
}

/// How many bytes of the text's beginning stand somewhere in the secret.
fn stretch(text: &str, secret: &str) -> usize {
    let ends = text.char_indices().map(|(start, letter)| start + letter.len_utf8());
    ends.take_while(|end| secret.contains(&text[..*end])).last().unwrap_or(0)
}

impl ProviderError {
    /// The same error without the key it was answered to, wherever the provider or the transport repeated it.
    #[must_use]
    pub fn without(self, secret: &SecretText) -> Self {
        let clean = |text: String| redact(&text, secret);
        match self {
            Self::Status { provider, status, message, code, param, retry_after } => Self::Status {
                provider,
                status,
                message: clean(message),
                code: code.map(clean),
                param: param.map(clean),
                retry_after,
            },
            Self::Unreachable { provider, detail } => Self::Unreachable { provider, detail: clean(detail) },
            Self::BadAnswer { provider, detail } => Self::BadAnswer { provider, detail: clean(detail) },
            silent @ (Self::Timeout { .. }
            | Self::CircuitOpen { .. }
            | Self::Busy { .. }
            | Self::KeyUnavailable { .. }
            | Self::Unsupported { .. }) => silent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-proj-0123456789abcdef";

    fn told(text: &str) -> String {
        redact(text, &SecretText::new(KEY))
    }

    #[test]
    fn a_repeated_key_is_taken_out_wherever_it_stands() {
        assert_eq!(told(&format!("Incorrect key: {KEY}, bad {KEY}")), "Incorrect key: [redacted], bad [redacted]");
        assert_eq!(told(KEY), REDACTED);
        assert_eq!(told("nothing of it: sk-proj-, abcdef"), "nothing of it: sk-proj-, abcdef");
    }

    #[test]
    fn a_key_that_was_cut_short_is_taken_out_too() {
        for cut in STRETCH_MIN_BYTES..KEY.len() {
            assert_eq!(told(&format!("key {}", &KEY[..cut])), "key [redacted]");
            assert_eq!(told(&format!("…{} key", &KEY[KEY.len() - cut..])), "…[redacted] key");
        }
    }

    #[test]
    fn a_short_secret_is_taken_out_whole_and_an_empty_one_takes_nothing() {
        assert_eq!(redact("key hunter2!", &SecretText::new("hunter2")), "key [redacted]!");
        assert_eq!(redact("key", &SecretText::new("")), "key");
    }

    #[test]
    fn no_part_of_an_error_repeats_the_key() {
        let error = ProviderError::Status {
            provider: "openai",
            status: 401,
            message: format!("bad {KEY}"),
            code: Some(KEY.to_owned()),
            param: Some(format!("header.{KEY}")),
            retry_after: None,
        };
        let unreachable = ProviderError::Unreachable { provider: "openai", detail: KEY.to_owned() };
        for error in [error, unreachable] {
            let error = error.without(&SecretText::new(KEY));
            assert!(!format!("{error} {error:?}").contains(KEY), "{error:?}");
        }
    }
}
