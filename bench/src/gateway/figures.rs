//! Figures of one case: medians over rounds, and what CALOS and the floor add to the direct way in the same round.

use std::time::Duration;

use serde::Serialize;

use super::load::{Arrival, Seen};
use super::reading::CpuReadings;
use super::{Case, Target};
use crate::stats::{Latencies, count_as_f64, median};

const MILLIS_PER_SECOND: f64 = 1_000.0;

/// One span of one target.
pub struct Measurement {
    /// What the callers saw.
    pub seen: Seen,
    /// How long it was.
    pub elapsed: Duration,
    /// CPU time within it.
    pub cpu: CpuReadings,
    /// CPU time from its beginning until the read models had seen all of it.
    pub settled: Option<CpuReadings>,
}

impl Measurement {
    /// Calls per second.
    pub fn per_second(&self) -> f64 {
        count_as_f64(self.seen.calls) / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn cpu_millis(&self, of: impl Fn(&CpuReadings) -> Option<Duration>) -> Option<f64> {
        let calls = count_as_f64(self.seen.calls.max(1));
        of(&self.cpu).map(|cpu| cpu.as_secs_f64() * MILLIS_PER_SECOND / calls)
    }

    fn settled_cpu_millis(&self) -> Option<f64> {
        let settled = self.settled.as_ref()?;
        let cpu = settled.calos? + settled.postgres?;
        Some(cpu.as_secs_f64() * MILLIS_PER_SECOND / count_as_f64(self.seen.calls_since_begin.max(1)))
    }
}

/// All rounds of one case.
pub struct Figures {
    /// Which.
    pub case: Case,
    direct: Vec<Measurement>,
    floor: Vec<Measurement>,
    calos: Vec<Measurement>,
}

/// Three quantiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    /// The median.
    pub p50: f64,
    /// Nine of ten stay within.
    pub p90: f64,
    /// All but one of a hundred stay within.
    pub p99: f64,
}

/// CPU milliseconds per call.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CpuPerCall {
    /// The proxy's own: CALOS's server, or the floor.
    pub proxy_ms: Option<f64>,
    /// PostgreSQL's.
    pub postgres_ms: Option<f64>,
    /// The simulated provider's.
    pub provider_ms: Option<f64>,
    /// The callers'.
    pub callers_ms: Option<f64>,
    /// CALOS and PostgreSQL together, until the read models had seen every call.
    pub until_read_ms: Option<f64>,
}

/// One target in one case.
#[derive(Clone, Debug, Serialize)]
pub struct Way {
    /// `direct`, `floor` or `CALOS`.
    pub target: &'static str,
    /// Calls per second.
    pub per_second: f64,
    /// Until the whole answer was there.
    pub whole_micros: Quantiles,
    /// What that is more than direct.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub added_micros: Option<Quantiles>,
    /// Until the first token of a stream was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_micros: Option<Quantiles>,
    /// What that is more than direct.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_added_micros: Option<Quantiles>,
    /// Between the tokens of a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_micros: Option<Quantiles>,
    /// Who spent what.
    pub cpu: CpuPerCall,
    /// Calls measured, over all rounds.
    pub calls: u64,
    /// Calls that failed, over all rounds.
    pub failed: u64,
    /// Why the first of them did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_failure: Option<String>,
}

/// One case, all ways.
#[derive(Clone, Debug, Serialize)]
pub struct CaseFigures {
    /// The name machines look for.
    pub name: &'static str,
    /// For people.
    pub what: &'static str,
    /// Callers of a closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callers: Option<usize>,
    /// Calls a second of an open one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrivals_per_second: Option<f64>,
    /// Direct, the floor, CALOS.
    pub ways: Vec<Way>,
}

impl CaseFigures {
    /// CALOS's figures.
    pub fn calos(&self) -> Option<&Way> {
        self.ways.iter().find(|way| way.target == Target::Calos.name())
    }
}

impl Figures {
    /// None yet.
    pub fn new(case: Case) -> Self {
        Self { case, direct: Vec::new(), floor: Vec::new(), calos: Vec::new() }
    }

