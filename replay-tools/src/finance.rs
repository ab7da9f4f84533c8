//! What finance asks of the command line: balances, the trial balance, the journal as a file, receipts.

use std::path::Path;

use calos_adapters::receipt::{Receipt, ReceiptError};
use calos_projections::as_of::{self, AsOf, WalletAt};
use serde::Serialize;
use serde_json::json;
use sqlx::PgPool;

use calos_domain::wallet::Wallet;
use calos_domain::{Asset, Decider, StreamId, TenantId};

use crate::balance::{AssetBalance, Balance, BalanceAt, balance};
use crate::cli::{BalanceArgs, ExportJournalArgs, TrialBalanceArgs};
use crate::environment::Environment;
use crate::error::{Exit, ToolError};
use crate::export::{JournalExport, journal, to_file};
use crate::output::{Output, json_line};
use crate::place::Place;
use crate::progress::Show;
use crate::receipt;
use crate::time_text::show;
use crate::trial_balance::{TrialBalance, trial_balance};

/// What a wallet held, by the read models.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WalletBalance {
    tenant_id: TenantId,
    as_of: Option<String>,
    as_known_at: Option<String>,
    assets: Vec<WalletAsset>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WalletAsset {
    asset: Asset,
    available: i64,
    held: i64,
    debt: i64,
}

/// `balance`
pub(crate) async fn balance_of(
    environment: &Environment,
    args: &BalanceArgs,
    output: Output,
) -> Result<Exit, ToolError> {
    if args.from_log {
        let at = BalanceAt { as_of: args.as_of, as_known_at: args.as_known_at };
        let balance = balance(&environment.owner, args.tenant, at, args.asset).await?;
        say_folded(&balance, output)?;
        output.document(&balance)?;
        return Ok(Exit::Done);
    }
    let balance = WalletBalance {
        tenant_id: args.tenant,
        as_of: args.as_of.map(show),
        as_known_at: args.as_known_at.map(show),
        assets: wallet_at(&environment.owner, args).await?,
    };
    output.say(format!("wallet {}{}", balance.tenant_id, when(&balance.as_of, &balance.as_known_at)))?;
    for WalletAsset { asset, available, held, debt } in &balance.assets {
        output.say(format!("  {asset}: available {available}, held {held}, debt {debt}"))?;
    }
    output.document(&balance)?;
    Ok(Exit::Done)
}

/// The wallet by the read models. What nobody had noticed by then to be over is taken off, as the wallet itself would.
async fn wallet_at(pool: &PgPool, args: &BalanceArgs) -> Result<Vec<WalletAsset>, ToolError> {
    let opened = "SELECT EXISTS (SELECT FROM events WHERE aggregate_type = $1 AND aggregate_id = $2 AND sequence = 1)";
    let opened: bool =
        sqlx::query_scalar(opened).bind(Wallet::KIND).bind(StreamId::key(args.tenant).as_str()).fetch_one(pool).await?;
    if !opened {
        return Err(ToolError::Usage(format!("there is no wallet {}", args.tenant)));
    }
    let at = AsOf { effective: args.as_of, recorded: args.as_known_at };
    let lines = as_of::spendable(pool, args.tenant, at).await?.into_iter();
    let asked = lines.filter(|line| args.asset.is_none_or(|asset| asset == line.asset));
    let figures = |WalletAt { asset, available, held, debt }| WalletAsset { asset, available, held, debt };
    Ok(asked.map(figures).collect())
}

fn say_folded(balance: &Balance, output: Output) -> Result<(), ToolError> {
    let when = when(&balance.as_of, &balance.as_known_at);
    let frozen = if balance.frozen { ", frozen" } else { "" };
    output.say(format!("wallet {}{when}: {} events{frozen}", balance.tenant_id, balance.events))?;
    for AssetBalance { asset, granted, available, held, debt } in &balance.assets {
        output.say(format!("  {asset}: available {available}, held {held}, debt {debt}, granted {granted}"))?;
    }
    Ok(())
}

fn when(as_of: &Option<String>, as_known_at: &Option<String>) -> String {
    let at = |name: &str, at: &Option<String>| at.as_ref().map_or_else(String::new, |at| format!(" {name} {at}"));
    format!("{}{}", at("as of", as_of), at("as known at", as_known_at))
}

