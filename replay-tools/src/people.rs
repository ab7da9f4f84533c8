//! The verbs that deal with people's data and its keys, for the command line.

use serde_json::json;

use crate::cli::people::{EraseArgs, RekeyArgs};
use crate::environment::Environment;
use crate::erase::{Erased, Eraser, Person};
use crate::error::{Exit, ToolError};
use crate::operation::run_by;
use crate::output::Output;
use crate::progress::Show;
use crate::rekey::{MasterKeys, Rekeyed, rekey as rewrap};
use crate::write_guard::{Assent, Confirmed, confirm};

/// `erase`: shows who is meant and what will go, and asks then.
pub(crate) async fn erase(environment: &Environment, args: EraseArgs, output: Output) -> Result<Exit, ToolError> {
    let EraseArgs { user, reason, yes, operator } = args;
    let secrets = environment.secrets().await?;
    let run = run_by(operator, Some(reason));
    let log = environment.log().await?;
    let eraser = Eraser {
        owner: &environment.owner,
        log: &log,
        secrets: &secrets,
        directory: environment.anchor_directory(),
        run: &run,
    };
    let ended = async {
        let person = eraser.find(&user).await?;
        eraser.check_words(person.user_id).await?;
        announce(&person, output)?;
        let assent = if yes { Assent::Given } else { Assent::Ask };
        let confirmed = confirm(assent, &format!("erase {}", person.user_id))?;
        eraser.erase(person.user_id, &confirmed).await
    };
    let ended = ended.await;
    // What was decided on goes into the log before the connection to it ends.
    log.close().await;
    let erased = ended?;
    say_erased(&erased, output)?;
    output.document(&json!({ "operationId": run.operation_id, "erased": erased }))?;
    Ok(Exit::Done)
}

fn announce(person: &Person, output: Output) -> Result<(), ToolError> {
    let Person { user_id, erased, sessions, devices, tenants } = person;
    if *erased {
        return output.say(format!("{user_id} was erased before; whatever is left of that is finished"));
    }
    output.say(format!("{user_id}: their data key is destroyed, here and for every restore"))?;
    output.say("  the account is closed for ever, and its address can be registered anew")?;
    output.say(format!("  {sessions} sessions and {devices} devices end"))?;
    output.say(format!(
        "  {} tenants of their own keep their books; their API keys are revoked and their provider keys deleted",
        tenants.len()
    ))
}

fn say_erased(erased: &Erased, output: Output) -> Result<(), ToolError> {
    let subject = erased.subject;
    if !erased.changed_something() {
        return output.say(format!("{subject} is already erased; nothing was left to do"));
    }
    let what = if erased.already { "is already erased; what was left of that is finished" } else { "is erased" };
    output.say(format!("{subject} {what}"))?;
    if erased.key_destroyed {
        output.say("  the data key is destroyed")?;
    }
    for (count, what) in [
        (erased.sessions_ended, "sessions ended"),
        (erased.devices_revoked, "devices are trusted no more"),
        (erased.api_keys_revoked, "API keys revoked"),
        (erased.provider_keys_removed, "provider keys deleted"),
        (erased.tenants_left, "tenants of others left"),
        (erased.old_versions_dropped, "older tables of read models dropped"),
        (erased.snapshots_dropped, "snapshots deleted"),
        (erased.answers_deleted, "kept answers deleted"),
    ] {
        if count > 0 {
            output.say(format!("  {count} {what}"))?;
        }
    }
    for tenant in &erased.tenants_without_owner {
        output.say(format!("  the tenant {tenant} has members and no other owner: the membership stays"))?;
    }
    output.say(format!("  dead rows removed (VACUUM): {}", erased.vacuumed.join(", ")))
}

/// `rekey`
pub(crate) async fn rekey(
    environment: &Environment,
    args: RekeyArgs,
    confirmed: &Confirmed,
    output: Output,
    show: Show,
) -> Result<Exit, ToolError> {
    let run = run_by(args.operator, Some(args.reason));
    let secrets = &environment.config().secrets;
    let master = MasterKeys { current: &secrets.master_key, previous: secrets.master_key_previous.as_ref() };
    let log = environment.log().await?;
    let rekeyed = rewrap(&environment.owner, &log, master, &run, show, confirmed).await;
    log.close().await;
    let rekeyed = rekeyed?;
    let Rekeyed { rewrapped, already, unopenable } = rekeyed;
    output.say(format!("{rewrapped} data keys are wrapped by the current master key now, {already} were before"))?;
    if unopenable == 0 {
        output.say("  nothing needs the one before any more, but backups that were taken under it")?;
    } else {
        output.say(format!("  {unopenable} do not open and were left as they are; standard error names them"))?;
    }
    output.document(&json!({ "operationId": run.operation_id, "rekeyed": rekeyed }))?;
    Ok(if unopenable == 0 { Exit::Done } else { Exit::Failed })
}
