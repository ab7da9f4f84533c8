//! The verbs that move the log itself, for the command line: exports, imports, backups, restores.

use calos_adapters::postgres::PgLog;
use calos_domain::operation::RunBy;
use serde_json::json;

use crate::anchor::anchor;
use crate::backup::{Place, backup, files, record_backup};
use crate::cli::log::{BackupArgs, ExportLogArgs, ImportArgs, RestoreArgs};
use crate::environment::Environment;
use crate::erase::Eraser;
use crate::error::{Exit, ToolError};
use crate::export_log::{LogExport, export_log};
use crate::import_log::{import_log, record_import};
use crate::log_file::wrapped_root;
use crate::operation::{now, run_by};
use crate::output::Output;
use crate::progress::Show;
use crate::receipt;
use crate::restore::{RestoreOptions, Target, record_restore, restore};
use crate::write_guard::Confirmed;

/// `export log`
pub(crate) async fn export(
    environment: &Environment,
    args: &ExportLogArgs,
    output: Output,
    show: Show,
) -> Result<Exit, ToolError> {
    let ExportLogArgs { format, output: file, force, keys } = args;
    let (format, force, keys) = (*format, *force, *keys);
    let key = environment.signing_key().await?;
    let exported = export_log(&environment.owner, &key, file, LogExport { format, keys, force, show }).await?;
    let with = if keys { "with its keys" } else { "without keys" };
    output.say(format!("{}: {} events of the log {}, {with}", file.display(), exported.events, exported.log_id))?;
    output.document(&json!({ "file": file, "format": format, "exported": exported }))?;
    Ok(Exit::Done)
}

/// `import`
pub(crate) async fn import(
    environment: &Environment,
    args: ImportArgs,
    confirmed: &Confirmed,
    output: Output,
    show: Show,
) -> Result<Exit, ToolError> {
    let started_at = now();
    let given = args.key.as_deref().map(receipt::key).transpose()?;
    let own = wrapped_root(&args.file).await?.map(|root| environment.signing_key_of(&root)).transpose()?;
    let key = given.or_else(|| own.as_ref().map(|key| key.verifying_key()));
    let run = run_by(args.write.operator, args.write.reason);
    let imported =
        import_log(&environment.owner, &args.file, environment.anchor_directory(), key, &run, show, confirmed).await?;
    let log = environment.log().await?;
    let again = async {
        record_import(&log, &run, &args.file, &imported, started_at).await?;
        erase_again(environment, &log, &run).await
    };
    let again = again.await;
    log.close().await;
    let again = again?;
    if let Some(key) = &own {
        anchor(&environment.owner, key, environment.anchor_directory()).await?;
    }
    output.say(format!(
        "{} events of the log {}, {} read models",
        imported.events, imported.log_id, imported.read_models
    ))?;
    if key.is_none() {
        output.say(format!("  signed by {}; --key says whether that is the ledger's key", imported.signed_by))?;
    }
    if !imported.keys {
        output
            .say("  without keys: what is sealed in it stays so, and this database will sign with a key of its own")?;
    }
    if imported.erased > 0 {
        output.say(format!("  {} keys were left out: their subjects have been erased since", imported.erased))?;
    }
    say_erased(again, output)?;
    output.document(&json!({ "operationId": run.operation_id, "imported": imported, "erasedAgain": again }))?;
    Ok(Exit::Done)
}

/// `backup`
pub(crate) async fn back_up(
    environment: &Environment,
    args: BackupArgs,
    output: Output,
    show: Show,
) -> Result<Exit, ToolError> {
    let place = match (&args.output, &args.since) {
        (Some(folder), None) => Place::New(folder),
        (None, Some(folder)) => Place::Since(folder),
        (Some(_), Some(_)) | (None, None) => return Err(ToolError::Usage("--output or --since".to_owned())),
    };
    let key = environment.signing_key().await?;
    let run = run_by(args.operator, args.reason);
    let taken = backup(&environment.owner, &key, place, &run, show).await?;
    let log = environment.log().await?;
    let recorded = record_backup(&log, &run, &taken).await;
    log.close().await;
    recorded?;
    output.say(format!("{}: {} events of the log {}", taken.file.display(), taken.events, taken.log_id))?;
    output.say("  it does not have the master key: keep that elsewhere")?;
    output.document(&json!({ "operationId": run.operation_id, "backup": taken }))?;
    Ok(Exit::Done)
}

/// `restore`
pub(crate) async fn put_back(
    environment: &Environment,
    args: RestoreArgs,
    confirmed: &Confirmed,
    output: Output,
    show: Show,
) -> Result<Exit, ToolError> {
    let target = match (args.until, args.until_position) {
        (Some(at), _) => Target::Time(at),
        (None, Some(place)) => Target::Position(place),
        (None, None) => Target::Whole,
    };
    let files = files(&args.folder)?;
    let root = match files.last() {
        Some(file) => wrapped_root(file).await?,
        None => None,
    };
    let root = root.ok_or_else(|| ToolError::Corrupt("the backup has no root secret".to_owned()))?;
    let key = environment.signing_key_of(&root)?;
    let run = run_by(args.write.operator, args.write.reason);
    let directory = environment.anchor_directory();
    let options = RestoreOptions { target, key: &key, directory, run: &run, show };
    let restored = restore(&environment.owner, &args.folder, &options, confirmed).await?;
    let log = environment.log().await?;
    let again = async {
        record_restore(&log, &run, &args.folder, &restored).await?;
        erase_again(environment, &log, &run).await
    };
    let again = again.await;
    log.close().await;
    let again = again?;
    anchor(&environment.owner, &key, directory).await?;
    let (events, models) = (restored.events, restored.read_models);
    output.say(format!("{events} events of the log {}, {models} read models", restored.log_id))?;
    if restored.left_out > 0 {
        output.say(format!("  {} events came later and were left out", restored.left_out))?;
    }
    if restored.erased > 0 {
        output.say(format!("  {} keys were left out: their subjects have been erased since", restored.erased))?;
    }
    if let Some(epoch) = &restored.epoch {
        output.say(format!("  epoch {} of the log begins, signed and kept with the anchors", epoch.epoch))?;
    }
    say_erased(again, output)?;
    output.document(&json!({ "operationId": run.operation_id, "restored": restored, "erasedAgain": again }))?;
    Ok(Exit::Done)
}

/// Whoever was erased since what was loaded is erased in it too, before anybody serves from it.
async fn erase_again(environment: &Environment, log: &PgLog, run: &RunBy) -> Result<u64, ToolError> {
    let secrets = environment.secrets().await?;
    let directory = environment.anchor_directory();
    Eraser { owner: &environment.owner, log, secrets: &secrets, directory, run }.erase_again().await
}

fn say_erased(again: u64, output: Output) -> Result<(), ToolError> {
    if again == 0 {
        return Ok(());
    }
    output.say(format!("  {again} people who were erased since are erased here too"))
}
