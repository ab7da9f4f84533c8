//! What a caller shows, before any of it is believed.

use axum::http::{HeaderMap, HeaderName, header};

use calos_adapters::config::Config;
use calos_adapters::secrets::PresentedKey;
use calos_commands::ports::SecretText;

use super::cookies;
use crate::error::{ApiError, Code};

/// Where Anthropic's clients put a key.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What every tenant key begins with; it tells a key from a session token.
const KEY_PREFIX: &str = "sk-";

/// What a caller shows.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Nothing.
    None,
    /// Something of a key's shape.
    Key(PresentedKey),
    /// Something that may be a session token.
    Session {
        /// The token.
        token: SecretText,
        /// Whether a browser sent it along by itself.
        by_cookie: bool,
    },
}

impl Credentials {
    /// Reads `Authorization`, then `x-api-key`, then the cookies; the first that is there decides. Which cookies are
    /// believed depends on how people reach this CALOS.
    ///
    /// # Errors
    /// 401 for an `Authorization` that is no bearer token, and for a key that has not the shape of one.
    pub fn of(headers: &HeaderMap, config: &Config) -> Result<Self, ApiError> {
        Self::read(headers, cookies::is_https(config))
    }

    fn read(headers: &HeaderMap, https: bool) -> Result<Self, ApiError> {
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let bearer = value.to_str().ok().and_then(bearer);
            let bearer = bearer.ok_or_else(|| {
                ApiError::new(
                    Code::Unauthenticated,
                    "send the header as Authorization: Bearer <session token or tenant key>",
                )
                .with_param("authorization")
            })?;
            return if bearer.starts_with(KEY_PREFIX) {
                key(bearer)
            } else {
                Ok(Self::Session { token: SecretText::new(bearer), by_cookie: false })
            };
        }
        if let Some(value) = headers.get(X_API_KEY) {
            return key(value.to_str().unwrap_or_default());
        }
        match cookies::session(headers, https) {
            Some(token) => Ok(Self::Session { token, by_cookie: true }),
            None => Ok(Self::None),
        }
    }
}

/// What follows the scheme, whose letters' case does not matter.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn key(text: &str) -> Result<Credentials, ApiError> {
    text.trim().parse().map(Credentials::Key).map_err(|_| super::keys::invalid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const KEY: &str = "sk-tenant-a1b2c3d4-e5f6-7890-abcd-ef1234567890-abcd1234xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

    fn of(headers: &[(HeaderName, &'static str)]) -> Result<Credentials, Code> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        Credentials::read(&headers, false).map_err(|error| error.code())
    }

    #[test]
    fn a_key_is_taken_from_either_header() {
        assert!(matches!(of(&[(header::AUTHORIZATION, concat_bearer())]), Ok(Credentials::Key(_))));
        assert!(matches!(of(&[(X_API_KEY, KEY)]), Ok(Credentials::Key(_))));
    }

    fn concat_bearer() -> &'static str {
        "bearer  sk-tenant-a1b2c3d4-e5f6-7890-abcd-ef1234567890-abcd1234xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
    }

    #[test]
    fn a_token_is_taken_from_the_header_before_the_cookie() {
        let both = [(header::AUTHORIZATION, "Bearer aa.bb.cc"), (header::COOKIE, "calos_session=dd.ee.ff")];
        match of(&both) {
            Ok(Credentials::Session { token, by_cookie: false }) => assert_eq!(token.expose(), "aa.bb.cc"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(of(&both[1..]), Ok(Credentials::Session { by_cookie: true, .. })));
        assert!(matches!(of(&[]), Ok(Credentials::None)));
    }

    #[test]
    fn garbage_is_refused_rather_than_passed_over_for_a_cookie() {
        for garbage in ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "", "sk-tenant"] {
            let headers = [(header::AUTHORIZATION, garbage), (header::COOKIE, "calos_session=dd.ee.ff")];
            assert_eq!(of(&headers).unwrap_err(), Code::Unauthenticated, "{garbage}");
        }
        for garbage in ["Bearer sk-tenant-1", "Bearer sk-proj-of-somebody-else"] {
            assert_eq!(of(&[(header::AUTHORIZATION, garbage)]).unwrap_err(), Code::InvalidApiKey);
        }
        assert_eq!(of(&[(X_API_KEY, "")]).unwrap_err(), Code::InvalidApiKey);
    }
}
