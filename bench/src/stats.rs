//! Figures: one run, several runs of the same thing, and their medians.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::error::BenchError;

/// The longest latency the histogram tells apart.
const LATENCY_MAX_MICROS: u64 = 120_000_000;
/// Decimal digits the histogram keeps.
const LATENCY_DIGITS: u8 = 3;
const MICROS_PER_SECOND: f64 = 1_000_000.0;

/// Latencies in microseconds.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    pub fn new() -> Result<Self, BenchError> {
        Histogram::new_with_bounds(1, LATENCY_MAX_MICROS, LATENCY_DIGITS)
            .map(Self)
            .map_err(|error| BenchError::Check(format!("no histogram: {error}")))
    }

    /// Takes one in; what is longer than the histogram reaches counts as its longest.
    pub fn record(&mut self, micros: u64) {
        self.0.saturating_record(micros.max(1));
    }

    /// The latency that `share` (0 to 1) of all stayed within, in microseconds; none without any.
    pub fn quantile_micros(&self, share: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| micros_as_f64(self.0.value_at_quantile(share)))
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people; 2^53 microseconds are 285 years")]
fn micros_as_f64(micros: u64) -> f64 {
    micros as f64
}

/// A count as a float, to divide with.
#[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^53")]
pub fn count_as_f64(count: u64) -> f64 {
    count as f64
}

/// CPU time spent while something was measured.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    /// By this process: callers, decisions, sealing, encoding.
    pub client: Duration,
    /// By PostgreSQL's processes altogether; unknown when the server is on another machine.
    pub postgres: Option<Duration>,
}

/// One measured stretch of time.
pub struct Run {
    /// Commands, transactions or rows that ended within it.
    pub operations: u64,
    /// How long it was.
    pub elapsed: Duration,
    /// Their latencies; empty for bulk work.
    pub latencies: Latencies,
    /// CPU time; none where the system does not tell.
    pub cpu: Option<Cpu>,
    /// Commands that had to be tried again.
    pub retries: u64,
}

impl Run {
    /// A run of bulk work, which has no latency per operation.
    pub fn bulk(operations: u64, elapsed: Duration, cpu: Option<Cpu>) -> Result<Self, BenchError> {
        Ok(Self { operations, elapsed, latencies: Latencies::new()?, cpu, retries: 0 })
    }

    /// Operations per second.
    pub fn rate(&self) -> f64 {
        count_as_f64(self.operations) / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Several runs of the same thing, spread over the whole measurement.
#[derive(Clone, Serialize)]
pub struct Scenario {
    /// The stable name machines look for.
    pub name: String,
    /// What it is, for people.
    pub what: String,
    /// Concurrent callers.
    pub callers: usize,
    /// Connections they share, where that is a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// What one operation is: `command`, `transaction`, `event`, `row`.
    pub unit: &'static str,
    /// Operations per second: the median of the runs.
    pub per_second: f64,
    /// Events (or rows) per second: the median of the runs.
    pub events_per_second: f64,
    /// Median latency in microseconds, median of the runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_micros: Option<f64>,
    /// 99th percentile in microseconds, median of the runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_micros: Option<f64>,
    /// CPU microseconds per event spent by the client process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cpu_micros_per_event: Option<f64>,
    /// CPU microseconds per event spent by PostgreSQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres_cpu_micros_per_event: Option<f64>,
    /// Operations that had to be tried again, over all runs.
    pub retries: u64,
    /// Operations over all runs.
    pub operations: u64,
    /// Operations per second of each run, in the order they were made.
    pub runs_per_second: Vec<f64>,
}

/// What a scenario is called, and how its operations count.
#[derive(Clone, Debug)]
pub struct Label {
    /// See [`Scenario::name`].
    pub name: &'static str,
    /// See [`Scenario::what`].
    pub what: String,
    /// See [`Scenario::callers`].
    pub callers: usize,
    /// See [`Scenario::connections`].
    pub connections: Option<u32>,
    /// See [`Scenario::unit`].
    pub unit: &'static str,
    /// Events (or rows) in one operation.
    pub events_per_operation: u32,
}

impl Scenario {
    /// The medians of some runs.
    pub fn of(label: Label, runs: &[Run]) -> Self {
        let per_operation = f64::from(label.events_per_operation);
        let events = |run: &Run| (count_as_f64(run.operations) * per_operation).max(1.0);
        let rates: Vec<f64> = runs.iter().map(Run::rate).collect();
        let per_second = median(&rates).unwrap_or_default();
        let quantile = |share| median_of(runs, |run| run.latencies.quantile_micros(share));
        let cpu_share = |cpu: Duration, run: &Run| cpu.as_secs_f64() * MICROS_PER_SECOND / events(run);
        Self {
            name: label.name.to_owned(),
            what: label.what,
            callers: label.callers,
            connections: label.connections,
            unit: label.unit,
            per_second,
            events_per_second: per_second * per_operation,
            p50_micros: quantile(0.5),
            p99_micros: quantile(0.99),
            client_cpu_micros_per_event: median_of(runs, |run| run.cpu.map(|cpu| cpu_share(cpu.client, run))),
            postgres_cpu_micros_per_event: median_of(runs, |run| {
                run.cpu.and_then(|cpu| cpu.postgres).map(|cpu| cpu_share(cpu, run))
            }),
            retries: runs.iter().map(|run| run.retries).sum(),
            operations: runs.iter().map(|run| run.operations).sum(),
            runs_per_second: rates,
        }
    }
}

fn median_of(runs: &[Run], figure: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
    let figures: Vec<f64> = runs.iter().filter_map(figure).collect();
    median(&figures)
}

/// The middle one, or the mean of the two in the middle; none of none.
pub fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get((sorted.len() / 2).checked_sub(1)?)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Cpu, Label, Latencies, Run, Scenario, median};

    #[test]
    fn the_median_of_an_even_count_lies_between_the_two_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[1.0, 100.0, 3.0, 5.0]), Some(4.0));
    }

    #[test]
    fn a_scenario_counts_events_and_cpu_per_event() {
        let mut latencies = Latencies::new().unwrap();
        for micros in 1..=100 {
            latencies.record(micros * 10);
        }
        let run = Run {
            operations: 1_000,
            elapsed: Duration::from_millis(500),
            latencies,
            cpu: Some(Cpu { client: Duration::from_millis(20), postgres: Some(Duration::from_millis(60)) }),
            retries: 3,
        };
        let label = Label {
            name: "charge",
            what: "a charge".to_owned(),
            callers: 8,
            connections: None,
            unit: "command",
            events_per_operation: 2,
        };
        let scenario = Scenario::of(label, &[run]);
        assert!((scenario.per_second - 2_000.0).abs() < 1e-6);
        assert!((scenario.events_per_second - 4_000.0).abs() < 1e-6);
        assert!((scenario.client_cpu_micros_per_event.unwrap() - 10.0).abs() < 1e-6);
        assert!((scenario.postgres_cpu_micros_per_event.unwrap() - 30.0).abs() < 1e-6);
        assert!((scenario.p50_micros.unwrap() - 500.0).abs() <= 1.0);
        assert!((scenario.p99_micros.unwrap() - 990.0).abs() <= 1.0);
        assert_eq!(scenario.retries, 3);
    }

    #[test]
    fn bulk_work_has_no_latency() {
        let run = Run::bulk(10, Duration::from_secs(1), None).unwrap();
        assert_eq!(run.latencies.quantile_micros(0.5), None);
    }
}
