//! The command line of `calos`.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use calos_adapters::config::{Config, ConfigError, Vars};
use calos_adapters::database::{Database, DatabaseError};
use calos_commands::log::LogError;

use crate::telemetry::{NoTelemetry, Telemetry};
use crate::wiring::StartError;
use crate::{admin, demo, logging, openapi, run};

/// The multi-tenant AI gateway with a prepaid, event-sourced ledger.
///
/// Settings come from the environment and from `.env`; `calos serve` prints what they resolved to. Without a
/// DATABASE_URL, CALOS makes and runs a private PostgreSQL under CALOS_DATA_DIR.
#[derive(Debug, Parser)]
#[command(name = "calos", version, max_term_width = 100, args_conflicts_with_subcommands = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

/// How long the end waits for what still blocks a thread: output that nobody reads would hold it up for ever.
const BLOCKED_MAX: Duration = Duration::from_secs(2);

const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 refused or a check failed, 2 wrong usage, 3 the environment is not as needed.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve HTTP, with the projection workers (the default command).
    Serve(ServeArgs),
    /// Bring the database to this program's schema and exit.
    Migrate,
    /// Print the OpenAPI 3.1 document of everything that is served.
    Openapi,
    /// Tell the whole story against a private database: register, chat, corrupt a balance by hand, detect it, replay it,
    /// prove it equal. Exits 0 only if every step held, and leaves nothing behind.
    Demo,
    /// Staff roles, licences and the keyring, from the console of the machine; each is a command with an event.
    #[command(subcommand)]
    Admin(AdminCommand),
}

/// How to serve.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct ServeArgs {
    /// Start clearly labelled simulated model providers on loopback and use them in place of real ones. They are also used
    /// when no provider is configured at all.
    #[arg(long)]
    pub simulate_providers: bool,
}

/// What the console may change.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Give a person a staff role.
    Grant {
        /// The email they registered with.
        email: String,
        /// The role.
        role: Role,
    },
    /// Take a staff role away.
    Revoke {
        /// The email they registered with.
        email: String,
        /// The role.
        role: Role,
    },
    /// Move a tenant to a tier, from now on.
    Tier {
        /// The tenant's id.
        tenant: uuid::Uuid,
        /// The tier.
        tier: TierName,
    },
    /// Give the keyring a new key, and seal every tenant's own provider key anew under it. Works beside running servers.
    RotateKeyring {
        /// Why, for the log.
        #[arg(long)]
        reason: Option<String>,
    },
}

/// What members of the staff may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Role {
    /// Watches the system and replays projections.
    Operator,
    /// Audits the ledger.
    Finance,
    /// Decides about posts.
    Moderator,
}

/// The tiers a licence can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum TierName {
    /// Local models.
    Free,
    /// Local models, more of them.
    Starter,
    /// Every model, 30 % on top of the provider's price.
    Pro,
    /// Every model, 15 % on top of the provider's price.
    Enterprise,
}

/// Why a command ended without having done what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A rule refuses it, or a check failed: exit code 1.
    #[error("{0}")]
    Refused(String),
    /// A setting is wrong: exit code 3.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// There is no database: exit code 3.
    #[error("{0}")]
    Database(#[from] DatabaseError),
    /// The log does not take commands: exit code 3.
    #[error("{0}")]
    Log(#[from] LogError),
    /// The server cannot start: exit code 3.
    #[error("{0}")]
    Start(#[from] StartError),
    /// Traces cannot be told as the settings say: exit code 3.
    #[error("{0}")]
    Telemetry(#[from] NoTelemetry),
    /// The machine refuses something: exit code 3.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl CliError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Refused(_) => ExitCode::from(1),
            Self::Config(_) | Self::Database(_) | Self::Log(_) | Self::Start(_) | Self::Telemetry(_) | Self::Io(_) => {
                ExitCode::from(3)
            }
        }
    }
}

/// Parses the arguments, does what they say, and tells how it went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&CliError::Io(error)),
    };
    let telemetry = match start_logging(&cli, runtime.handle()) {
        Ok(telemetry) => telemetry,
        Err(error) => return fail(&error),
    };
    crate::boundary::install_panic_hook();
    let done = runtime.block_on(dispatch(cli));
    // The runtime still carries what is handed over here.
    if let Some(telemetry) = telemetry {
        telemetry.stop();
    }
    runtime.shutdown_timeout(BLOCKED_MAX);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn dispatch(cli: Cli) -> Result<(), CliError> {
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => run::serve(Config::from_env()?, args).await,
        Command::Migrate => migrate().await,
        Command::Openapi => {
            let document = openapi::document_json().map_err(CliError::Refused)?;
            say(&document)
        }
        Command::Demo => demo::run().await,
        Command::Admin(command) => admin::run(Config::from_env()?, command).await,
    }
}

async fn migrate() -> Result<(), CliError> {
    let database = Database::open(&Config::from_env()?).await?;
    let partitions = database.partitions;
    database.close().await?;
    say(&format!("the database has this program's schema; its log has {partitions} partitions"))
}

/// Writes a line to standard output; a reader that went away is not an error.
///
/// # Errors
/// The operating system's.
pub fn say(line: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn fail(error: &CliError) -> ExitCode {
    // Nothing is left to do about standard error being closed.
    let _ = writeln!(std::io::stderr(), "calos: {error}");
    error.exit_code()
}

/// Logs go to standard error, traces of a server to where `OTEL_EXPORTER_OTLP_ENDPOINT` says.
fn start_logging(cli: &Cli, runtime: &tokio::runtime::Handle) -> Result<Option<Arc<Telemetry>>, CliError> {
    // What is wrong with the settings is told by whoever reads all of them.
    let vars = Vars::from_process().ok();
    let serves = matches!(cli.command, None | Some(Command::Serve(_)));
    let endpoint = vars.as_ref().and_then(|vars| vars.get("OTEL_EXPORTER_OTLP_ENDPOINT")).filter(|_| serves);
    let telemetry = endpoint.map(|endpoint| Telemetry::start(endpoint, runtime.clone())).transpose()?;
    logging::start(logging::Format::chosen(vars.as_ref()), telemetry.as_deref());
    Ok(telemetry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_serving_is_its_default() {
        Cli::command().debug_assert();
        let cli = Cli::parse_from(["calos", "--simulate-providers"]);
        assert!(cli.command.is_none() && cli.serve.simulate_providers);
        let cli = Cli::parse_from(["calos", "admin", "grant", "a@example.com", "operator"]);
        assert!(matches!(cli.command, Some(Command::Admin(AdminCommand::Grant { role: Role::Operator, .. }))));
        assert!(Cli::try_parse_from(["calos", "admin", "tier", "not-a-uuid", "pro"]).is_err());
    }
}
