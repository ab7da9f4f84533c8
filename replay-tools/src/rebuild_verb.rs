//! `rebuild`, for the command line: which of its ways, what is said of it, and what happens when it is interrupted.

use serde_json::json;

use calos_adapters::postgres::PgLog;
use calos_domain::operation::RunBy;

use crate::cli::RebuildArgs;
use crate::differences::Differences;
use crate::environment::Environment;
use crate::error::{Exit, ToolError};
use crate::fold::ReadModel;
use crate::interrupt::interrupted;
use crate::operation::run_by;
use crate::output::Output;
use crate::progress::Show;
use crate::rebuild::only::{Only, OnlyReports, repair_only};
use crate::rebuild::preview::{Preview, clear, preview};
use crate::rebuild::{RebuildOptions, RebuildReport, rebuild_all, record_cancelled};
use crate::write_guard::Confirmed;

/// Runs `rebuild`. An interruption ends it in order: what it finished is kept and that it was stopped is recorded, or, where
/// nothing is to be left behind, it is taken away.
pub(crate) async fn rebuild(
    environment: &Environment,
    models: &[ReadModel],
    args: &RebuildArgs,
    confirmed: Option<&Confirmed>,
    output: Output,
    show: Show,
) -> Result<Exit, ToolError> {
    let run = run_by(args.write.operator.clone(), args.write.reason.clone());
    let options = RebuildOptions {
        workers: args.workers,
        in_place: args.in_place,
        restart: args.restart,
        announced: false,
        listed_rows: args.limit,
        show,
    };
    let not_confirmed = || ToolError::Usage("not confirmed; nothing was changed".to_owned());
    if args.only.is_none() && (args.dry_run || args.until.is_some()) {
        return look(environment, models, args, &run, &options, output).await;
    }
    let log = environment.log().await?;
    let ended = match (&args.only, confirmed) {
        (Some(only), None) if args.dry_run => {
            put_right(environment, &log, models, only, &run, None, args.limit, output).await
        }
        (_, None) => Err(not_confirmed()),
        (Some(only), Some(confirmed)) => {
            let confirmed = (!args.dry_run).then_some(confirmed);
            put_right(environment, &log, models, only, &run, confirmed, args.limit, output).await
        }
        (None, Some(confirmed)) => {
            let rebuilt = tokio::select! {
                rebuilt = rebuild_all(&environment.owner, &log, models, &run, confirmed, &options) => rebuilt,
                stopped = interrupted() => match stopped {
                    Ok(()) => stop(environment, &log, &args.projection, &run).await,
                    Err(error) => Err(error.into()),
                },
            };
            rebuilt.and_then(|reports| say_all_rebuilt(&reports, &run, output))
        }
    };
    // What was decided on goes into the log before the connection to it ends.
    log.close().await;
    ended
}

/// Records that the operator stopped it.
async fn stop<T>(environment: &Environment, log: &PgLog, projection: &str, run: &RunBy) -> Result<T, ToolError> {
    record_cancelled(&environment.owner, log, projection, run).await?;
    Err(ToolError::Cancelled)
}

fn say_all_rebuilt(reports: &[RebuildReport], run: &RunBy, output: Output) -> Result<Exit, ToolError> {
    for report in reports {
        say_rebuilt(report, output)?;
    }
    output.document(&json!({ "operationId": run.operation_id, "rebuilt": reports }))?;
    Ok(Exit::Done)
}

fn say_rebuilt(report: &RebuildReport, output: Output) -> Result<(), ToolError> {
    let RebuildReport { projection, from_version, to_version, events, seconds, parity, .. } = report;
    output.say(format!("{projection}: {events} events folded in {seconds:.1} s"))?;
    match (&parity.differences, &parity.unreadable) {
        (Some(differences), _) => say_differences(differences, "rows differed from the ones that stood", output)?,
        (None, Some(why)) => output.say(format!("  the rows that stood could not be compared: {why}"))?,
        (None, None) => {}
    }
    if report.dead_letters > 0 {
        output.say(format!("  {} events were set aside as dead letters", report.dead_letters))?;
    }
    if from_version == to_version {
        output.say(format!("  version {to_version} replaced in place"))
    } else {
        output.say(format!("  version {to_version} is live; version {from_version} rests in read_old"))
    }
}

