//! From a parsed command line to an exit code.

use calos_projections::registry;
use serde_json::json;

use crate::check;
use crate::cli::{Cli, DiffArgs, EventsArgs, ExportVerb, ReceiptVerb, Verb, VerifyArgs};
use crate::diff::{DiffReport, diff};
use crate::environment::Environment;
use crate::error::{Exit, ToolError};
use crate::events::{EventFilter, events};
use crate::finance;
use crate::fold::ReadModel;
use crate::interrupt::interrupted;
use crate::log_verbs;
use crate::output::{Output, json_line};
use crate::people;
use crate::progress::Show;
use crate::rebuild_verb;
use crate::status::{measured, show_status};
use crate::tending;
use crate::verify::{VerifyOptions, VerifyReport, verify};
use crate::write_guard::{Assent, Confirmed, can_ask, confirm};

/// Runs one command line.
///
/// # Errors
/// Whatever stopped the verb; [`ToolError::exit`] is the program's exit code then.
pub async fn run(cli: Cli) -> Result<Exit, ToolError> {
    let output = Output::new(cli.json);
    let show = if cli.quiet { Show::Silent } else { Show::Standard };
    // A receipt is checked by whoever holds it, where there is no database.
    if let Verb::Receipt(ReceiptVerb::Check { file, key }) = &cli.verb {
        return finance::check_receipt(file, key.as_deref(), output);
    }
    // Confirmed and looked up before anything is opened, so that a typing error starts no database.
    let ready = prepare(&cli.verb)?;
    let environment = Environment::open().await?;
    // A rebuild records that it was stopped.
    let stops_by_itself = matches!(cli.verb, Verb::Rebuild(_));
    let ended = tokio::select! {
        ended = verb(&environment, cli.verb, ready, output, show) => ended,
        stopped = interrupted(), if !stops_by_itself => {
            stopped?;
            Err(ToolError::Cancelled)
        }
    };
    let closed = environment.close().await;
    let exit = ended?;
    closed?;
    Ok(exit)
}

/// What a verb needs before it may begin.
#[derive(Default)]
pub(crate) struct Ready {
    pub(crate) models: Vec<ReadModel>,
    pub(crate) confirmed: Option<Confirmed>,
}

fn prepare(verb: &Verb) -> Result<Ready, ToolError> {
    let assent = |yes: bool| if yes { Assent::Given } else { Assent::Ask };
    match verb {
        Verb::Rebuild(args) => {
            let models = models(&args.projection)?;
            let change = args.change().map(|change| confirm(assent(args.write.yes), &change));
            Ok(Ready { models, confirmed: change.transpose()? })
        }
        Verb::DeadLetters(verb) => tending::prepare_letters(verb),
        Verb::Snapshots(verb) => tending::prepare_snapshots(verb),
        Verb::Diff(DiffArgs { projection, .. }) => Ok(Ready { models: models(projection)?, confirmed: None }),
        Verb::Verify(_) => Ok(Ready { models: registry::ALL.to_vec(), confirmed: None }),
        Verb::Import(args) => {
            let confirmed = confirm(assent(args.write.yes), &format!("import {}", args.file.display()))?;
            Ok(Ready { models: Vec::new(), confirmed: Some(confirmed) })
        }
        Verb::Restore(args) => {
            let confirmed = confirm(assent(args.write.yes), &format!("restore {}", args.folder.display()))?;
            Ok(Ready { models: Vec::new(), confirmed: Some(confirmed) })
        }
        // Whom it is about is looked up and shown before it asks.
        Verb::Erase(args) => can_ask(assent(args.yes), "erase").map(|()| Ready::default()),
        Verb::Rekey(args) => {
            let confirmed = confirm(assent(args.yes), "rekey")?;
            Ok(Ready { models: Vec::new(), confirmed: Some(confirmed) })
        }
        Verb::Backup(_) | Verb::Export(ExportVerb::Log(_)) => Ok(Ready::default()),
        Verb::Export(ExportVerb::Journal(args)) => {
            finance::may_write(args)?;
            Ok(Ready::default())
        }
        Verb::Anchor
        | Verb::Check(_)
        | Verb::Status
        | Verb::Balance(_)
        | Verb::TrialBalance(_)
        | Verb::Receipt(_)
        | Verb::Events(_) => Ok(Ready::default()),
    }
}

/// The read models a name stands for.
pub(crate) fn models(name: &str) -> Result<Vec<ReadModel>, ToolError> {
    if name == "all" {
        return Ok(registry::ALL.to_vec());
    }
    let known = || registry::ALL.iter().map(|model| model.name()).collect::<Vec<_>>().join(", ");
    let model = registry::find(name);
    model
        .map(|model| vec![model])
        .ok_or_else(|| ToolError::Usage(format!("there is no projection {name}; there are {} and all", known())))
}