    /// Takes a round in.
    pub fn add(&mut self, target: Target, measurement: Measurement) {
        match target {
            Target::Direct => self.direct.push(measurement),
            Target::Floor => self.floor.push(measurement),
            Target::Calos => self.calos.push(measurement),
        }
    }

    /// The medians.
    pub fn medians(&self) -> CaseFigures {
        let (callers, arrivals_per_second) = match self.case.arrival {
            Arrival::Closed(callers) => (Some(callers), None),
            Arrival::Open(per_second) => (None, Some(per_second)),
        };
        let ways = Target::ALL.into_iter().filter_map(|target| self.way(target)).collect();
        CaseFigures { name: self.case.name, what: self.case.what, callers, arrivals_per_second, ways }
    }

    fn way(&self, target: Target) -> Option<Way> {
        let rounds = match target {
            Target::Direct => &self.direct,
            Target::Floor => &self.floor,
            Target::Calos => &self.calos,
        };
        let whole = |round: &Measurement| quantiles(&round.seen.whole);
        let first = |round: &Measurement| quantiles(&round.seen.first_token);
        let added = |of: &dyn Fn(&Measurement) -> Option<Quantiles>| {
            let rounds = rounds.iter().zip(&self.direct).filter(|_| target != Target::Direct);
            middle(rounds.filter_map(|(way, direct)| Some(minus(of(way)?, of(direct)?))).collect())
        };
        let cpu = |of: &dyn Fn(&CpuReadings) -> Option<Duration>| {
            median(&rounds.iter().filter_map(|round| round.cpu_millis(of)).collect::<Vec<_>>())
        };
        Some(Way {
            target: target.name(),
            per_second: median(&rounds.iter().map(Measurement::per_second).collect::<Vec<_>>())?,
            whole_micros: middle(rounds.iter().filter_map(whole).collect())?,
            added_micros: added(&whole),
            first_token_micros: middle(rounds.iter().filter_map(first).collect()),
            first_token_added_micros: added(&first),
            gap_micros: middle(rounds.iter().filter_map(|round| quantiles(&round.seen.gaps)).collect()),
            cpu: CpuPerCall {
                proxy_ms: match target {
                    Target::Direct => None,
                    Target::Floor => cpu(&|cpu| cpu.floor),
                    Target::Calos => cpu(&|cpu| cpu.calos),
                },
                postgres_ms: if target == Target::Calos { cpu(&|cpu| cpu.postgres) } else { None },
                provider_ms: cpu(&|cpu| cpu.provider),
                callers_ms: cpu(&|cpu| cpu.callers),
                until_read_ms: median(&rounds.iter().filter_map(Measurement::settled_cpu_millis).collect::<Vec<_>>()),
            },
            calls: rounds.iter().map(|round| round.seen.calls).sum(),
            failed: rounds.iter().map(|round| round.seen.failed).sum(),
            first_failure: rounds.iter().find_map(|round| round.seen.first_failure.clone()),
        })
    }
}

/// The quantiles of some latencies; none without any.
pub fn quantiles(latencies: &Latencies) -> Option<Quantiles> {
    Some(Quantiles {
        p50: latencies.quantile_micros(0.5)?,
        p90: latencies.quantile_micros(0.9)?,
        p99: latencies.quantile_micros(0.99)?,
    })
}

fn minus(way: Quantiles, direct: Quantiles) -> Quantiles {
    Quantiles { p50: way.p50 - direct.p50, p90: way.p90 - direct.p90, p99: way.p99 - direct.p99 }
}

/// Each quantile's median over rounds.
#[expect(clippy::needless_pass_by_value, reason = "made for this call alone")]
fn middle(rounds: Vec<Quantiles>) -> Option<Quantiles> {
    let of = |figure: fn(&Quantiles) -> f64| median(&rounds.iter().map(figure).collect::<Vec<_>>());
    Some(Quantiles { p50: of(|q| q.p50)?, p90: of(|q| q.p90)?, p99: of(|q| q.p99)? })
}
