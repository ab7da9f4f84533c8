//! What came out, and what was promised.

use std::io::Write;

use serde::Serialize;

use super::{Foretold, per_second};
use crate::error::BenchError;
use crate::machine::Machine;
use crate::report::{Published, header};
use crate::stats::{Cpu, Run, Scenario, median};

const MICROS_PER_MILLI: f64 = 1_000.0;

/// Callers notice a rebuild by this factor at most, at the 99th percentile.
const P99_RATIO_MAX: f64 = 2.0;
/// What is said of the time a rebuild takes is this far from it at most, in percent.
const FORETOLD_ERROR_MAX_PERCENT: f64 = 10.0;

/// One rebuild, and the same load without it.
#[derive(Serialize)]
pub struct Round {
    /// Seconds the rebuild took.
    pub rebuild_seconds: f64,
    /// Events it read each second, altogether.
    pub rebuild_events_per_second: f64,
    /// Latencies with nothing else going on, in milliseconds.
    pub without: Noticed,
    /// Latencies during the rebuild.
    pub during: Noticed,
    /// Rows in which the rebuilt versions differed from the live ones.
    pub parity_differences: u64,
    /// Events that the rebuilt versions could not take.
    pub dead_letters: i64,
    /// What was said of the time it would take.
    pub foretold: Vec<Foretold>,
    /// What callers noticed of each kind of step.
    pub steps: Vec<StepNoticed>,
    #[serde(skip)]
    runs: Option<(Run, Run)>,
}

/// What callers noticed.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Noticed {
    /// Calls each second.
    pub per_second: f64,
    /// The median.
    pub p50_millis: f64,
    /// What one in a hundred was slower than.
    pub p99_millis: f64,
    /// The slowest.
    pub slowest_millis: f64,
    /// Processors' time that went by in a second: of this process, callers and tool together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cores: Option<f64>,
    /// Of PostgreSQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres_cores: Option<f64>,
}

/// What callers noticed of one kind of step of a rebuild.
#[derive(Clone, Debug, Serialize)]
pub struct StepNoticed {
    /// Its name.
    pub step: String,
    /// How long it took, all of them together.
    pub seconds: f64,
    /// What callers noticed.
    #[serde(flatten)]
    pub noticed: Noticed,
}

impl Noticed {
    /// From the calls of a stretch of time.
    pub fn of(run: &Run) -> Self {
        let millis = |share| run.latencies.quantile_micros(share).unwrap_or_default() / MICROS_PER_MILLI;
        let seconds = run.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        let cores = |of: &dyn Fn(Cpu) -> Option<std::time::Duration>| {
            run.cpu.and_then(of).map(|spent| spent.as_secs_f64() / seconds)
        };
        Self {
            per_second: run.rate(),
            p50_millis: millis(0.5),
            p99_millis: millis(0.99),
            slowest_millis: millis(1.0),
            client_cores: cores(&|cpu| Some(cpu.client)),
            postgres_cores: cores(&|cpu| cpu.postgres),
        }
    }
}

impl Round {
    /// From what was measured.
    pub fn new(
        without: Run,
        during: Run,
        rebuild: &Run,
        parity_differences: u64,
        dead_letters: i64,
        foretold: Vec<Foretold>,
        steps: Vec<StepNoticed>,
    ) -> Self {
        let rebuild_seconds = rebuild.elapsed.as_secs_f64();
        Self {
            rebuild_seconds,
            rebuild_events_per_second: per_second(rebuild.operations, rebuild_seconds),
            without: Noticed::of(&without),
            during: Noticed::of(&during),
            parity_differences,
            dead_letters,
            foretold,
            steps,
            runs: Some((without, during)),
        }
    }

    /// The two runs, once.
    pub fn runs(&mut self) -> Option<(Run, Run)> {
        self.runs.take()
    }

    /// By which factor callers noticed the rebuild at the 99th percentile.
    fn p99_ratio(&self) -> f64 {
        self.during.p99_millis / self.without.p99_millis.max(f64::MIN_POSITIVE)
    }

    fn p50_ratio(&self) -> f64 {
        self.during.p50_millis / self.without.p50_millis.max(f64::MIN_POSITIVE)
    }

    /// One line.
    pub fn said(&self) -> String {
        let (Noticed { p99_millis: quiet, .. }, Noticed { p99_millis: loud, .. }) = (self.without, self.during);
        format!(
            "a rebuild of {:.1} s at {:.0} events/s: p99 {quiet:.1} ms without, {loud:.1} ms during",
            self.rebuild_seconds, self.rebuild_events_per_second
        )
    }
}

