//! `calos admin`: what only somebody at the console of the machine may do. Each is a command with an event, and works
//! beside a running server on the same database.

use clap::ValueEnum;

use calos_adapters::config::Config;
use calos_adapters::database::Database;
use calos_adapters::postgres::{LogOptions, PgLog};
use calos_adapters::secrets::{Rotated, Secrets};
use calos_commands::fault::Fault;
use calos_commands::log::{Done, LogError, Request};
use calos_commands::metadata::{Actor, Metadata};
use calos_commands::{licences, staff};
use calos_domain::TenantId;
use calos_domain::account::StaffRole;
use calos_domain::email_claim::EmailAddress;
use calos_domain::operation::{KeyringRotated, OperationCommand};
use calos_domain::tiers::Tier;
use calos_replay::operation::{self, run_by};
use calos_replay::turn::{Deed, Part, Reach, Turn};
use sqlx::PgPool;

use crate::cli::{AdminCommand, CliError, Role, TierName, say};
use crate::request::now;
use crate::wiring::{StartError, secrets_options};

/// The longest login name that is recorded as the actor.
const LOGIN_MAX_CHARACTERS: usize = 64;

/// Carries out one command and says what it did.
///
/// # Errors
/// [`CliError::Refused`] when a rule refuses it, the others when there is no database to decide on.
pub async fn run(config: Config, command: AdminCommand) -> Result<(), CliError> {
    let database = Database::open(&config).await?;
    let decided = decide(&config, &database, command).await;
    let closed = database.close().await;
    let report = decided?;
    closed?;
    say(&report)
}

async fn decide(config: &Config, database: &Database, command: AdminCommand) -> Result<String, CliError> {
    let secrets = Secrets::open(database.pool.clone(), &secrets_options(config)).await.map_err(StartError::from)?;
    let log = PgLog::open(database.pool.clone(), LogOptions::default()).await?;
    let outcome = execute(&database.pool, &log, &secrets, command).await;
    log.close().await;
    outcome
}

async fn execute(pool: &PgPool, log: &PgLog, secrets: &Secrets, command: AdminCommand) -> Result<String, CliError> {
    let request = Request::from(Metadata::new(Actor::Console(login_name())));
    let world = secrets.world();
    match command {
        AdminCommand::Grant { email, role } => {
            let address = parse(&email)?;
            let done = staff::grant(log, &world, &address, staff_role(role), now(), request).await;
            Ok(changed(&refused(done)?, &format!("{email} has the role {}", name(&role))))
        }
        AdminCommand::Revoke { email, role } => {
            let address = parse(&email)?;
            let done = staff::revoke(log, &world, &address, staff_role(role), now(), request).await;
            Ok(changed(&refused(done)?, &format!("{email} does not have the role {}", name(&role))))
        }
        AdminCommand::Tier { tenant, tier } => {
            let done = licences::change_tier(log, TenantId(tenant), tier_of(tier), now(), request).await;
            Ok(changed(&refused(done)?, &format!("tenant {tenant} has the tier {}", name(&tier))))
        }
        AdminCommand::RotateKeyring { reason } => rotate_keyring(pool, log, secrets, reason).await,
    }
}

/// Rotates the keyring and records that. A rotation that fails to be recorded has happened all the same; the next one is
/// recorded with its own number.
async fn rotate_keyring(
    pool: &PgPool,
    log: &PgLog,
    secrets: &Secrets,
    reason: Option<String>,
) -> Result<String, CliError> {
    let run = run_by(Some(login_name()), reason);
    let turn = Turn::take(pool, Deed::RotateKeyring, &run, Reach::Part(Part::Keyring)).await;
    let turn = turn.map_err(|error| CliError::Refused(error.to_string()))?;
    let rotated = secrets.keyring().rotate().await.map_err(|error| CliError::Refused(error.to_string()))?;
    let Rotated { version, resealed, unopenable } = rotated;
    let fact = KeyringRotated { run: run.clone(), version, resealed, unopenable, rotated_at: now() };
    let recorded = operation::record(log, &run, OperationCommand::RecordKeyringRotated(fact)).await;
    recorded
        .map_err(|error| CliError::Refused(format!("the keyring was rotated, but that is not recorded: {error}")))?;
    turn.end().await.map_err(|error| CliError::Refused(error.to_string()))?;
    let report = format!("the keyring has key {version} now; {resealed} entries are sealed anew under it");
    if unopenable == 0 {
        Ok(report)
    } else {
        Err(CliError::Refused(format!("{report}, and {unopenable} do not open; the log names them")))
    }
}

/// Says whether there was anything to do.
fn changed<T>(done: &Done<T>, fact: &str) -> String {
    if done.positions.0.is_empty() { format!("{fact} already") } else { format!("{fact} now (at {})", done.positions) }
}

/// A choice as it is typed.
fn name(choice: &impl ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// A refusal is the caller's affair; everything else is the environment's.
fn refused<T, E: std::fmt::Display>(done: Result<Done<T>, Fault<E>>) -> Result<Done<T>, CliError> {
    done.map_err(|fault| match fault {
        Fault::Refused(refusal) => CliError::Refused(refusal.to_string()),
        Fault::Log(error) => CliError::Log(error),
        Fault::Seal(error) => CliError::Log(LogError::Unavailable(error.to_string())),
        Fault::Hash(error) => CliError::Log(LogError::Unavailable(error.to_string())),
        Fault::Token(error) => CliError::Log(LogError::Unavailable(error.to_string())),
    })
}

fn parse(email: &str) -> Result<EmailAddress, CliError> {
    email.parse().map_err(|error| CliError::Refused(format!("{email}: {error}")))
}

const fn staff_role(role: Role) -> StaffRole {
    match role {
        Role::Operator => StaffRole::Operator,
        Role::Finance => StaffRole::Finance,
        Role::Moderator => StaffRole::Moderator,
    }
}

const fn tier_of(tier: TierName) -> Tier {
    match tier {
        TierName::Free => Tier::Free,
        TierName::Starter => Tier::Starter,
        TierName::Pro => Tier::Pro,
        TierName::Enterprise => Tier::Enterprise,
    }
}

/// Who sits at the console, as far as the environment says.
fn login_name() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|variable| std::env::var(variable).ok());
    let name: String =
        name.unwrap_or_default().chars().filter(|c| !c.is_control()).take(LOGIN_MAX_CHARACTERS).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}
