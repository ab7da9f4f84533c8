//! What came out: Markdown for people, one JSON document for machines. A missed figure is reported, never a failure.

use std::io::Write;

use serde::Serialize;

use super::figures::{CaseFigures, Figures, Quantiles, Way};
use super::watching::WatchedFigures;
use crate::error::BenchError;
use crate::machine::Machine;
use crate::report::Published;
use crate::stats::median;

const MICROS_PER_MILLI: f64 = 1_000.0;

/// What one caller may be made to wait beside two commits, in microseconds.
const ONE_CALLER_BESIDE_COMMITS_MICROS: f64 = 400.0;
/// Durable commits one call waits for at the most: the hold's and the settlement's.
const COMMITS_PER_CALL: f64 = 2.0;
const OPEN_ADDED_P50_MICROS: f64 = 1_500.0;
const OPEN_ADDED_P99_MICROS: f64 = 8_000.0;
const CALLS_MIN_PER_SECOND: f64 = 4_000.0;
const CPU_MAX_MILLIS_PER_CALL: f64 = 0.3;
const FIRST_TOKEN_ADDED_P50_MICROS: f64 = 1_000.0;
const HEALTH_P99_MICROS: f64 = 10_000.0;

/// Memory of CALOS's server, in MiB.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Memory {
    /// When it was ready, before any load.
    pub ready_mib: Option<u64>,
    /// After each case, in order.
    pub after_mib: Vec<(&'static str, Option<u64>)>,
    /// The most at any time.
    pub peak_mib: Option<u64>,
}

/// A figure that was promised.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The name machines look for.
    pub name: &'static str,
    /// For people.
    pub what: &'static str,
    /// What was measured.
    pub measured: f64,
    /// What was promised.
    pub target: f64,
    /// In what.
    pub unit: &'static str,
    /// Whether more than the target is good, rather than less.
    pub at_least: bool,
    /// Whether it is kept.
    pub reached: bool,
}

/// Everything that came out.
#[derive(Serialize)]
pub struct GatewayReport {
    /// Always `gateway`.
    pub measurement: &'static str,
    /// Whether windows were short.
    pub quick: bool,
    /// Seconds it took altogether.
    pub took_seconds: f64,
    /// What it was measured on.
    pub machine: Machine,
    /// One durable commit over one connection, in the same run.
    pub commit_p50_micros: Option<f64>,
    /// What was run.
    pub cases: Vec<CaseFigures>,
    /// What was promised.
    pub verdicts: Vec<Verdict>,
    /// Memory of the server.
    pub memory: Memory,
    /// How long `/health` and `/metrics` took beside the callers of all cases.
    pub watched: Option<WatchedFigures>,
}

impl GatewayReport {
    /// Draws the figures together.
    pub fn new(
        machine: Machine,
        quick: bool,
        took_seconds: f64,
        commits: &[f64],
        figures: &[Figures],
        memory: Memory,
        watched: Option<WatchedFigures>,
    ) -> Self {
        let cases: Vec<CaseFigures> = figures.iter().map(Figures::medians).collect();
        let commit_p50_micros = median(commits);
        let verdicts = verdicts(&cases, commit_p50_micros, watched.as_ref());
        let measurement = "gateway";
        Self { measurement, quick, took_seconds, machine, commit_p50_micros, cases, verdicts, memory, watched }
    }
}