/// What was found.
pub struct Found {
    /// See [`LiveReport`].
    pub quick: bool,
    /// See [`LiveReport`].
    pub took_seconds: f64,
    /// See [`LiveReport`].
    pub machine: Machine,
    /// See [`LiveReport`].
    pub preloaded: u64,
    /// See [`LiveReport`].
    pub events: u64,
    /// See [`LiveReport::paced_per_second`].
    pub per_second: f64,
    /// See [`LiveReport`].
    pub scenarios: Vec<Scenario>,
    /// See [`LiveReport`].
    pub rounds: Vec<Round>,
    /// See [`LiveReport`].
    pub events_lost: u64,
    /// See [`LiveReport`].
    pub rows_compared: u64,
    /// See [`LiveReport`].
    pub peak_mib: Option<u64>,
}

/// A promise, and whether it was kept.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The name machines look for.
    pub name: &'static str,
    /// What was measured.
    pub measured: f64,
    /// The most that was promised.
    pub at_most: f64,
    /// Whether that was kept.
    pub kept: bool,
}

impl Verdict {
    fn of(name: &'static str, measured: f64, at_most: f64) -> Self {
        Self { name, measured, at_most, kept: measured <= at_most }
    }
}

/// Everything that came out.
#[derive(Serialize)]
pub struct LiveReport {
    /// `live`.
    pub measurement: &'static str,
    /// Whether it was a quick one.
    pub quick: bool,
    /// Seconds it took altogether.
    pub took_seconds: f64,
    /// What it was measured on.
    pub machine: Machine,
    /// Events in the log before anybody called.
    pub preloaded: u64,
    /// Events in it at the end.
    pub events: u64,
    /// Calls each second by the timetable.
    pub paced_per_second: f64,
    /// The median of all rounds' factors at the 99th percentile.
    pub live_p99_ratio: f64,
    /// The same at the median.
    pub live_p50_ratio: f64,
    /// Acknowledged events that are not in the log.
    pub events_lost: u64,
    /// Rows in which a rebuilt version differed, over all rounds.
    pub parity_differences: u64,
    /// Rows that were held against a fresh fold at the end; none differed, or there would be no report.
    pub rows_compared: u64,
    /// The most memory this process held, callers and tool together, in MiB; none where it is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_mib: Option<u64>,
    /// What was run.
    pub scenarios: Vec<Scenario>,
    /// Each rebuild.
    pub rounds: Vec<Round>,
    /// What was promised.
    pub verdicts: Vec<Verdict>,
}

impl LiveReport {
    /// Holds what was measured against what was promised.
    pub fn new(found: Found) -> Self {
        let Found { rounds, .. } = &found;
        let over =
            |figure: &dyn Fn(&Round) -> f64| median(&rounds.iter().map(figure).collect::<Vec<_>>()).unwrap_or_default();
        let (live_p99_ratio, live_p50_ratio) = (over(&Round::p99_ratio), over(&Round::p50_ratio));
        let parity_differences = rounds.iter().map(|round| round.parity_differences).sum();
        let foretold = |at: u64| {
            let errors: Vec<f64> = rounds
                .iter()
                .flat_map(|round| &round.foretold)
                .filter(|foretold| foretold.at_percent == at)
                .map(|foretold| foretold.whole_error_percent)
                .collect();
            median(&errors).unwrap_or(100.0)
        };
        let verdicts = vec![
            Verdict::of("live_p99_ratio", live_p99_ratio, P99_RATIO_MAX),
            Verdict::of("events_lost", crate::stats::count_as_f64(found.events_lost), 0.0),
            Verdict::of("parity_differences", crate::stats::count_as_f64(parity_differences), 0.0),
            Verdict::of("foretold_at_10_percent", foretold(10), FORETOLD_ERROR_MAX_PERCENT),
            Verdict::of("foretold_at_50_percent", foretold(50), FORETOLD_ERROR_MAX_PERCENT),
        ];
        let Found { quick, took_seconds, machine, preloaded, events, per_second, .. } = found;
        let Found { scenarios, rounds, events_lost, rows_compared, peak_mib, .. } = found;
        Self {
            measurement: "live",
            quick,
            took_seconds,
            machine,
            preloaded,
            events,
            paced_per_second: per_second,
            live_p99_ratio,
            live_p50_ratio,
            events_lost,
            parity_differences,
            rows_compared,
            peak_mib,
            scenarios,
            rounds,
            verdicts,
        }
    }
}

