//! What came out, and what was promised.

use std::io::Write;

use serde::Serialize;

use crate::error::BenchError;
use crate::machine::Machine;
use crate::report::{Published, header};

const MICROS_PER_MILLI: f64 = 1_000.0;

/// An answer at any time takes at most this.
const AS_OF_P99_MAX_MILLIS: f64 = 50.0;
/// Checking the chain, and exporting the book, go at least this fast.
const PER_SECOND_MIN: f64 = 200_000.0;
/// And within this memory.
const PEAK_MAX_MIB: f64 = 200.0;
/// A rebuild reaches this share of a load of the same rows.
const OF_COPY_MIN: f64 = 0.5;

/// How one kind of question was answered.
#[derive(Clone, Debug, Serialize)]
pub struct Answered {
    /// The name machines look for.
    pub name: &'static str,
    /// For people.
    pub what: &'static str,
    /// How often it was asked.
    pub asked: u32,
    /// The median.
    pub p50_micros: f64,
    /// What one in a hundred was slower than.
    pub p99_micros: f64,
    /// The slowest.
    pub slowest_micros: f64,
}

/// A piece of bulk work.
#[derive(Clone, Debug, Serialize)]
pub struct Bulk {
    /// The name machines look for.
    pub name: String,
    /// For people.
    pub what: String,
    /// What is counted: `event`, `entry`, `row`.
    pub unit: &'static str,
    /// How many there were.
    pub count: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// Of them, each second.
    pub per_second: f64,
    /// The most memory its process held, in MiB; none where that is not asked or not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_mib: Option<u64>,
    /// Processor time of CALOS for each, in microseconds; none where it is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_micros: Option<f64>,
    /// Processor time of PostgreSQL for each, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres_cpu_micros: Option<f64>,
    /// Bytes it printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// A promise, and whether it was kept.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The name machines look for.
    pub name: String,
    /// What was measured.
    pub measured: f64,
    /// What was promised.
    pub target: f64,
    /// In which unit.
    pub unit: &'static str,
    /// Whether the target is the least or the most.
    pub at_least: bool,
    /// Whether it was reached.
    pub reached: bool,
}

impl Verdict {
    fn least(name: impl Into<String>, measured: f64, target: f64, unit: &'static str) -> Self {
        Self { name: name.into(), measured, target, unit, at_least: true, reached: measured >= target }
    }

    fn most(name: impl Into<String>, measured: f64, target: f64, unit: &'static str) -> Self {
        Self { name: name.into(), measured, target, unit, at_least: false, reached: measured < target }
    }
}

/// Everything that came out.
#[derive(Serialize)]
pub struct LedgerReport {
    /// `ledger`.
    pub measurement: &'static str,
    /// Whether it was a quick one.
    pub quick: bool,
    /// Seconds it took altogether.
    pub took_seconds: f64,
    /// What it was measured on.
    pub machine: Machine,
    /// Events in the log.
    pub events: u64,
    /// Entries in the book.
    pub entries: u64,
    /// Events in the ten minutes of the burst.
    pub burst_events: u64,
    /// Tenants.
    pub tenants: usize,
    /// Questions as of a moment.
    pub answered: Vec<Answered>,
    /// Bulk work.
    pub bulk: Vec<Bulk>,
    /// What was promised.
    pub verdicts: Vec<Verdict>,
}

/// Holds what was measured against what was promised.
pub fn verdicts(answered: &[Answered], bulk: &[Bulk]) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = answered
        .iter()
        .map(|answered| {
            let p99 = answered.p99_micros / MICROS_PER_MILLI;
            Verdict::most(format!("as_of_{}_p99", answered.name), p99, AS_OF_P99_MAX_MILLIS, "ms")
        })
        .collect();
    for tool in bulk.iter().filter(|bulk| bulk.peak_mib.is_some()) {
        verdicts.push(Verdict::least(format!("{}_per_second", tool.name), tool.per_second, PER_SECOND_MIN, "a second"));
        if let Some(peak) = tool.peak_mib {
            let peak = crate::stats::count_as_f64(peak);
            verdicts.push(Verdict::most(format!("{}_peak", tool.name), peak, PEAK_MAX_MIB, "MiB"));
        }
    }
    let seconds =
        |name: &str| bulk.iter().find(|bulk| bulk.name == name).map(|bulk| bulk.seconds.max(f64::MIN_POSITIVE));
    for (name, ours, baseline) in [
        ("journal_and_usage_vs_copy_in", "rebuild_journal_and_usage", "copy_in_journal_and_usage"),
        ("sums_vs_copy_in", "rebuild_sums", "copy_in_sums"),
    ] {
        if let (Some(ours), Some(baseline)) = (seconds(ours), seconds(baseline)) {
            verdicts.push(Verdict::least(name, baseline / ours, OF_COPY_MIN, "of COPY"));
        }
    }
    verdicts
}