async fn verb(
    environment: &Environment,
    verb: Verb,
    ready: Ready,
    output: Output,
    show: Show,
) -> Result<Exit, ToolError> {
    let pool = &environment.owner;
    match (verb, ready.confirmed) {
        (Verb::Status, _) => {
            show_status(&measured(pool).await?, output)?;
            Ok(Exit::Done)
        }
        (Verb::Rebuild(args), confirmed) => {
            rebuild_verb::rebuild(environment, &ready.models, &args, confirmed.as_ref(), output, show).await
        }
        (Verb::Erase(args), _) => people::erase(environment, args, output).await,
        (Verb::Rekey(args), Some(confirmed)) => people::rekey(environment, args, &confirmed, output, show).await,
        (Verb::Import(_) | Verb::Restore(_) | Verb::Rekey(_), None) => {
            Err(ToolError::Usage("not confirmed; nothing was changed".to_owned()))
        }
        (Verb::DeadLetters(verb), confirmed) => {
            tending::letters(environment, &ready.models, verb, confirmed.as_ref(), output).await
        }
        (Verb::Snapshots(verb), confirmed) => tending::snapshots(environment, verb, confirmed.as_ref(), output).await,
        (Verb::Anchor, _) => tending::anchor_now(environment, output).await,
        (Verb::Check(args), _) => check::run(environment, &args, output).await,
        (Verb::Verify(args), _) => verify_all(environment, &ready.models, args, output, show).await,
        (Verb::Diff(args), _) => diff_all(environment, &ready.models, &args, output, show).await,
        (Verb::Balance(args), _) => finance::balance_of(environment, &args, output).await,
        (Verb::TrialBalance(args), _) => finance::trial_balance_at(environment, args, output).await,
        (Verb::Import(args), Some(confirmed)) => log_verbs::import(environment, args, &confirmed, output, show).await,
        (Verb::Restore(args), Some(confirmed)) => {
            log_verbs::put_back(environment, args, &confirmed, output, show).await
        }
        (Verb::Backup(args), _) => log_verbs::back_up(environment, args, output, show).await,
        (Verb::Export(ExportVerb::Log(args)), _) => log_verbs::export(environment, &args, output, show).await,
        (Verb::Export(ExportVerb::Journal(args)), _) => finance::export_journal(environment, &args, output, show).await,
        (Verb::Receipt(ReceiptVerb::Show { place }), _) => finance::show_receipt(environment, place).await,
        (Verb::Receipt(ReceiptVerb::Check { file, key }), _) => finance::check_receipt(&file, key.as_deref(), output),
        (Verb::Events(args), _) => event_lines(environment, args).await,
    }
}

async fn verify_all(
    environment: &Environment,
    models: &[ReadModel],
    args: VerifyArgs,
    output: Output,
    show: Show,
) -> Result<Exit, ToolError> {
    let mut anchors = environment.anchors().await?;
    if let Some(directory) = args.anchors {
        anchors.directory = directory;
    }
    let options = VerifyOptions { chain_only: args.chain, anchors: Some(anchors), models, show };
    let report = verify(&environment.owner, &options).await?;
    for check in &report.checks {
        output.say(check)?;
    }
    let VerifyReport { events, read_ms, events_per_second, .. } = &report;
    output.say(format!("{events} events read in {read_ms} ms, {events_per_second} a second"))?;
    output.document(&report)?;
    Ok(if report.passed { Exit::Done } else { Exit::Failed })
}

async fn diff_all(
    environment: &Environment,
    models: &[ReadModel],
    args: &DiffArgs,
    output: Output,
    show: Show,
) -> Result<Exit, ToolError> {
    let mut reports: Vec<DiffReport> = Vec::with_capacity(models.len());
    for &model in models {
        let report = diff(&environment.owner, model, args.limit, show).await?;
        let count = report.differences.count;
        output.say(format!("{} v{}: {count} rows differ from the log", report.projection, report.version))?;
        for difference in &report.differences.listed {
            output.say(format!("  {difference}"))?;
        }
        reports.push(report);
    }
    output.document(&json!({ "diffs": reports }))?;
    let equal = reports.iter().all(|report| report.differences.count == 0);
    Ok(if equal { Exit::Done } else { Exit::Failed })
}

async fn event_lines(environment: &Environment, args: EventsArgs) -> Result<Exit, ToolError> {
    let filter = EventFilter {
        stream: args.stream,
        event_type: args.event_type,
        correlation: args.correlation,
        from: args.from,
        to: args.to,
        partition: args.partition,
        limit: args.limit,
    };
    events(&environment.owner, &filter, args.follow, json_line).await?;
    Ok(Exit::Done)
}
