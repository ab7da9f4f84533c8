//! The command line of `calos-replay`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use uuid::Uuid;

use calos_domain::{Asset, TenantId, Timestamp};

use crate::rebuild::{REBUILD_WORKERS, REBUILD_WORKERS_MAX};
use crate::time_text;

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
    /// The new version is built beside the live one, in the schema read_next, partition by partition and in parallel;
    /// reads and writes go on. A rebuild that is interrupted keeps its finished partitions, and the same command goes on
    /// from there. Differences to the rows that stood are reported and never stop the switch: after an incident they are
    /// the point. The version before stays in read_old until the next rebuild. Run, reason and result are recorded in
    /// the log.
    Rebuild(RebuildArgs),
    /// Prove that the log is what was written, and that everything shown follows from it
    ///
    /// Recomputes the chain of every partition from its first event, holds it against the heads and against the signed
    /// anchors kept outside the database, decodes every payload, checks every stream and every data key, and folds
    /// every read model once more to compare it row by row. One line per check; exit code 1 names the first difference.
    Verify(VerifyArgs),
    /// Compare a read model's rows with a fresh fold of the log, row by row, changing nothing
    Diff(DiffArgs),
    /// What a wallet held at some moment, folded from the log
    Balance(BalanceArgs),
    /// The log as JSON lines, filtered, and followed as it grows
    Events(EventsArgs),
    /// What projections set aside, and taking it up again
    #[command(subcommand)]
    DeadLetters(DeadLettersVerb),
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

/// Arguments of `rebuild`.
#[derive(Args, Clone, Debug)]
pub struct RebuildArgs {
    /// The projection's name, or `all`
    pub projection: String,
    /// Replace the live rows in one transaction while their readers wait; for a table that is empty or broken
    #[arg(long, conflicts_with = "restart")]
    pub in_place: bool,
    /// Forget an unfinished rebuild and begin anew
    #[arg(long)]
    pub restart: bool,
    /// Partitions folded at the same time
    #[arg(long, value_name = "N", default_value_t = REBUILD_WORKERS, value_parser = workers)]
    pub workers: usize,
    /// How many differing rows are listed; all are counted
    #[arg(long, value_name = "N", default_value_t = crate::differences::DIFFERENCES_LISTED_ROWS)]
    pub limit: i64,
    /// Confirmation, reason and operator
    #[command(flatten)]
    pub write: WriteArgs,
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
    /// Take up again what was set aside, stream by stream and in order
    Retry {
        /// The projection's name, or `all`
        projection: String,
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
    },
}

fn workers(text: &str) -> Result<usize, String> {
    let range = || format!("a number from 1 to {REBUILD_WORKERS_MAX}");
    text.parse().ok().filter(|workers| (1..=REBUILD_WORKERS_MAX).contains(workers)).ok_or_else(range)
}

fn asset(text: &str) -> Result<Asset, String> {
    let known = Asset::ALL.into_iter().find(|asset| asset.as_str().eq_ignore_ascii_case(text));
    known.ok_or_else(|| "expected USD or CREDIT".to_owned())
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