/// `trial-balance`
pub(crate) async fn trial_balance_at(
    environment: &Environment,
    args: TrialBalanceArgs,
    output: Output,
) -> Result<Exit, ToolError> {
    let at = AsOf { effective: args.as_of, recorded: args.as_known_at };
    let balance = trial_balance(&environment.owner, at, args.compared_with).await?;
    say_trial_balance(&balance, output)?;
    output.document(&balance)?;
    Ok(Exit::Done)
}

fn say_trial_balance(balance: &TrialBalance, output: Output) -> Result<(), ToolError> {
    let when = when(&balance.as_of, &balance.as_known_at);
    match &balance.compared_with {
        None => output.say(format!("trial balance{when}"))?,
        Some(other) => output.say(format!("trial balance{when}, compared with what was known at {other}"))?,
    }
    let width = balance.lines.iter().map(|line| line.account.len()).max().unwrap_or_default();
    for line in &balance.lines {
        let (account, asset, debit, credit) = (&line.account, line.asset, line.debit, line.credit);
        match line.compared {
            None => output.say(format!("  {asset:<6} {account:<width$} {debit:>20} {credit:>20}"))?,
            Some(compared) => {
                let difference = line.balance - compared;
                let shown = format!("{:>20} {compared:>20} {difference:>+20}", line.balance);
                output.say(format!("  {asset:<6} {account:<width$} {shown}"))?;
            }
        }
    }
    if balance.compared_with.is_some() && balance.lines.is_empty() {
        output.say("  no account differs")?;
    }
    Ok(())
}

/// Refuses a file that stands in the way before anything is opened.
pub(crate) fn may_write(args: &ExportJournalArgs) -> Result<(), ToolError> {
    let file = &args.output;
    if file.as_os_str() != "-" && !args.force && file.symlink_metadata().is_ok() {
        return Err(ToolError::Usage(format!("{} is there already; --force replaces it", file.display())));
    }
    if args.from.zip(args.to).is_some_and(|(from, to)| from >= to) {
        return Err(ToolError::Usage("--from has to be before --to, which itself is left out".to_owned()));
    }
    Ok(())
}

/// `export journal`
pub(crate) async fn export_journal(
    environment: &Environment,
    args: &ExportJournalArgs,
    output: Output,
    show: Show,
) -> Result<Exit, ToolError> {
    let ExportJournalArgs { format, tenant, from, to, holds, .. } = *args;
    let export = JournalExport { format, tenant, from, to, holds };
    let exported = to_file(journal(environment.owner.clone(), export, show), &args.output, args.force).await?;
    // Standard output belongs to the export when it goes there.
    if args.output.as_os_str() != "-" {
        let file = args.output.display();
        output.say(format!("{file}: {} entries, {} postings", exported.entries, exported.postings))?;
        output.document(&json!({ "file": args.output, "format": format, "exported": exported }))?;
    }
    Ok(Exit::Done)
}

/// `receipt show`
pub(crate) async fn show_receipt(environment: &Environment, place: Place) -> Result<Exit, ToolError> {
    let key = environment.signing_key().await?;
    let issued = Receipt::issue(&environment.owner, &key, place.partition, place.position).await;
    json_line(&issued.map_err(|error| match error {
        ReceiptError::Database(error) => ToolError::Database(error),
        error @ ReceiptError::NoEvent { .. } => ToolError::Usage(error.to_string()),
        error => ToolError::Corrupt(error.to_string()),
    })?)?;
    Ok(Exit::Done)
}

/// `receipt check`
pub(crate) fn check_receipt(file: &Path, key: Option<&str>, output: Output) -> Result<Exit, ToolError> {
    let key = key.map(receipt::key).transpose()?;
    let receipt = receipt::read(file)?;
    let checked = receipt::check(&receipt, key.as_ref());
    let (partition, position, log) = (receipt.partition, receipt.position, receipt.log_id);
    match &checked.wrong {
        None => {
            let at = show(receipt.recorded_at);
            output.say(format!("ok    {} at {partition}:{position} of the log {log}, {at}", receipt.event_type))?;
            let signer = &checked.public_key;
            output.say(if checked.key_known {
                format!("      signed by the ledger's key {signer}")
            } else {
                format!("      unchanged since {signer} signed it; --key says whether that is the ledger's key")
            })?;
        }
        Some(wrong) => output.say(format!("FAIL  {wrong}"))?,
    }
    output.document(&checked)?;
    Ok(if checked.holds { Exit::Done } else { Exit::Failed })
}
