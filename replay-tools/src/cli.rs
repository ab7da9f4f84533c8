//! The command line of `calos-replay`.

pub mod log;
pub mod people;
pub mod rebuild;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use uuid::Uuid;

use calos_domain::{Asset, TenantId, Timestamp};

use crate::export::{Format, Holds};
use crate::place::Place;
use crate::time_text;

pub use rebuild::RebuildArgs;

/// Looks at the event log, proves it, and rebuilds from it what CALOS shows.
///
/// Reads the same environment and `.env` as the server; with no DATABASE_URL it joins the embedded database of a running
/// server or starts it itself. Everything works while the server runs.
///
/// Exit codes: 0 done, 1 the check failed or the work could not be finished, 2 usage, 3 environment.
#[derive(Parser, Debug)]
#[command(name = "calos-replay", version, max_term_width = 110)]
pub struct Cli {
    /// One JSON document on standard output instead of lines for people
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress on standard error
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// How far every read model is, what it set aside, and where the log ends
    Status,
    /// Build a read model anew from the log, compare it with what stands, and put it in its place
    ///
    /// The new version is built beside the live one, in the schema read_next and in parallel; reads and writes go on. A
    /// rebuild that is interrupted keeps what it has finished, and the same command goes on from there. Differences to the rows that stood are reported and never stop the switch: after an incident they are
    /// the point. The version before stays in read_old until the next rebuild. Run, reason and result are recorded in
    /// the log; so is that it was stopped with Ctrl-C or SIGTERM.
    Rebuild(RebuildArgs),
    /// Prove that the log is what was written, and that everything shown follows from it
    ///
    /// Recomputes the chain of every partition from its first event, holds it against the heads and against the signed
    /// anchors kept outside the database, decodes every payload, checks every stream, every data key and the hash of
    /// every closed month, and folds every read model once more to compare it row by row. One line per check; exit code
    /// 1 names the first difference.
    Verify(VerifyArgs),
    /// Compare a read model's rows with a fresh fold of the log, row by row, changing nothing
    Diff(DiffArgs),
    /// What a wallet held at some moment
    ///
    /// By the read models, in milliseconds however long the history is. With --from-log the wallet's events are folded
    /// once more by the wallet's own rules, which takes as long as its history and also tells what was granted.
    Balance(BalanceArgs),
    /// Every account of the book at some moment, and what became known between two
    ///
    /// By effective time (--as-of), by recorded time (--as-known-at), or both. With --compared-with the lines that what
    /// was recorded between the two moments changed: late facts, corrections, adjustments.
    TrialBalance(TrialBalanceArgs),
    /// The book, or the log itself, as a file
    #[command(subcommand)]
    Export(ExportVerb),
    /// One event with its seal, signed, for a customer to keep and to check without CALOS
    #[command(subcommand)]
    Receipt(ReceiptVerb),
    /// The log as JSON lines, filtered, and followed as it grows
    Events(EventsArgs),
    /// What projections set aside, taking it up again, and leaving an event out
    #[command(subcommand)]
    DeadLetters(DeadLettersVerb),
    /// The stored states of aggregates, which only speed a load up
    #[command(subcommand)]
    Snapshots(SnapshotsVerb),
    /// Sign the heads of the log as they are now, and append them to the anchors
    ///
    /// The server does so by itself at intervals. Before a risky piece of work, or after a server that did not stop in
    /// order, this makes sure that everything up to now is vouched for outside the database.
    Anchor,
    /// The operator's checklist, each line measured: the server, the log, the read models, the book, providers, backups
    ///
    /// One line per check: ok, warn or FAIL, with the figure. Exit code 0 when nothing failed, 1 when something did, 3 when the
    /// database itself cannot be opened. A warning does not fail; it wants to be read.
    Check(CheckArgs),
    /// Read a log from a file into this database, which has to be empty, and make every read model from it
    ///
    /// The chain is recomputed while it is read: a bit that flipped, a line that is missing or a file that was cut is
    /// refused, and nothing is left behind. No server may have used the database yet.
    Import(log::ImportArgs),
    /// Write the log, the keys and the small tables that are no projections into a folder, while everything goes on
    ///
    /// With --since only what the log has grown by is written, as one file more. The keys are wrapped by the master key,
    /// which is not in the backup.
    Backup(log::BackupArgs),
    /// Fill this database, which has to be empty, from a backup, and make every read model from it
    ///
    /// Keys of subjects erased since stay away. Where the log ends earlier than it once did, a new epoch of it begins, signed
    /// and kept with the anchors, so that `verify` can tell this from a tail that was cut.
    Restore(log::RestoreArgs),
    /// Erase a person: destroy the key their data is sealed under, close the account for ever, and put right what was made
    /// from it
    ///
    /// Noted outside the database first, so that no restore brings the key back, then recorded in the log, which stays as
    /// it is: the chain holds, and so do all sums. Their address can be registered anew. Killed at any point, the same
    /// command finishes it. Tenants outlive a person; keys of those nobody else belongs to are revoked. What it does is shown
    /// before it asks.
    Erase(people::EraseArgs),
    /// Wrap every data key anew by CALOS_MASTER_KEY, so that CALOS_MASTER_KEY_PREVIOUS can go
    ///
    /// Set the new master key as CALOS_MASTER_KEY and the old one as CALOS_MASTER_KEY_PREVIOUS, restart the servers, and run
    /// this; then take the old one out. No event is touched. Killed at any point, the same command goes on.
    Rekey(people::RekeyArgs),
}

