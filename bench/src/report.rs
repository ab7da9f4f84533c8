//! What came out: tables for people, one JSON document for machines.

use std::io::Write;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::BenchError;
use crate::machine::Machine;
use crate::stats::Scenario;

/// How many times faster CALOS is than a baseline, and what it must reach.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    /// The stable name machines look for.
    pub name: &'static str,
    /// Median of CALOS over median of the baseline.
    pub value: f64,
    /// The lowest ratio of any round.
    pub lowest: f64,
    /// The highest ratio of any round.
    pub highest: f64,
    /// What it must reach.
    pub target: f64,
    /// What it would like to reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<f64>,
    /// Whether it does.
    pub reached: bool,
}

/// What a ratio must reach.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// See [`Ratio::name`].
    pub name: &'static str,
    /// See [`Ratio::target`].
    pub target: f64,
    /// See [`Ratio::goal`].
    pub goal: Option<f64>,
}

impl Ratio {
    /// Compares events per second of two scenarios that were run in turn; an operation of one stands against an operation
    /// of the other when both carry as many events.
    pub fn between(target: Target, ours: &Scenario, baseline: &Scenario) -> Self {
        let per_operation = |scenario: &Scenario| {
            if scenario.per_second > 0.0 { scenario.events_per_second / scenario.per_second } else { 1.0 }
        };
        let scale = per_operation(ours) / per_operation(baseline);
        let rounds: Vec<f64> = ours
            .runs_per_second
            .iter()
            .zip(&baseline.runs_per_second)
            .map(|(ours, baseline)| scale * divide(*ours, *baseline))
            .collect();
        let value = divide(ours.events_per_second, baseline.events_per_second);
        Self {
            name: target.name,
            value,
            lowest: rounds.iter().copied().fold(value, f64::min),
            highest: rounds.iter().copied().fold(value, f64::max),
            target: target.target,
            goal: target.goal,
            reached: value >= target.target,
        }
    }
}

impl Ratio {
    /// One figure against another, measured once.
    pub fn single(target: Target, ours: f64, baseline: f64) -> Self {
        let value = divide(ours, baseline);
        let Target { name, target, goal } = target;
        Self { name, value, lowest: value, highest: value, target, goal, reached: value >= target }
    }
}

fn divide(above: f64, below: f64) -> f64 {
    if below > 0.0 { above / below } else { 0.0 }
}

/// A table of one measurement's own, beside scenarios and ratios.
#[derive(Clone, Debug, Serialize)]
pub struct ExtraTable {
    /// The name machines look for.
    pub name: &'static str,
    /// For people.
    pub title: String,
    /// Column names.
    pub columns: Vec<&'static str>,
    /// One value per column.
    pub rows: Vec<Vec<Option<f64>>>,
}

/// What one measurement found.
pub struct Measured {
    /// What was run.
    pub scenarios: Vec<Scenario>,
    /// How they compare.
    pub ratios: Vec<Ratio>,
    /// Tables of its own.
    pub tables: Vec<ExtraTable>,
    /// What a reader has to know.
    pub notes: Vec<String>,
}

/// Everything that came out.
#[derive(Serialize)]
pub struct Report {
    /// `append`, `growth` or `replay`.
    pub measurement: &'static str,
    /// Whether windows were short.
    pub quick: bool,
    /// Seconds it took altogether.
    pub took_seconds: f64,
    /// What it was measured on.
    pub machine: Machine,
    /// What was run.
    pub scenarios: Vec<Scenario>,
    /// How they compare.
    pub ratios: Vec<Ratio>,
    /// Tables of this measurement's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<ExtraTable>,
    /// What a reader has to know.
    pub notes: Vec<String>,
}

/// What a measurement publishes.
pub trait Published: Serialize {
    /// Writes one JSON document.
    ///
    /// # Errors
    /// It cannot be written.
    fn write_json(&self, out: &mut impl Write) -> Result<(), BenchError> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)?;
        Ok(())
    }

    /// Writes tables for people.
    ///
    /// # Errors
    /// They cannot be written.
    fn write_text(&self, out: &mut impl Write) -> Result<(), BenchError>;

    /// The names of what it misses, for who asked to be told by the exit code.
    fn missed(&self) -> Vec<&'static str> {
        Vec::new()
    }
}

/// The head of a table.
///
/// # Errors
/// It cannot be written.
pub fn header(out: &mut impl Write, columns: &[&str]) -> Result<(), BenchError> {
    writeln!(out, "\n| {} |", columns.join(" | "))?;
    writeln!(out, "|{}", "---|".repeat(columns.len()))?;
    Ok(())
}

impl Published for Report {
    fn missed(&self) -> Vec<&'static str> {
        self.ratios.iter().filter(|ratio| !ratio.reached).map(|ratio| ratio.name).collect()
    }

    /// Every ratio also stands at the top, under its own name.
    fn write_json(&self, out: &mut impl Write) -> Result<(), BenchError> {
        let mut document = Map::new();
        for ratio in &self.ratios {
            document.insert(ratio.name.to_owned(), Value::from(ratio.value));
        }
        if let Value::Object(fields) = serde_json::to_value(self)? {
            document.extend(fields);
        }
        serde_json::to_writer_pretty(&mut *out, &Value::Object(document))?;
        writeln!(out)?;
        Ok(())
    }

    fn write_text(&self, out: &mut impl Write) -> Result<(), BenchError> {
        self.write_machine(out)?;
        if !self.scenarios.is_empty() {
            writeln!(out)?;
            write_table(out, &scenario_header(), &self.scenarios.iter().map(scenario_row).collect::<Vec<_>>())?;
        }
        for table in &self.tables {
            writeln!(out, "\n{}", table.title)?;
            let header: Vec<String> = table.columns.iter().map(|&column| column.to_owned()).collect();
            let rows: Vec<Vec<String>> =
                table.rows.iter().map(|row| row.iter().map(|value| optional(*value)).collect()).collect();
            write_table(out, &header, &rows)?;
        }
        if !self.ratios.is_empty() {
            writeln!(out)?;
            let header = ["ratio", "measured", "rounds", "target", "goal", "reached"].map(str::to_owned);
            write_table(out, &header, &self.ratios.iter().map(ratio_row).collect::<Vec<_>>())?;
        }
        writeln!(out)?;
        for note in &self.notes {
            writeln!(out, "{note}")?;
        }
        writeln!(out, "Took {:.0} s.", self.took_seconds)?;
        Ok(())
    }
}

