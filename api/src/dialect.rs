//! In whose words a request is answered when it fails.

use axum::http::{HeaderMap, HeaderName};

/// What every client of Anthropic's sends.
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// In whose words an error is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// `{"error": "...", "code": "...", ...facts}`: everything outside `/v1`.
    Calos,
    /// `{"error": {"message", "type", "param", "code"}}`: under `/v1`.
    OpenAi,
    /// `{"type": "error", "error": {"type", "message"}, "request_id"}`: `/v1/messages`, and where a client says with
    /// `anthropic-version` that it is Anthropic's.
    Anthropic,
}

impl Dialect {
    /// The dialect of a request. Both SDKs ask for `/v1/models`, each in its own words.
    #[must_use]
    pub fn of(path: &str, headers: &HeaderMap) -> Self {
        let within = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if within("/v1/messages") || within("/v1/models") && headers.contains_key(ANTHROPIC_VERSION) {
            Self::Anthropic
        } else if path == "/v1" || path.starts_with("/v1/") {
            Self::OpenAi
        } else {
            Self::Calos
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_path_decides_the_dialect() {
        let plain = |path| Dialect::of(path, &HeaderMap::new());
        assert_eq!(plain("/v1/chat/completions"), Dialect::OpenAi);
        assert_eq!(plain("/v1/messages"), Dialect::Anthropic);
        assert_eq!(plain("/v1/messages/count_tokens"), Dialect::Anthropic);
        assert_eq!(plain("/v1/messagesx"), Dialect::OpenAi);
        assert_eq!(plain("/v1x"), Dialect::Calos);
        assert_eq!(plain("/api/credits/balance"), Dialect::Calos);
    }

    #[test]
    fn whoever_asks_for_models_in_anthropics_words_is_answered_in_them() {
        let headers: HeaderMap = [(ANTHROPIC_VERSION, HeaderValue::from_static("2023-06-01"))].into_iter().collect();
        for (path, dialect) in [
            ("/v1/models", Dialect::Anthropic),
            ("/v1/models/claude-sonnet-4-6", Dialect::Anthropic),
            ("/v1/chat/completions", Dialect::OpenAi),
            ("/api/credits/balance", Dialect::Calos),
        ] {
            assert_eq!(Dialect::of(path, &headers), dialect, "{path}");
        }
        assert_eq!(Dialect::of("/v1/models", &HeaderMap::new()), Dialect::OpenAi);
    }
}