impl Published for LiveReport {
    fn write_text(&self, out: &mut impl Write) -> Result<(), BenchError> {
        let Self { machine, preloaded, events, .. } = self;
        let length = if self.quick { "quick, " } else { "" };
        writeln!(out, "calos-bench live ({length}{} build)", machine.build)?;
        let cpu = machine.cpu.as_deref().unwrap_or("unknown processor");
        writeln!(out, "{} cores ({cpu}), {}", machine.cores, machine.kernel)?;
        writeln!(out, "{}", machine.postgres)?;
        writeln!(out, "{preloaded} events before anybody called, {events} at the end")?;
        header(out, &["commands", "per second", "p50 ms", "p99 ms"])?;
        for scenario in &self.scenarios {
            let [p50, p99] = [scenario.p50_micros, scenario.p99_micros]
                .map(|micros| micros.map_or_else(String::new, |micros| format!("{:.1}", micros / MICROS_PER_MILLI)));
            writeln!(out, "| {} | {:.0} | {p50} | {p99} |", scenario.what, scenario.per_second)?;
        }
        self.write_rounds(out)?;
        header(out, &["promised", "measured", "at most", "kept"])?;
        for Verdict { name, measured, at_most, kept } in &self.verdicts {
            let kept = if *kept { "yes" } else { "NO" };
            writeln!(out, "| `{name}` | {measured:.2} | {at_most} | {kept} |")?;
        }
        let peak = self.peak_mib.map_or_else(String::new, |peak| format!(" The process held {peak} MiB at the most."));
        let compared = self.rows_compared;
        writeln!(out, "\n{compared} rows were held against a fresh fold at the end; none differed.{peak}")?;
        writeln!(out, "Took {:.0} s.", self.took_seconds)?;
        Ok(())
    }

    fn missed(&self) -> Vec<&'static str> {
        self.verdicts.iter().filter(|verdict| !verdict.kept).map(|verdict| verdict.name).collect()
    }
}

impl LiveReport {
    fn write_rounds(&self, out: &mut impl Write) -> Result<(), BenchError> {
        let columns =
            ["rebuild", "seconds", "events/s", "p99 ms without", "p99 ms during", "ratio", "slowest ms", "cores"];
        header(out, &columns)?;
        for (number, round) in (1..).zip(&self.rounds) {
            let Round { rebuild_seconds, rebuild_events_per_second, without, during, .. } = round;
            let cores = during.client_cores.zip(during.postgres_cores);
            let cores = cores.map_or_else(String::new, |(ours, theirs)| format!("{ours:.2} + {theirs:.2}"));
            writeln!(
                out,
                "| {number} | {rebuild_seconds:.1} | {rebuild_events_per_second:.0} | {:.1} | {:.1} | {:.2} | {:.0} | {cores} |",
                without.p99_millis,
                during.p99_millis,
                round.p99_ratio(),
                during.slowest_millis,
            )?;
        }
        header(out, &["what it did", "seconds", "p50 ms during", "p99 ms during", "slowest ms"])?;
        for (number, round) in (1..).zip(&self.rounds) {
            for StepNoticed { step, seconds, noticed } in &round.steps {
                let Noticed { p50_millis, p99_millis, slowest_millis, .. } = noticed;
                writeln!(
                    out,
                    "| rebuild {number}, {step} | {seconds:.1} | {p50_millis:.1} | {p99_millis:.1} | {slowest_millis:.0} |"
                )?;
            }
        }
        header(out, &["said of the time left", "after s", "said s", "reading took s", "off %", "all took s", "off %"])?;
        for (number, round) in (1..).zip(&self.rounds) {
            for foretold in &round.foretold {
                let Foretold { at_percent, after_seconds, said_seconds, .. } = foretold;
                writeln!(
                    out,
                    "| rebuild {number} at {at_percent} % | {after_seconds:.1} | {said_seconds:.1} | {:.1} | {:.0} | {:.1} | {:.0} |",
                    foretold.reading_seconds,
                    foretold.reading_error_percent,
                    foretold.whole_seconds,
                    foretold.whole_error_percent,
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stats::Latencies;

    fn run(micros: &[u64]) -> Run {
        let mut latencies = Latencies::new().unwrap();
        micros.iter().for_each(|micros| latencies.record(*micros));
        let operations = u64::try_from(micros.len()).unwrap();
        Run { operations, elapsed: Duration::from_secs(1), latencies, cpu: None, retries: 0 }
    }

    #[test]
    fn a_round_says_by_which_factor_callers_noticed_it() {
        let rebuild = Run::bulk(1_000, Duration::from_secs(2), None).unwrap();
        let mut round = Round::new(run(&[2_000, 2_000]), run(&[3_000, 5_000]), &rebuild, 0, 0, Vec::new(), Vec::new());
        assert!((round.p99_ratio() - 2.5).abs() < 0.01, "{}", round.p99_ratio());
        assert!((round.rebuild_events_per_second - 500.0).abs() < 1e-9);
        assert!(round.runs().is_some() && round.runs().is_none());
        assert!(Verdict::of("x", 2.0, 2.0).kept && !Verdict::of("x", 2.1, 2.0).kept);
        assert!((super::super::percent(1.0, 4.0) - 25.0).abs() < 1e-9);
    }
}