/// Who changes something, and that they mean it.
#[derive(Args, Clone, Debug)]
pub struct WriteArgs {
    /// Do not ask for confirmation
    #[arg(long)]
    pub yes: bool,
    /// Why, in words; recorded in the log
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Who, when it is not the login name; recorded in the log
    #[arg(long, value_name = "NAME")]
    pub operator: Option<String>,
}

/// Arguments of `verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// The seal alone: contiguity, chain, heads and anchors
    #[arg(long)]
    pub chain: bool,
    /// The folder with the signed heads, when it is not CALOS_ANCHOR_DIR
    #[arg(long, value_name = "DIR")]
    pub anchors: Option<PathBuf>,
}

/// Arguments of `diff`.
#[derive(Args, Clone, Debug)]
pub struct DiffArgs {
    /// The projection's name, or `all`
    pub projection: String,
    /// How many differing rows are listed; all are counted
    #[arg(long, value_name = "N", default_value_t = crate::differences::DIFFERENCES_LISTED_ROWS)]
    pub limit: i64,
}

/// Arguments of `balance`.
#[derive(Args, Clone, Debug)]
pub struct BalanceArgs {
    /// Whose wallet
    pub tenant: TenantId,
    /// By effective time: what had taken effect by then (2026-01-31T12:00:00Z or 2026-01-31)
    #[arg(long, value_name = "TIME", value_parser = time_text::parse)]
    pub as_of: Option<Timestamp>,
    /// By recorded time: what the log knew by then
    #[arg(long, value_name = "TIME", value_parser = time_text::parse)]
    pub as_known_at: Option<Timestamp>,
    /// USD or CREDIT; both when left out
    #[arg(long, value_parser = asset)]
    pub asset: Option<Asset>,
    /// Fold the wallet's events instead of asking the read models
    #[arg(long)]
    pub from_log: bool,
}

/// Arguments of `trial-balance`.
#[derive(Args, Clone, Copy, Debug)]
pub struct TrialBalanceArgs {
    /// By effective time: what had taken effect by then (2026-01-31T12:00:00Z or 2026-01-31)
    #[arg(long, value_name = "TIME", value_parser = time_text::parse)]
    pub as_of: Option<Timestamp>,
    /// By recorded time: what the log knew by then
    #[arg(long, value_name = "TIME", value_parser = time_text::parse)]
    pub as_known_at: Option<Timestamp>,
    /// Another recorded time: the lines that differ between the two
    #[arg(long, value_name = "TIME", value_parser = time_text::parse)]
    pub compared_with: Option<Timestamp>,
}

/// What is exported.
#[derive(Subcommand, Clone, Debug)]
pub enum ExportVerb {
    /// Every entry of the book up to where the log ends now
    ///
    /// The same heads of the log always give the same bytes; they stand at the beginning of the file, and at its end that it
    /// is whole. Until it is, a file has a temporary name.
    Journal(ExportJournalArgs),
    /// Every event of the log up to where it ends now, byte for byte, with its seal: what `import` reads
    ///
    /// The heads are signed, so that the file proves itself. Keys are in it only with --keys. Until it is whole, it has a
    /// temporary name.
    Log(log::ExportLogArgs),
}

/// Arguments of `export journal`.
#[derive(Args, Clone, Debug)]
pub struct ExportJournalArgs {
    /// How it is written
    #[arg(long, value_enum)]
    pub format: Format,
    /// The file; `-` is standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace the file if it is there already
    #[arg(long)]
    pub force: bool,
    /// One tenant's entries alone
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<TenantId>,
    /// Only what took effect at this moment or later; a date is its first instant, UTC
    #[arg(long, value_name = "TIME", value_parser = time_text::parse)]
    pub from: Option<Timestamp>,
    /// Only what took effect before this moment, which itself is left out: 2026-02-01 ends with January
    #[arg(long, value_name = "TIME", value_parser = time_text::parse)]
    pub to: Option<Timestamp>,
    /// Whether each hold has an account of its own, or a tenant's holds share one
    #[arg(long, value_enum, default_value_t = Holds::Each)]
    pub holds: Holds,
}

