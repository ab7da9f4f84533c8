//! The server's own log, on standard error: plain lines for people, JSON lines for machines, and no secret in either.
//!
//! `RUST_LOG` says what is logged (`info` by default). One line a request stands under `calos::access` at `debug`, so it
//! is quiet unless asked for (`RUST_LOG=info,calos::access=debug`): what was refused or failed has its line anyway.
//! `CALOS_LOG_FORMAT` chooses `json` or `text`; unset, a terminal gets text and everything else JSON. A JSON line that was
//! written on behalf of a request begins with its `request_id`.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{PoisonError, RwLock};

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use calos_adapters::config::{Config, Vars};
use calos_commands::in_request;

use crate::telemetry::Telemetry;

/// What is logged when `RUST_LOG` does not say.
const FILTER_DEFAULT: &str = "info,sqlx=warn,hyper=warn";

/// What stands in a secret's place.
const REDACTED: &str = "[redacted]";

/// The shortest secret that is looked for: shorter ones stand in every other word.
const SECRET_MIN_BYTES: usize = 8;

/// The shortest thing that looks like a key.
const KEY_MIN_BYTES: usize = 16;

static SECRETS: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// How lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// For people.
    Text,
    /// For machines, one object a line.
    Json,
}

impl Format {
    /// What `CALOS_LOG_FORMAT` says, or what fits whoever reads standard error.
    #[must_use]
    pub fn chosen(vars: Option<&Vars>) -> Self {
        match vars.and_then(|vars| vars.get("CALOS_LOG_FORMAT")) {
            Some("json") => Self::Json,
            Some("text") => Self::Text,
            Some(_) | None if io::stderr().is_terminal() => Self::Text,
            Some(_) | None => Self::Json,
        }
    }
}

/// Begins to log, and to record traces when there is where to.
pub fn start(format: Format, telemetry: Option<&Telemetry>) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let lines = tracing_subscriber::fmt::layer().with_writer(Clean(format));
    let lines = match format {
        Format::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        Format::Json => lines.json().boxed(),
    };
    let registry = tracing_subscriber::registry().with(telemetry.map(Telemetry::layer));
    // A second subscriber can only come from a test that has set its own.
    let _ = registry.with(lines.with_filter(filter)).try_init();
}

/// Keeps the secrets of these settings out of every line from now on, wherever they were repeated.
pub fn keep_out_secrets_of(config: &Config) {
    let providers = &config.providers;
    let given = [
        Some(&config.secrets.jwt),
        Some(&config.secrets.session),
        config.database.url.as_ref(),
        config.redis_url.as_ref(),
        config.server.metrics_token.as_ref(),
        providers.openai.api_key.as_ref(),
        providers.anthropic.api_key.as_ref(),
        providers.deepseek.api_key.as_ref(),
        config.stripe.secret_key.as_ref(),
        config.stripe.webhook_secret.as_ref(),
        config.twilio.as_ref().map(|twilio| &twilio.auth_token),
    ];
    let texts = given.into_iter().flatten().map(|secret| secret.expose().to_owned());
    let long: Vec<String> = texts.filter(|text| text.len() >= SECRET_MIN_BYTES).collect();
    *SECRETS.write().unwrap_or_else(PoisonError::into_inner) = long;
}

/// A line without secrets: those of the settings, whatever looks like a key or a bearer token, and passwords in addresses.
#[must_use]
pub fn redact(line: &str) -> String {
    let mut clean = line.to_owned();
    for secret in SECRETS.read().unwrap_or_else(PoisonError::into_inner).iter() {
        if clean.contains(secret.as_str()) {
            clean = clean.replace(secret.as_str(), REDACTED);
        }
    }
    for mark in ["sk-", "sk_live_", "sk_test_", "whsec_", "Bearer "] {
        clean = without_keys(clean, mark);
    }
    without_password(&clean)
}

/// Takes out what follows `mark` and is long enough to be a key, the mark of a key with it.
fn without_keys(text: String, mark: &str) -> String {
    if !text.contains(mark) {
        return text;
    }
    let is_of_key = |letter: char| letter.is_ascii_alphanumeric() || "-_.~+/=".contains(letter);
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find(mark) {
        let (before, found) = rest.split_at(at);
        let key = found[mark.len()..].find(|letter| !is_of_key(letter)).map_or(found.len(), |end| mark.len() + end);
        // A word may end with the same letters: `task-` is no key.
        let begins_word = !before.ends_with(|letter: char| letter.is_ascii_alphanumeric());
        clean.push_str(before);
        if begins_word && key >= KEY_MIN_BYTES {
            clean.push_str(REDACTED);
        } else {
            clean.push_str(&found[..key]);
        }
        rest = &found[key..];
    }
    clean.push_str(rest);
    clean
}

/// `scheme://user:password@host` without its password.
fn without_password(text: &str) -> String {
    const MARK: &str = "://";
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        let (before, authority) = rest.split_at(at + MARK.len());
        let end = authority.find(|letter: char| "/ \"'?#\n".contains(letter)).unwrap_or(authority.len());
        let (authority, behind) = authority.split_at(end);
        clean.push_str(before);
        let password = authority.rfind('@').and_then(|host| Some((authority[..host].find(':')?, host)));
        match password {
            Some((colon, host)) => {
                clean.push_str(&authority[..=colon]);
                clean.push_str(REDACTED);
                clean.push_str(&authority[host..]);
            }
            None => clean.push_str(authority),
        }
        rest = behind;
    }
    clean.push_str(rest);
    clean
}

/// Standard error, a redacted line at a time.
#[derive(Clone, Copy, Debug)]
struct Clean(Format);

impl<'a> MakeWriter<'a> for Clean {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

impl Write for Clean {
    /// Takes a whole line, as the formatter hands it over.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let clean = redact(&String::from_utf8_lossy(line));
        let named = match (self.0, in_request::current(), clean.strip_prefix('{')) {
            (Format::Json, Some(request), Some(rest)) => format!("{{\"request_id\":\"{request}\",{rest}"),
            (Format::Json | Format::Text, _, _) => clean,
        };
        io::stderr().lock().write_all(named.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_key_is_taken_out_and_what_does_not_stays() {
        let key = "sk-tenant-0190a5e4-7b1c-7000-8000-000000000000-abcdef0123456789";
        for line in [format!("the key {key}, it is wrong"), format!("{{\"key\":\"{key}\"}}"), key.to_owned()] {
            let clean = redact(&line);
            assert!(clean.contains(REDACTED) && !clean.contains("abcdef"), "{clean}");
        }
        assert_eq!(redact("authorization: Bearer abc.def.ghi-jkl-mno"), "authorization: [redacted]");
        for line in ["a task-force of sixteen people", "sk-proj", "Bearer of news", "http://127.0.0.1:5001/v1/models"] {
            assert_eq!(redact(line), line);
        }
    }

    #[test]
    fn an_address_loses_its_password_and_nothing_else() {
        let line = "cannot reach postgres://calos:hunter2@db:5432/calos nor redis://:secret@r:6379, see http://x.y/z";
        let clean =
            "cannot reach postgres://calos:[redacted]@db:5432/calos nor redis://:[redacted]@r:6379, see http://x.y/z";
        assert_eq!(redact(line), clean);
    }
}