fn say_differences(differences: &Differences, what: &str, output: Output) -> Result<(), ToolError> {
    output.say(format!("  {} {what}", differences.count))?;
    for difference in &differences.listed {
        output.say(format!("  {difference}"))?;
    }
    Ok(())
}

/// `--dry-run` and `--until`.
async fn look(
    environment: &Environment,
    models: &[ReadModel],
    args: &RebuildArgs,
    run: &RunBy,
    options: &RebuildOptions,
    output: Output,
) -> Result<Exit, ToolError> {
    let keep = args.until.is_some() && !args.dry_run;
    let previews = tokio::select! {
        previews = preview(&environment.owner, models, run, args.until, keep, options) => previews?,
        stopped = interrupted() => {
            stopped?;
            clear(&environment.owner, models, run).await?;
            return Err(ToolError::Stopped);
        }
    };
    for preview in &previews {
        say_preview(preview, output)?;
    }
    output.document(&json!({ "built": previews }))?;
    Ok(Exit::Done)
}

fn say_preview(preview: &Preview, output: Output) -> Result<(), ToolError> {
    let Preview { projection, live_version, until, events, seconds, dead_letters, parity, tables, .. } = preview;
    let when = until.as_ref().map_or_else(String::new, |until| format!(", as of {until}"));
    output.say(format!("{projection}{when}: {events} events folded in {seconds:.1} s"))?;
    let what = if until.is_some() { "live rows have changed since" } else { "live rows differ from the log" };
    match (&parity.differences, &parity.unreadable) {
        (Some(differences), _) => say_differences(differences, what, output)?,
        (None, Some(why)) => output.say(format!("  the live rows could not be compared: {why}"))?,
        (None, None) => {}
    }
    if *dead_letters > 0 {
        output.say(format!("  {dead_letters} events would be set aside as dead letters"))?;
    }
    if tables.is_empty() {
        output.say(format!("  nothing was changed; version {live_version} stays live"))
    } else {
        let tables = tables.join(", ");
        output.say(format!("  stays in {tables} until the next rebuild; version {live_version} stays live"))
    }
}

/// `--only`; without a confirmation it is a dry run.
#[expect(clippy::too_many_arguments, reason = "what the command line said, and where it goes")]
async fn put_right(
    environment: &Environment,
    log: &PgLog,
    models: &[ReadModel],
    only: &Only,
    run: &RunBy,
    confirmed: Option<&Confirmed>,
    listed_rows: i64,
    output: Output,
) -> Result<Exit, ToolError> {
    let reports = tokio::select! {
        reports = repair_only(&environment.owner, log, models, only, run, confirmed, listed_rows) => reports?,
        stopped = interrupted() => {
            stopped?;
            let projection = if let [model] = models { model.name() } else { "all" };
            return stop(environment, log, projection, run).await;
        }
    };
    let OnlyReports { repaired, left_out } = &reports;
    for report in repaired {
        let (projection, events, seconds) = (report.projection, report.events, report.seconds);
        output.say(format!("{projection} of {only}: {events} events folded in {seconds:.2} s"))?;
        let what =
            if confirmed.is_some() { "rows were put right" } else { "rows differ from the log; nothing was changed" };
        say_differences(&report.differences, what, output)?;
        if let Some(why) = report.left_as_is {
            output.say(format!("  some rows stay as they are: {why}"))?;
        }
    }
    for left in left_out {
        output.say(format!("{} was left out: {}", left.projection, left.why))?;
    }
    let operation = confirmed.map(|_| run.operation_id);
    output.document(&json!({ "operationId": operation, "only": only.to_string(), "repaired": repaired,
        "leftOut": left_out }))?;
    Ok(Exit::Done)
}
