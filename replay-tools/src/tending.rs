//! The verbs that tend to what stands beside the read models: dead letters, snapshots, anchors.

use serde_json::json;

use crate::anchor::anchor;
use crate::cli::{DeadLettersVerb, SnapshotsVerb, WriteArgs};
use crate::dead_letters::{SkipReport, dead_letters, retry, show_letter, skip};
use crate::environment::Environment;
use crate::error::{Exit, ToolError};
use crate::fold::ReadModel;
use crate::operation::run_by;
use crate::output::Output;
use crate::place::Place;
use crate::run::{Ready, models};
use crate::snapshots::drop_snapshots;
use crate::turn::{Deed, Part, Reach, Turn};
use crate::write_guard::{Assent, Confirmed, confirm};

fn assent(yes: bool) -> Assent {
    if yes { Assent::Given } else { Assent::Ask }
}

/// What `dead-letters` needs before it may begin.
pub(crate) fn prepare_letters(verb: &DeadLettersVerb) -> Result<Ready, ToolError> {
    let confirmed = match verb {
        DeadLettersVerb::List { .. } | DeadLettersVerb::Show { .. } => None,
        DeadLettersVerb::Retry { projection, write } => {
            Some(confirm(assent(write.yes), &format!("dead-letters retry {projection}"))?)
        }
        DeadLettersVerb::Skip { projection, place, yes, .. } => {
            Some(confirm(assent(*yes), &format!("dead-letters skip {projection} {place}"))?)
        }
    };
    let models = match verb {
        DeadLettersVerb::List { projection } | DeadLettersVerb::Retry { projection, .. } => models(projection)?,
        DeadLettersVerb::Show { projection, .. } | DeadLettersVerb::Skip { projection, .. } => one(projection)?,
    };
    Ok(Ready { models, confirmed })
}

/// What `snapshots` needs before it may begin.
pub(crate) fn prepare_snapshots(verb: &SnapshotsVerb) -> Result<Ready, ToolError> {
    let SnapshotsVerb::Drop { kind, write } = verb;
    let what = kind.as_ref().map_or_else(|| "snapshots drop".to_owned(), |kind| format!("snapshots drop {kind}"));
    Ok(Ready { models: Vec::new(), confirmed: Some(confirm(assent(write.yes), &what)?) })
}

fn one(projection: &str) -> Result<Vec<ReadModel>, ToolError> {
    let models = models(projection)?;
    if models.len() == 1 {
        return Ok(models);
    }
    Err(ToolError::Usage("an event is set aside by one projection: name it".to_owned()))
}

fn not_confirmed() -> ToolError {
    ToolError::Usage("not confirmed; nothing was changed".to_owned())
}

/// Runs `dead-letters`.
pub(crate) async fn letters(
    environment: &Environment,
    models: &[ReadModel],
    verb: DeadLettersVerb,
    confirmed: Option<&Confirmed>,
    output: Output,
) -> Result<Exit, ToolError> {
    match verb {
        DeadLettersVerb::List { .. } => list(environment, models, output).await,
        DeadLettersVerb::Show { place, .. } => show(environment, models, place, output).await,
        DeadLettersVerb::Retry { write, .. } => {
            retry_all(environment, models, write, confirmed.ok_or_else(not_confirmed)?, output).await
        }
        DeadLettersVerb::Skip { place, reason, operator, .. } => {
            let write = WriteArgs { yes: true, reason: Some(reason), operator };
            skip_one(environment, models, place, write, confirmed.ok_or_else(not_confirmed)?, output).await
        }
    }
}

async fn list(environment: &Environment, models: &[ReadModel], output: Output) -> Result<Exit, ToolError> {
    let letters = dead_letters(&environment.owner, models).await?;
    for letter in &letters {
        let (projection, stream, error) = (letter.projection, &letter.stream, &letter.error);
        output.say(format!("{projection} {}:{} {stream}: {error}", letter.partition, letter.position))?;
    }
    output.say(format!("{} events set aside", letters.len()))?;
    output.document(&json!({ "deadLetters": letters }))?;
    Ok(Exit::Done)
}

