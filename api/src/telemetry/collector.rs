//! Hands batches of spans to a collector, with the HTTP client and the TLS the rest of CALOS uses.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tokio::runtime::Handle;

/// The longest answer of a collector that is looked at; it says little.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// The client. The exporter works on a thread of its own, so requests are carried out on the runtime given here.
#[derive(Debug)]
pub(super) struct Collector {
    client: reqwest::Client,
    runtime: Handle,
    failing: AtomicBool,
}

impl Collector {
    pub(super) fn new(runtime: Handle, timeout: Duration) -> Result<Self, reqwest::Error> {
        // The second call finds it installed, which is as good.
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("calos/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, runtime, failing: AtomicBool::new(false) })
    }

    /// Says once that traces are lost, and once that they are not any more.
    fn report(&self, failed: Option<String>) {
        let was_failing = self.failing.swap(failed.is_some(), Ordering::Relaxed);
        match failed {
            Some(error) if !was_failing => tracing::warn!(error, "traces are lost: the collector does not take them"),
            None if was_failing => tracing::info!("the collector takes traces again"),
            Some(_) | None => {}
        }
    }
}

async fn send(client: reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let mut answer = client.execute(request.try_into()?).await?;
    let status = answer.status();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > ANSWER_MAX_BYTES {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Response::builder().status(status).body(Bytes::from(body))?)
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = self.runtime.spawn(send(self.client.clone(), request)).await;
        let answered = sent.map_err(HttpError::from).and_then(|answered| answered);
        self.report(match &answered {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status())),
            Err(error) => Some(error.to_string()),
        });
        answered
    }
}