impl Published for GatewayReport {
    fn write_text(&self, out: &mut impl Write) -> Result<(), BenchError> {
        let machine = &self.machine;
        let length = if self.quick { "quick, " } else { "" };
        writeln!(out, "## `calos-bench gateway` ({length}{} build)\n", machine.build)?;
        let cpu = machine.cpu.as_deref().unwrap_or("unknown processor");
        writeln!(out, "{} cores ({cpu}), {}, {}.", machine.cores, machine.kernel, machine.postgres)?;
        writeln!(out, "Simulated provider, floor, CALOS, PostgreSQL and callers share the cores. Times in ms.")?;
        if let Some(commit) = self.commit_p50_micros {
            writeln!(out, "One durable commit over one connection takes {} ms at p50.", millis(commit))?;
        }
        self.write_cases(out)?;
        if self.cases.iter().any(|case| case.ways.iter().any(|way| way.first_token_micros.is_some())) {
            self.write_streams(out)?;
        }
        self.write_verdicts(out)?;
        if let Some(watched) = &self.watched {
            let ([h50, h90, h99], [m50, m90, m99]) =
                (cells(Some(watched.health_micros)), cells(Some(watched.metrics_micros)));
            writeln!(
                out,
                "\nBeside the callers: `/health` p50 {h50}, p90 {h90}, p99 {h99}; `/metrics` p50 {m50}, p90 {m90}, p99 {m99}."
            )?;
            write_header(out, &["`/health` beside", "p50", "p90", "p99"])?;
            for (case, health) in &watched.health_by_case_micros {
                writeln!(out, "| {case} | {} |", cells(Some(*health)).join(" | "))?;
            }
        }
        let after: Vec<String> =
            self.memory.after_mib.iter().map(|(name, mib)| format!("{name} {}", whole(*mib))).collect();
        writeln!(
            out,
            "\nMemory of CALOS's server in MiB: {} when ready, after each case: {}; {} at the most.",
            whole(self.memory.ready_mib),
            after.join(", "),
            whole(self.memory.peak_mib)
        )?;
        for (case, way) in self.cases.iter().flat_map(|case| case.ways.iter().map(move |way| (case, way))) {
            if let Some(why) = &way.first_failure {
                writeln!(out, "{} calls of {}, {}, failed; the first: {why}", way.failed, case.name, way.target)?;
            }
        }
        writeln!(out, "Took {:.0} s.", self.took_seconds)?;
        Ok(())
    }
}

impl GatewayReport {
    fn write_cases(&self, out: &mut impl Write) -> Result<(), BenchError> {
        let header = [
            "case",
            "callers",
            "way",
            "calls/s",
            "p50",
            "p90",
            "p99",
            "added p50",
            "added p90",
            "added p99",
            "CPU/call: proxy",
            "PostgreSQL",
            "provider",
            "callers",
            "CALOS + PostgreSQL until read",
        ];
        write_header(out, &header)?;
        for (case, way) in self.cases.iter().flat_map(|case| case.ways.iter().map(move |way| (case, way))) {
            let callers = case.callers.map_or_else(|| "open".to_owned(), |callers| callers.to_string());
            let [p50, p90, p99] = cells(Some(way.whole_micros));
            let [added_p50, added_p90, added_p99] = cells(way.added_micros);
            let cpu = way.cpu;
            let row = [
                case.name.to_owned(),
                callers,
                way.target.to_owned(),
                format!("{:.0}", way.per_second),
                p50,
                p90,
                p99,
                added_p50,
                added_p90,
                added_p99,
                small(cpu.proxy_ms),
                small(cpu.postgres_ms),
                small(cpu.provider_ms),
                small(cpu.callers_ms),
                small(cpu.until_read_ms),
            ];
            writeln!(out, "| {} |", row.join(" | "))?;
        }
        Ok(())
    }

    fn write_streams(&self, out: &mut impl Write) -> Result<(), BenchError> {
        let header = [
            "stream",
            "callers",
            "way",
            "first token p50",
            "p90",
            "p99",
            "added p50",
            "added p90",
            "added p99",
            "between tokens p50",
            "p90",
            "p99",
        ];
        write_header(out, &header)?;
        for (case, way) in self.cases.iter().flat_map(|case| case.ways.iter().map(move |way| (case, way))) {
            let Some(first) = way.first_token_micros else { continue };
            let callers = case.callers.map_or_else(|| "open".to_owned(), |callers| callers.to_string());
            let mut row = vec![case.name.to_owned(), callers, way.target.to_owned()];
            for quantiles in [Some(first), way.first_token_added_micros, way.gap_micros] {
                row.extend(cells(quantiles));
            }
            writeln!(out, "| {} |", row.join(" | "))?;
        }
        Ok(())
    }

