//! A look at a server from outside, as a load balancer or an operator has it.

use std::time::{Duration, Instant};

use serde_json::Value;

/// How long an answer may take.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest answer that is read.
const ANSWER_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Asks servers how they are.
#[derive(Clone, Debug)]
pub struct Probe(reqwest::Client);

/// What a server answered.
#[derive(Clone, PartialEq, Debug)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// The body; null when it is no JSON.
    pub body: Value,
    /// How long the answer took, to its last byte.
    pub took: Duration,
}

impl Probe {
    /// A probe that follows no redirection and uses no proxy: it asks who was named.
    ///
    /// # Errors
    /// Why no client could be made.
    pub fn new() -> Result<Self, String> {
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(PROBE_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build();
        client.map(Self).map_err(|error| error.to_string())
    }

    /// Asks once.
    ///
    /// # Errors
    /// Why there was no answer, in words.
    pub async fn get(&self, url: &str) -> Result<Answered, String> {
        let began = Instant::now();
        let mut response = self.0.get(url).send().await.map_err(|error| in_words(&error))?;
        let status = response.status().as_u16();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| in_words(&error))? {
            if bytes.len() + chunk.len() > ANSWER_MAX_BYTES {
                return Err(format!("the answer is larger than {ANSWER_MAX_BYTES} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Answered { status, body, took: began.elapsed() })
    }
}

fn in_words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        format!("no answer within {} s", PROBE_TIMEOUT.as_secs())
    } else if error.is_connect() {
        "nobody answers there".to_owned()
    } else {
        error.to_string()
    }
}
