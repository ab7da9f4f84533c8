//! What watches a server: `/health` and `/metrics`, asked a few times a second while the callers run.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::runtime::Builder;
use tokio::task::JoinHandle;

use super::figures::{Quantiles, quantiles};
use super::http_client;
use super::load::Span;
use crate::error::BenchError;
use crate::stats::Latencies;

/// How often the server is asked whether it lives.
const HEALTH_PAUSE: Duration = Duration::from_millis(100);
/// How often its figures are read: far more often than any scraper does.
const METRICS_PAUSE: Duration = Duration::from_millis(500);

/// How long one page took to be answered, as long as anybody was watching.
pub struct Watched {
    health: Latencies,
    metrics: Latencies,
    /// `/health` beside each case, in the order in which they were run.
    health_by_case: Vec<(&'static str, Latencies)>,
}

/// The figures of it.
#[derive(Clone, Debug, Serialize)]
pub struct WatchedFigures {
    /// `/health`, in microseconds.
    pub health_micros: Quantiles,
    /// `/metrics`, in microseconds, to the last byte.
    pub metrics_micros: Quantiles,
    /// `/health` beside the callers of each case.
    pub health_by_case_micros: Vec<(&'static str, Quantiles)>,
}

impl Watched {
    /// Nothing watched yet.
    ///
    /// # Errors
    /// No memory for it.
    pub fn new() -> Result<Self, BenchError> {
        Ok(Self { health: Latencies::new()?, metrics: Latencies::new()?, health_by_case: Vec::new() })
    }

    /// Takes in what was watched beside a case.
    ///
    /// # Errors
    /// No memory for it.
    pub fn take_in(&mut self, case: &'static str, pages: Pages) -> Result<(), BenchError> {
        let number = match self.health_by_case.iter().position(|(name, _)| *name == case) {
            Some(number) => number,
            None => {
                self.health_by_case.push((case, Latencies::new()?));
                self.health_by_case.len() - 1
            }
        };
        for micros in pages.health {
            self.health.record(micros);
            self.health_by_case[number].1.record(micros);
        }
        for micros in pages.metrics {
            self.metrics.record(micros);
        }
        Ok(())
    }

    /// The figures; none when nothing was watched.
    pub fn figures(&self) -> Option<WatchedFigures> {
        let of_case = |(name, health): &(&'static str, Latencies)| Some((*name, quantiles(health)?));
        Some(WatchedFigures {
            health_micros: quantiles(&self.health)?,
            metrics_micros: quantiles(&self.metrics)?,
            health_by_case_micros: self.health_by_case.iter().filter_map(of_case).collect(),
        })
    }
}

/// Microseconds of each page of one span.
#[derive(Default)]
pub struct Pages {
    health: Vec<u64>,
    metrics: Vec<u64>,
}

/// Watches a server for a span, on a thread of its own: whoever watches a server is another program than its callers, and does
/// not wait behind what they are busy with themselves.
pub fn watch(address: SocketAddr, span: Span) -> JoinHandle<Result<Pages, BenchError>> {
    tokio::task::spawn_blocking(move || {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| BenchError::Check(format!("nobody could watch: {error}")))?;
        runtime.block_on(async {
            let health = ask(address, "/health", HEALTH_PAUSE, span);
            let (health, metrics) = tokio::join!(health, ask(address, "/metrics", METRICS_PAUSE, span));
            Ok(Pages { health: health?, metrics: metrics? })
        })
    })
}

/// Asks for a page again and again; each answer has to be one.
async fn ask(address: SocketAddr, path: &str, pause: Duration, span: Span) -> Result<Vec<u64>, BenchError> {
    let (client, url) = (http_client()?, format!("http://{address}{path}"));
    let failed = |error: reqwest::Error| BenchError::Check(format!("{path} under load: {error}"));
    // The connection is opened before anything is measured.
    client.get(&url).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
    tokio::time::sleep_until(span.begin.into()).await;
    let mut taken = Vec::new();
    while Instant::now() < span.end {
        let began = Instant::now();
        let answer = client.get(&url).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
        answer.bytes().await.map_err(failed)?;
        let took = began.elapsed();
        taken.push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        tokio::time::sleep(pause.saturating_sub(took)).await;
    }
    Ok(taken)
}
