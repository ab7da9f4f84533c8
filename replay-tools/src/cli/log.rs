//! The command line of the verbs that move the log itself.

use std::path::PathBuf;

use clap::Args;

use calos_domain::Timestamp;

use super::WriteArgs;
use crate::log_file::LogFormat;
use crate::place::Place;
use crate::time_text;

/// Arguments of `export log`.
#[derive(Args, Clone, Debug)]
pub struct ExportLogArgs {
    /// How it is written: JSON lines compressed with zstd, or Parquet
    #[arg(long, value_enum)]
    pub format: LogFormat,
    /// The file
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace the file if it is there already
    #[arg(long)]
    pub force: bool,
    /// With the keys, wrapped by the master key, so that another database can go on with this log; whoever has such a file
    /// and the master key reads what is sealed in it, also of people who are erased later
    #[arg(long)]
    pub keys: bool,
}

/// Arguments of `import`.
#[derive(Args, Clone, Debug)]
pub struct ImportArgs {
    /// The file, from `export log`
    pub file: PathBuf,
    /// The ledger's public key in hexadecimal, or a file with it. Left out, a file with keys has to be signed by the ledger
    /// they belong to, and one without only has to agree with itself
    #[arg(long, value_name = "HEX|FILE")]
    pub key: Option<String>,
    /// Confirmation, reason and operator
    #[command(flatten)]
    pub write: WriteArgs,
}

/// Arguments of `backup`.
#[derive(Args, Clone, Debug)]
pub struct BackupArgs {
    /// A new folder for a backup of everything
    #[arg(long, short, value_name = "DIR", required_unless_present = "since", conflicts_with = "since")]
    pub output: Option<PathBuf>,
    /// The folder of an earlier backup: what the log has grown by since is added to it, with the keys as they are now
    #[arg(long, value_name = "DIR")]
    pub since: Option<PathBuf>,
    /// Why, in words; recorded in the log
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Who, when it is not the login name; recorded in the log
    #[arg(long, value_name = "NAME")]
    pub operator: Option<String>,
}

/// Arguments of `restore`.
#[derive(Args, Clone, Debug)]
pub struct RestoreArgs {
    /// The backup's folder
    pub folder: PathBuf,
    /// Only what was recorded by this moment (2026-01-31T12:00:00Z or 2026-01-31)
    #[arg(long, value_name = "TIME", value_parser = time_text::parse, conflicts_with = "until_position")]
    pub until: Option<Timestamp>,
    /// Only up to this event, PARTITION:POSITION, and of the other partitions what was recorded by then
    #[arg(long, value_name = "P:N")]
    pub until_position: Option<Place>,
    /// Confirmation, reason and operator
    #[command(flatten)]
    pub write: WriteArgs,
}