async fn show(
    environment: &Environment,
    models: &[ReadModel],
    place: Place,
    output: Output,
) -> Result<Exit, ToolError> {
    for &model in models {
        let shown = show_letter(&environment.owner, model, place).await?;
        let (letter, event) = (&shown.letter, &shown.event);
        output.say(format!("{} v{} set aside {place}: {}", letter.projection, shown.version, letter.error))?;
        let (stream, sequence, name, version) = (&event.stream, event.sequence, &event.event_type, &event.version);
        output.say(format!("  {stream} event {sequence}: {name} version {version}, recorded {}", event.recorded_at))?;
        output.say(format!("  payload {}", event.payload))?;
        output.say(format!("  metadata {}", event.metadata))?;
        let places: Vec<String> = shown.parked_positions.iter().map(i64::to_string).collect();
        output.say(format!(
            "  {} later events of its stream wait behind it: {}",
            shown.parked_events,
            places.join(" ")
        ))?;
        output.document(&shown)?;
    }
    Ok(Exit::Done)
}

async fn retry_all(
    environment: &Environment,
    models: &[ReadModel],
    write: WriteArgs,
    confirmed: &Confirmed,
    output: Output,
) -> Result<Exit, ToolError> {
    let run = run_by(write.operator, write.reason);
    let log = environment.log().await?;
    let mut reports = Vec::with_capacity(models.len());
    let mut failed = None;
    for &model in models {
        match retry(&environment.owner, &log, model, &run, confirmed).await {
            Ok(report) => reports.push(report),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    // What was decided on goes into the log before the connection to it ends.
    log.close().await;
    for report in &reports {
        let (name, resumed, failing) = (report.projection, report.resumed, report.streams_failing);
        output.say(format!("{name}: {resumed} events resumed, {failing} streams failed again"))?;
    }
    if let Some(error) = failed {
        return Err(error);
    }
    output.document(&json!({ "operationId": run.operation_id, "retried": reports }))?;
    let failing = reports.iter().any(|report| report.streams_failing > 0);
    Ok(if failing { Exit::Failed } else { Exit::Done })
}

async fn skip_one(
    environment: &Environment,
    models: &[ReadModel],
    place: Place,
    write: WriteArgs,
    confirmed: &Confirmed,
    output: Output,
) -> Result<Exit, ToolError> {
    let [model] = models else { return Err(ToolError::Usage("name one projection".to_owned())) };
    let run = run_by(write.operator, write.reason);
    let log = environment.log().await?;
    let skipped = skip(&environment.owner, &log, *model, place, &run, confirmed).await;
    log.close().await;
    let report = skipped?;
    let SkipReport { skipped, resumed, stream_failing } = &report;
    output.say(format!("{} leaves out {place}: {}", skipped.projection, skipped.error))?;
    output.say(format!("  {resumed} events that waited behind it were taken"))?;
    if *stream_failing {
        output.say("  its stream failed again at a later event; see dead-letters list")?;
    }
    output.document(&json!({ "operationId": run.operation_id, "skip": report }))?;
    Ok(if report.stream_failing { Exit::Failed } else { Exit::Done })
}

/// Runs `snapshots`.
pub(crate) async fn snapshots(
    environment: &Environment,
    verb: SnapshotsVerb,
    confirmed: Option<&Confirmed>,
    output: Output,
) -> Result<Exit, ToolError> {
    let SnapshotsVerb::Drop { kind, write } = verb;
    let confirmed = confirmed.ok_or_else(not_confirmed)?;
    let run = run_by(write.operator, write.reason);
    let log = environment.log().await?;
    let dropped = drop_snapshots(&environment.owner, &log, kind, &run, confirmed).await;
    log.close().await;
    let dropped = dropped?;
    output.say(format!("{} snapshots of {}", dropped.snapshots, dropped.kind.as_deref().unwrap_or("every kind")))?;
    output.document(&json!({ "operationId": run.operation_id, "dropped": dropped }))?;
    Ok(Exit::Done)
}

/// Runs `anchor`.
pub(crate) async fn anchor_now(environment: &Environment, output: Output) -> Result<Exit, ToolError> {
    let (key, places) = (environment.signing_key().await?, environment.anchors().await?);
    let turn = Turn::take(&environment.owner, Deed::Anchor, &run_by(None, None), Reach::Part(Part::Anchors)).await?;
    let anchored = anchor(&environment.owner, &key, &places.directory).await?;
    turn.end().await?;
    let (events, at, file) = (anchored.events, &anchored.anchored_at, &anchored.file);
    output.say(format!("{events} events are vouched for as of {at}, in {file}"))?;
    output.document(&anchored)?;
    Ok(Exit::Done)
}
