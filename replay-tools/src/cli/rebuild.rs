//! The command line of `rebuild`.

use clap::Args;

use calos_domain::Timestamp;

use super::WriteArgs;
use crate::rebuild::only::Only;
use crate::rebuild::{REBUILD_WORKERS, REBUILD_WORKERS_MAX};
use crate::time_text;

/// Arguments of `rebuild`.
#[derive(Args, Clone, Debug)]
pub struct RebuildArgs {
    /// The projection's name, or `all`
    pub projection: String,
    /// Put right what belongs to one tenant or stream: wallet:UUID, tenant:UUID or stream:KIND/ID
    ///
    /// Those streams alone are folded, up to where the live version is, and rows that differ are replaced in one transaction;
    /// nobody else's row is touched. A wallet is the stream wallet/UUID. What cannot be put right this way, such as sums over
    /// every tenant, is refused with what to do instead; with `all` it is left out and named. Rows that lack an event which is
    /// set aside are refused too: see dead-letters.
    #[arg(long, value_name = "WHAT", conflicts_with_all = ["in_place", "restart", "until"])]
    pub only: Option<Only>,
    /// Build and compare, but change nothing that is live, record nothing and leave nothing behind
    ///
    /// Does all the work of a rebuild, in parallel and with every key: it says how long that takes, which events the new version
    /// would set aside, and in which rows it would differ. `diff` folds into temporary tables one partition after the other and
    /// fails (exit code 1) when a row differs; this ends with exit code 0 whatever it finds, with the count in --json.
    #[arg(long, conflicts_with = "in_place")]
    pub dry_run: bool,
    /// What the read model would say if the log had ended at this moment of recording (2026-01-31T12:00:00Z or 2026-01-31)
    ///
    /// For investigations: never goes live. Its tables stay in the schema read_next, under their names, to be asked with SQL,
    /// until the next rebuild of the projection takes their place; with --dry-run they go at once. The differences that are
    /// reported are what has changed since then. Nothing is recorded.
    #[arg(long, value_name = "TIME", value_parser = time_text::parse, conflicts_with = "in_place")]
    pub until: Option<Timestamp>,
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

impl RebuildArgs {
    /// What has to be confirmed, as it is typed; nothing when nothing that is live changes and no unfinished work is
    /// forgotten.
    pub(crate) fn change(&self) -> Option<String> {
        let looks_only = self.dry_run || self.until.is_some();
        if looks_only && !self.restart {
            return None;
        }
        let only = self.only.as_ref().map_or_else(String::new, |only| format!(" --only {only}"));
        Some(format!("rebuild {}{only}", self.projection))
    }
}

fn workers(text: &str) -> Result<usize, String> {
    let range = || format!("a number from 1 to {REBUILD_WORKERS_MAX}");
    text.parse().ok().filter(|workers| (1..=REBUILD_WORKERS_MAX).contains(workers)).ok_or_else(range)
}
