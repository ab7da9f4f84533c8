//! The cookies: which are read, and how they are set.

use axum::http::{HeaderMap, HeaderValue, header};

use calos_adapters::config::Config;
use calos_commands::ports::SecretText;
use calos_commands::sessions::SESSION_MAX_SECONDS;

/// The session's cookie over https. The prefix makes a browser refuse it from elsewhere than this very host.
const SESSION_SECURE: &str = "__Host-calos_session";

/// The session's cookie over plain http, on localhost.
const SESSION_PLAIN: &str = "calos_session";

/// What the seeds call it; read, never set.
const SESSION_SEED: &str = "session";

const DEVICE_SECURE: &str = "__Host-calos_device";
const DEVICE_PLAIN: &str = "calos_device";

/// How long a device keeps its secret: as long as browsers keep any cookie, 400 days.
const DEVICE_MAX_SECONDS: i64 = 400 * 24 * 60 * 60;

/// How long a device secret of ours is: 32 bytes in base64url.
const DEVICE_SECRET_CHARACTERS: usize = 43;

/// Whether a text may be a device secret of ours.
pub(super) fn is_device_secret(text: &str) -> bool {
    let base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    text.len() == DEVICE_SECRET_CHARACTERS && text.bytes().all(base64url)
}

/// Whether people reach this CALOS over https. Then only cookies are believed that no other host of the domain and no
/// plain connection could have set.
pub(super) fn is_https(config: &Config) -> bool {
    config.server.public_url.as_str().starts_with("https://")
}

/// Every cookie of a request, as `(name, value)`.
fn all(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='))
}

fn first(headers: &HeaderMap, names: &[&str]) -> Option<String> {
    // In the order of the names: a cookie that another host of the domain could have set never goes first.
    let of = |name: &&str| all(headers).find(|(known, value)| known == name && !value.is_empty());
    names.iter().find_map(of).map(|(_, value)| value.trim_matches('"').to_owned())
}

/// The session token a browser sends along.
pub(super) fn session(headers: &HeaderMap, https: bool) -> Option<SecretText> {
    let names: &[&str] = if https { &[SESSION_SECURE] } else { &[SESSION_SECURE, SESSION_PLAIN, SESSION_SEED] };
    first(headers, names).map(SecretText::new)
}

/// The device secret a browser sends along.
pub(super) fn device(headers: &HeaderMap, https: bool) -> Option<String> {
    first(headers, if https { &[DEVICE_SECURE] } else { &[DEVICE_SECURE, DEVICE_PLAIN] })
}

fn set(name: &str, value: &str, max_age_seconds: i64, secure: bool) -> HeaderValue {
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/; HttpOnly{secure}; SameSite=Lax; Max-Age={max_age_seconds}");
    // Tokens and secrets are base64 with dots: always a header value. A cookie that is none is not set at all.
    let mut value = HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// Keeps a session token in the browser.
#[must_use]
pub fn session_cookie(config: &Config, token: &SecretText) -> HeaderValue {
    let secure = is_https(config);
    set(if secure { SESSION_SECURE } else { SESSION_PLAIN }, token.expose(), SESSION_MAX_SECONDS, secure)
}

/// Keeps a device secret in the browser.
#[must_use]
pub fn device_cookie(config: &Config, secret: &SecretText) -> HeaderValue {
    let secure = is_https(config);
    set(if secure { DEVICE_SECURE } else { DEVICE_PLAIN }, secret.expose(), DEVICE_MAX_SECONDS, secure)
}

/// Takes the session token out of the browser, whatever it is called there.
#[must_use]
pub fn clear_session_cookies(config: &Config) -> Vec<HeaderValue> {
    let secure = is_https(config);
    let mut cleared = vec![set(SESSION_PLAIN, "", 0, secure), set(SESSION_SEED, "", 0, secure)];
    if secure {
        cleared.push(set(SESSION_SECURE, "", 0, true));
    }
    cleared
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&'static str]) -> HeaderMap {
        lines.iter().map(|line| (header::COOKIE, HeaderValue::from_static(line))).collect()
    }

    fn token(lines: &[&'static str]) -> Option<String> {
        session(&headers(lines), false).map(|token| token.expose().to_owned())
    }

    #[test]
    fn the_session_is_found_under_each_of_its_names_the_safest_first() {
        assert_eq!(token(&["a=b; calos_session=t1; c=d"]), Some("t1".to_owned()));
        assert_eq!(token(&["session=t2"]), Some("t2".to_owned()));
        assert_eq!(token(&["session=t2; calos_session=t1", "__Host-calos_session=t3"]), Some("t3".to_owned()));
        assert_eq!(token(&["calos_session=", "mysession=t4; a"]), None);
        assert_eq!(token(&[]), None);
    }

    #[test]
    fn over_https_a_cookie_that_anybody_could_have_set_is_not_read() {
        let planted = headers(&["calos_session=t1; session=t2; calos_device=d1"]);
        assert!(session(&planted, true).is_none() && device(&planted, true).is_none());
        let ours = headers(&["calos_session=t1; __Host-calos_session=t3; __Host-calos_device=d3; calos_device=d1"]);
        assert_eq!(session(&ours, true).map(|token| token.expose().to_owned()).as_deref(), Some("t3"));
        assert_eq!(device(&ours, true).as_deref(), Some("d3"));
    }

    #[test]
    fn a_device_secret_has_the_shape_of_ours() {
        assert!(is_device_secret(&"aZ0-_".repeat(9)[..43]));
        for other in ["", &"a".repeat(42), &"a".repeat(44), &"=".repeat(43), &"ü".repeat(43), &"a".repeat(4_000)] {
            assert!(!is_device_secret(other), "{other}");
        }
    }

    #[test]
    fn a_cookie_is_kept_from_scripts_and_other_sites() {
        let value = set(SESSION_SECURE, "t", 60, true);
        let text = value.to_str().unwrap();
        assert_eq!(text, "__Host-calos_session=t; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=60");
        assert!(value.is_sensitive());
    }
}
