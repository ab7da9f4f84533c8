//! `check`: the operator's checklist, each line measured. A line that cannot be measured has failed; what this CALOS does
//! not have is not listed at all.

mod book;
mod log;
mod machine;
mod models;
mod people;
mod server;
mod usage;

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use crate::cli::CheckArgs;
use crate::environment::Environment;
use crate::error::{Exit, ToolError};
use crate::operation::now;
use crate::output::Output;
use crate::time_text::show;

/// Which checklist. Each has the lines of those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum List {
    /// Server, log, anchors, read models, book, holds, usage, local models, disk, backups; takes seconds
    Daily,
    /// And the whole seal recomputed, costs by provider, sessions, a backup of this week
    Weekly,
    /// And everything shown folded afresh, people and keys, slow statements, table sizes, versions
    Monthly,
}

/// How a line turned out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it has to be.
    Ok,
    /// Somebody should read it.
    Warn,
    /// Not as it has to be.
    Fail,
}

/// One line of the list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// What was looked at.
    pub name: &'static str,
    /// How it turned out.
    pub level: Level,
    /// The figure, and what to do when it is not as it has to be.
    pub detail: String,
}

impl Line {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, level: Level::Ok, detail: detail.into() }
    }

    fn warn(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, level: Level::Warn, detail: detail.into() }
    }

    fn fail(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, level: Level::Fail, detail: detail.into() }
    }

    /// What was measured, or that it could not be.
    fn of(name: &'static str, measured: Result<Self, ToolError>) -> Self {
        measured.unwrap_or_else(|error| Self::fail(name, format!("could not be measured: {error}")))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        write!(f, "{level}  {}: {}", self.name, self.detail)
    }
}

/// A whole list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    /// Which.
    pub list: List,
    /// When it was measured.
    pub at: String,
    /// Whether nothing failed.
    pub passed: bool,
    /// How many lines want to be read.
    pub warnings: usize,
    /// The lines, in the order they are shown.
    pub checks: Vec<Line>,
}

impl CheckReport {
    fn new(list: List, checks: Vec<Line>) -> Self {
        let count = |level| checks.iter().filter(|line| line.level == level).count();
        let (passed, warnings) = (count(Level::Fail) == 0, count(Level::Warn));
        Self { list, at: show(now()), passed, warnings, checks }
    }
}

/// Measures a list.
async fn measure(environment: &Environment, args: &CheckArgs) -> CheckReport {
    let (pool, config) = (&environment.owner, environment.config());
    let mut lines = server::lines(config, args.url.as_deref()).await;
    lines.push(Line::of("append-only", log::append_only(pool).await));
    lines.push(Line::of("anchors", log::anchors(environment).await));
    lines.extend(models::lines(pool).await);
    lines.push(Line::of("book", book::trial_balance(pool).await));
    lines.push(Line::of("wallets", book::wallets(pool).await));
    lines.push(Line::of("holds", book::holds(pool).await));
    lines.push(Line::of("usage", usage::of_a_day(pool).await));
    lines.push(machine::disk("disk of the data", &config.data_dir));
    lines.push(machine::disk("disk of the anchors", &config.anchor_dir));
    lines.push(Line::of("backup", log::backup(pool, args.list).await));
    if args.list >= List::Weekly {
        lines.push(Line::of("costs", usage::costs_of_a_week(pool).await));
        lines.push(Line::of("sign-ins", people::sign_ins(pool).await));
    }
    if args.list == List::Weekly {
        lines.extend(log::seal(environment, false).await);
    }
    if args.list == List::Monthly {
        lines.extend(log::seal(environment, true).await);
        lines.push(Line::of("sessions", people::sessions(pool).await));
        lines.push(Line::of("staff", people::staff(pool).await));
        lines.push(Line::of("keys", people::keys(pool).await));
        lines.push(Line::of("tenants", usage::of_a_month(pool).await));
        lines.push(Line::of("tables", machine::tables(pool).await));
        lines.extend(machine::slow_statements(pool).await);
        lines.push(Line::of("versions", machine::versions(pool).await));
    }
    CheckReport::new(args.list, lines)
}

/// Runs `check`.
pub(crate) async fn run(environment: &Environment, args: &CheckArgs, output: Output) -> Result<Exit, ToolError> {
    let report = measure(environment, args).await;
    for line in &report.checks {
        output.say(line)?;
    }
    output.document(&report)?;
    Ok(if report.passed { Exit::Done } else { Exit::Failed })
}

/// Micro-dollars as people read them.
fn dollars(micros: i64) -> String {
    let (sign, micros) = (if micros < 0 { "-" } else { "" }, micros.unsigned_abs());
    format!("{sign}${}.{:02}", micros / 1_000_000, micros % 1_000_000 / 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_passes_with_warnings_and_not_with_a_failure() {
        let lines = vec![Line::ok("a", "1"), Line::warn("b", "2")];
        let report = CheckReport::new(List::Daily, lines.clone());
        assert_eq!((report.passed, report.warnings), (true, 1));
        let report = CheckReport::new(List::Daily, [lines, vec![Line::fail("c", "3")]].concat());
        assert!(!report.passed);
        assert_eq!(report.checks[2].to_string(), "FAIL  c: 3");
    }

    #[test]
    fn what_cannot_be_measured_has_failed() {
        let line = Line::of("book", Err(ToolError::Corrupt("no".to_owned())));
        assert_eq!((line.level, line.detail.as_str()), (Level::Fail, "could not be measured: no"));
    }

    #[test]
    fn dollars_keep_their_sign_and_two_places() {
        assert_eq!((dollars(1_234_567), dollars(-50_000)), ("$1.23".to_owned(), "-$0.05".to_owned()));
    }
}