    fn write_verdicts(&self, out: &mut impl Write) -> Result<(), BenchError> {
        write_header(out, &["promised", "measured", "target", "unit", "reached"])?;
        for verdict in &self.verdicts {
            let sign = if verdict.at_least { "≥" } else { "≤" };
            let reached = if verdict.reached { "yes" } else { "NO" };
            let digits = if verdict.at_least { 0 } else { 3 };
            writeln!(
                out,
                "| `{}`: {} | {:.digits$} | {sign} {:.digits$} | {} | {reached} |",
                verdict.name, verdict.what, verdict.measured, verdict.target, verdict.unit
            )?;
        }
        Ok(())
    }
}

fn verdicts(cases: &[CaseFigures], commit_p50_micros: Option<f64>, watched: Option<&WatchedFigures>) -> Vec<Verdict> {
    let way = |name: &str| cases.iter().find(|case| case.name == name).and_then(CaseFigures::calos);
    let added = |name: &str| way(name).and_then(|way| way.added_micros);
    let first = |name: &str| way(name).and_then(|way| way.first_token_added_micros);
    let at_most = |name, what, micros: Option<f64>, target: f64| {
        let (measured, target) = (micros? / MICROS_PER_MILLI, target / MICROS_PER_MILLI);
        Some(Verdict { name, what, measured, target, unit: "ms", at_least: false, reached: measured <= target })
    };
    let one_caller = commit_p50_micros.and_then(|commit| {
        let target = commit * COMMITS_PER_CALL + ONE_CALLER_BESIDE_COMMITS_MICROS;
        at_most("one_caller_added_p50", "one caller, two commits and 0.4 ms", added("plain_1").map(|q| q.p50), target)
    });
    let busy = way("plain_64");
    let calls = busy.map(|way: &Way| Verdict {
        name: "callers_64_per_second",
        what: "64 callers",
        measured: way.per_second,
        target: CALLS_MIN_PER_SECOND,
        unit: "calls/s",
        at_least: true,
        reached: way.per_second >= CALLS_MIN_PER_SECOND,
    });
    let cpu = busy.and_then(|way| way.cpu.until_read_ms).map(|measured| Verdict {
        name: "callers_64_cpu_per_call",
        what: "64 callers, CPU of CALOS and PostgreSQL per call, read models included",
        measured,
        target: CPU_MAX_MILLIS_PER_CALL,
        unit: "ms",
        at_least: false,
        reached: measured <= CPU_MAX_MILLIS_PER_CALL,
    });
    let open = added("open_500");
    [
        one_caller,
        at_most("open_500_added_p50", "500 a second", open.map(|q| q.p50), OPEN_ADDED_P50_MICROS),
        at_most("open_500_added_p99", "500 a second", open.map(|q| q.p99), OPEN_ADDED_P99_MICROS),
        calls,
        cpu,
        at_most(
            "stream_1_first_token_p50",
            "one stream, first token",
            first("stream_1").map(|q| q.p50),
            FIRST_TOKEN_ADDED_P50_MICROS,
        ),
        at_most(
            "stream_50_first_token_p50",
            "50 streams, first token",
            first("stream_50").map(|q| q.p50),
            FIRST_TOKEN_ADDED_P50_MICROS,
        ),
        at_most(
            "health_p99_ms",
            "GET /health beside the callers of all cases",
            watched.map(|watched| watched.health_micros.p99),
            HEALTH_P99_MICROS,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn write_header(out: &mut impl Write, columns: &[&str]) -> Result<(), BenchError> {
    writeln!(out, "\n| {} |", columns.join(" | "))?;
    writeln!(out, "|{}", "---|".repeat(columns.len()))?;
    Ok(())
}

fn cells(quantiles: Option<Quantiles>) -> [String; 3] {
    quantiles.map_or_else(|| [const { String::new() }; 3], |q| [millis(q.p50), millis(q.p90), millis(q.p99)])
}

fn millis(micros: f64) -> String {
    format!("{:.3}", micros / MICROS_PER_MILLI)
}

fn small(millis: Option<f64>) -> String {
    millis.map_or_else(String::new, |millis| format!("{millis:.4}"))
}

fn whole(value: Option<u64>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}