/// What to do with receipts.
#[derive(Subcommand, Clone, Debug)]
pub enum ReceiptVerb {
    /// Issue the receipt of one event, as JSON on standard output
    Show {
        /// Which event: PARTITION:POSITION, as every line of the ledger has it
        place: Place,
    },
    /// Check a receipt; needs neither a database nor settings
    Check {
        /// The receipt; `-` is standard input
        file: PathBuf,
        /// The ledger's public key in hexadecimal, or a file with it; CALOS publishes it under
        /// /.well-known/calos-ledger-key. Without it the receipt is only shown to be unchanged, not whose it is
        #[arg(long, value_name = "HEX|FILE")]
        key: Option<String>,
    },
}

/// Arguments of `events`.
#[derive(Args, Clone, Debug)]
pub struct EventsArgs {
    /// Of one stream: KIND/ID, such as wallet/0193a5c8-…
    #[arg(long, value_name = "KIND/ID", value_parser = stream)]
    pub stream: Option<(String, String)>,
    /// With this event name, such as `credits_deducted`
    #[arg(long = "type", value_name = "NAME")]
    pub event_type: Option<String>,
    /// Of one conversation
    #[arg(long, value_name = "UUID")]
    pub correlation: Option<Uuid>,
    /// Recorded at this moment or later
    #[arg(long, value_name = "TIME", value_parser = time_text::parse)]
    pub from: Option<Timestamp>,
    /// Recorded before this moment
    #[arg(long, value_name = "TIME", value_parser = time_text::parse)]
    pub to: Option<Timestamp>,
    /// Of one partition
    #[arg(long, value_name = "N")]
    pub partition: Option<i32>,
    /// No more than this many
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Go on with what is appended from now on, until interrupted
    #[arg(long)]
    pub follow: bool,
}

/// What to do with dead letters.
#[derive(Subcommand, Clone, Debug)]
pub enum DeadLettersVerb {
    /// What is set aside
    List {
        /// The projection's name, or `all`
        #[arg(default_value = "all")]
        projection: String,
    },
    /// One event that is set aside: what it says, what is wrong with it, and what waits behind it
    Show {
        /// The projection's name
        projection: String,
        /// Which event: PARTITION:POSITION, as `list` has it
        place: Place,
    },
    /// Take up again what was set aside, stream by stream and in order
    Retry {
        /// The projection's name, or `all`
        projection: String,
        /// Confirmation, reason and operator
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Leave one event out of a projection, and take up those that waited behind it
    ///
    /// The event stays in the log, and this is recorded there before it happens. A version that is built later takes the
    /// event if it can, and leaves it out if it cannot.
    Skip {
        /// The projection's name
        projection: String,
        /// Which event: PARTITION:POSITION, as `list` has it
        place: Place,
        /// Why, in words; recorded in the log
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
        /// Who, when it is not the login name; recorded in the log
        #[arg(long, value_name = "NAME")]
        operator: Option<String>,
    },
}

/// Arguments of `check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Which list; each has the lines of the shorter ones too
    #[arg(value_enum)]
    pub list: crate::check::List,
    /// Where the server answers, such as http://127.0.0.1:5001; PORT on this machine when left out
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// What to do with snapshots.
#[derive(Subcommand, Clone, Debug)]
pub enum SnapshotsVerb {
    /// Delete them; every answer stays the same, and new ones are written as streams grow
    Drop {
        /// Of one kind of aggregate, such as `wallet`; of all when left out
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        /// Confirmation, reason and operator
        #[command(flatten)]
        write: WriteArgs,
    },
}

fn asset(text: &str) -> Result<Asset, String> {
    text.to_ascii_uppercase().parse().map_err(|_| "expected USD or CREDIT".to_owned())
}

fn stream(text: &str) -> Result<(String, String), String> {
    let (kind, id) = text.split_once('/').ok_or_else(|| "expected KIND/ID".to_owned())?;
    Ok((kind.to_owned(), id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_says_everything() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        command.build();
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
            for argument in verb.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", verb.get_name(), argument.get_id());
            }
        }
    }

    #[test]
    fn a_stream_is_its_kind_and_an_id_that_may_have_a_slash() {
        assert_eq!(stream("api_key/tenant/key").unwrap(), ("api_key".to_owned(), "tenant/key".to_owned()));
        assert!(stream("wallet").is_err());
    }
}
