//! The command line of the verbs that deal with people's data and the keys it is sealed under.

use clap::Args;

use crate::erase::Who;

/// Arguments of `erase`.
#[derive(Args, Clone, Debug)]
pub struct EraseArgs {
    /// The user's id, or the address they registered with; an id stays out of the shell's history what the log forgets
    pub user: Who,
    /// Why, in words that do not name the person: it stays in the log for ever
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Do not ask for confirmation
    #[arg(long)]
    pub yes: bool,
    /// Who, when it is not the login name; recorded in the log
    #[arg(long, value_name = "NAME")]
    pub operator: Option<String>,
}

/// Arguments of `rekey`.
#[derive(Args, Clone, Debug)]
pub struct RekeyArgs {
    /// Why, in words; recorded in the log
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Do not ask for confirmation
    #[arg(long)]
    pub yes: bool,
    /// Who, when it is not the login name; recorded in the log
    #[arg(long, value_name = "NAME")]
    pub operator: Option<String>,
}