impl Published for LedgerReport {
    fn write_text(&self, out: &mut impl Write) -> Result<(), BenchError> {
        let Self { machine, events, entries, burst_events, tenants, .. } = self;
        let length = if self.quick { "quick, " } else { "" };
        writeln!(out, "calos-bench ledger ({length}{} build)", machine.build)?;
        let cpu = machine.cpu.as_deref().unwrap_or("unknown processor");
        writeln!(out, "{} cores ({cpu}), {}", machine.cores, machine.kernel)?;
        writeln!(out, "{}", machine.postgres)?;
        writeln!(
            out,
            "{events} events and {entries} entries of {tenants} tenants in a year; {burst_events} events in ten minutes of it"
        )?;
        header(out, &["as of a moment", "asked", "p50 ms", "p99 ms", "slowest ms"])?;
        for answered in &self.answered {
            let Answered { what, asked, .. } = answered;
            let [p50, p99, slowest] = [answered.p50_micros, answered.p99_micros, answered.slowest_micros]
                .map(|micros| format!("{:.1}", micros / MICROS_PER_MILLI));
            writeln!(out, "| {what} | {asked} | {p50} | {p99} | {slowest} |")?;
        }
        header(
            out,
            &["bulk", "count", "seconds", "per second", "CPU µs: CALOS", "PostgreSQL", "peak MiB", "MB printed"],
        )?;
        for bulk in &self.bulk {
            const MEGABYTE: u64 = 1_000_000;
            let Bulk { what, unit, count, seconds, per_second, peak_mib, bytes, .. } = bulk;
            let [ours, postgres] = [bulk.cpu_micros, bulk.postgres_cpu_micros]
                .map(|micros| micros.map_or_else(String::new, |micros| format!("{micros:.1}")));
            let peak = peak_mib.map_or_else(String::new, |peak| peak.to_string());
            let bytes = bytes.map_or_else(String::new, |bytes| (bytes / MEGABYTE).to_string());
            writeln!(
                out,
                "| {what} | {count} {unit} | {seconds:.1} | {per_second:.0} | {ours} | {postgres} | {peak} | {bytes} |"
            )?;
        }
        header(out, &["promised", "measured", "target", "unit", "reached"])?;
        for verdict in &self.verdicts {
            let Verdict { name, measured, target, unit, at_least, reached } = verdict;
            let sign = if *at_least { "≥" } else { "<" };
            let reached = if *reached { "yes" } else { "NO" };
            let digits = if *target < 1.0 { 2 } else { 0 };
            writeln!(out, "| `{name}` | {measured:.digits$} | {sign} {target} | {unit} | {reached} |")?;
        }
        writeln!(out, "\nTook {:.0} s.", self.took_seconds)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_kept_only_on_its_own_side_of_the_target() {
        let answered =
            Answered { name: "x", what: "x", asked: 1, p50_micros: 1.0, p99_micros: 50_000.0, slowest_micros: 1.0 };
        let bulk = |name: &str, per_second, peak_mib, seconds| Bulk {
            name: name.to_owned(),
            what: String::new(),
            unit: "event",
            count: 1,
            seconds,
            per_second,
            peak_mib,
            cpu_micros: None,
            postgres_cpu_micros: None,
            bytes: None,
        };
        let bulk = [
            bulk("verify_chain", 200_000.0, Some(200), 1.0),
            bulk("rebuild_sums", 1.0, None, 4.0),
            bulk("copy_in_sums", 1.0, None, 2.0),
        ];
        let reached: Vec<_> =
            verdicts(&[answered], &bulk).into_iter().map(|verdict| (verdict.name, verdict.reached)).collect();
        let expected = [
            ("as_of_x_p99", false),
            ("verify_chain_per_second", true),
            ("verify_chain_peak", false),
            ("sums_vs_copy_in", true),
        ];
        assert_eq!(reached, expected.map(|(name, reached)| (name.to_owned(), reached)));
    }
}