impl Report {
    fn write_machine(&self, out: &mut impl Write) -> Result<(), BenchError> {
        let machine = &self.machine;
        let length = if self.quick { "quick, " } else { "" };
        writeln!(out, "calos-bench {} ({length}{} build)", self.measurement, machine.build)?;
        let memory = machine.memory_mib.map_or_else(String::new, |memory| format!(", {memory} MiB memory"));
        let cpu = machine.cpu.as_deref().unwrap_or("unknown processor");
        writeln!(out, "{} cores ({cpu}){memory}, {}", machine.cores, machine.kernel)?;
        writeln!(out, "{}", machine.postgres)?;
        let settings: Vec<String> = machine.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        for line in settings.chunks(6) {
            writeln!(out, "  {}", line.join(" "))?;
        }
        Ok(())
    }
}

fn scenario_header() -> [String; 10] {
    ["what", "callers", "conns", "per s", "events/s", "p50 ms", "p99 ms", "client us/ev", "server us/ev", "retries"]
        .map(str::to_owned)
}

const MICROS_PER_MILLI: f64 = 1_000.0;

fn scenario_row(scenario: &Scenario) -> Vec<String> {
    let millis =
        |micros: Option<f64>| micros.map_or_else(|| "-".to_owned(), |m| format!("{:.2}", m / MICROS_PER_MILLI));
    let micros = |micros: Option<f64>| micros.map_or_else(|| "-".to_owned(), |m| format!("{m:.1}"));
    vec![
        scenario.what.clone(),
        scenario.callers.to_string(),
        scenario.connections.map_or_else(|| "-".to_owned(), |connections| connections.to_string()),
        grouped(scenario.per_second),
        grouped(scenario.events_per_second),
        millis(scenario.p50_micros),
        millis(scenario.p99_micros),
        micros(scenario.client_cpu_micros_per_event),
        micros(scenario.postgres_cpu_micros_per_event),
        scenario.retries.to_string(),
    ]
}

fn ratio_row(ratio: &Ratio) -> Vec<String> {
    let times = |value: f64| if value < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") };
    vec![
        ratio.name.to_owned(),
        times(ratio.value),
        format!("{}..{}", times(ratio.lowest), times(ratio.highest)),
        times(ratio.target),
        ratio.goal.map_or_else(|| "-".to_owned(), times),
        if ratio.reached { "yes" } else { "NO" }.to_owned(),
    ]
}

fn optional(value: Option<f64>) -> String {
    const SMALL: f64 = 100.0;
    match value {
        None => "-".to_owned(),
        Some(value) if value.fract() == 0.0 || value >= SMALL => grouped(value),
        Some(value) => format!("{value:.2}"),
    }
}

/// A whole number with thousands set apart.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The first column stands left, figures stand right.
fn write_table(out: &mut impl Write, header: &[String], rows: &[Vec<String>]) -> Result<(), BenchError> {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&widths).enumerate();
        let cells: Vec<String> = cells
            .map(
                |(index, (cell, &width))| {
                    if index == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        cells.join("  ")
    };
    writeln!(out, "{}", line(header))?;
    writeln!(out, "{}", "-".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)))?;
    for row in rows {
        writeln!(out, "{}", line(row).trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Ratio, Target, grouped};
    use crate::stats::{Label, Run, Scenario};

    fn scenario(rates: &[u64], events_per_operation: u32) -> Scenario {
        let runs: Vec<Run> = rates.iter().map(|rate| Run::bulk(*rate, Duration::from_secs(1), None).unwrap()).collect();
        let label = Label {
            name: "some",
            what: "something".to_owned(),
            callers: 1,
            connections: None,
            unit: "command",
            events_per_operation,
        };
        Scenario::of(label, &runs)
    }

    #[test]
    fn a_ratio_compares_medians_in_events_and_keeps_the_worst_and_best_round() {
        let target = Target { name: "uniform_vs_insert_select", target: 0.5, goal: None };
        let ratio = Ratio::between(target, &scenario(&[20, 30, 40], 2), &scenario(&[100, 100, 200], 1));
        assert!((ratio.value - 0.6).abs() < 1e-9);
        assert!((ratio.lowest - 0.4).abs() < 1e-9);
        assert!((ratio.highest - 0.6).abs() < 1e-9);
        assert!(ratio.reached);
    }

    #[test]
    fn a_deduction_of_two_events_stands_against_a_deduction_in_two_tables() {
        let target = Target { name: "hot_vs_seed_sql", target: 25.0, goal: Some(40.0) };
        let ratio = Ratio::between(target, &scenario(&[24_000], 2), &scenario(&[1_000], 2));
        assert!((ratio.value - 24.0).abs() < 1e-9);
        assert!(!ratio.reached);
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(grouped(0.0), "0");
        assert_eq!(grouped(999.4), "999");
        assert_eq!(grouped(1_234_567.0), "1,234,567");
        assert_eq!(grouped(-123.0), "-123");
    }
}
