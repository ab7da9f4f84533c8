//! `calos demo`: the whole story on a private database, over real HTTP, with every claim checked as it is told.

mod client;
mod story;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use calos_adapters::config::{Config, Vars};
use calos_adapters::database::Database;
use calos_adapters::postgres;

use crate::cli::{CliError, say};
use crate::run::Running;
use crate::serve::asked_to_stop;

use story::Story;

/// How long the demo's own calls may take to finish at its end.
const GRACE: Duration = Duration::from_secs(5);

/// Connections with the owner's rights: what the corruption and the replay need.
const OWNER_CONNECTIONS: u32 = 4;

/// Tells the story.
///
/// # Errors
/// [`CliError::Refused`] for the first step that did not hold; the others when the machine cannot run it.
pub async fn run() -> Result<(), CliError> {
    // From the very beginning, so that a signal never leaves the private database behind.
    let asked = tokio::spawn(asked_to_stop());
    let folder = private_folder()?;
    let config = Config::from_vars(&Vars::from_pairs([
        ("CALOS_DATA_DIR", folder.path().join("data").to_string_lossy().into_owned()),
        ("CALOS_BIND", "127.0.0.1".to_owned()),
        ("PORT", "0".to_owned()),
    ]))?;
    say(&format!("A private database is made in {} …", folder.path().display()))?;
    let database = Database::open(&config).await?;
    let cluster = database.cluster().map(|cluster| cluster.folder().to_owned());
    let told = tokio::select! {
        told = tell(&config, database) => told,
        signal = asked => Err(stopped(signal)),
    };
    let removed = remove(folder, cluster.as_deref());
    told?;
    removed?;
    say("\nEvery step held, and nothing is left behind.")
}

fn stopped(signal: Result<std::io::Result<&'static str>, tokio::task::JoinError>) -> CliError {
    match signal {
        Ok(Ok(signal)) => CliError::Refused(format!("stopped by {signal}; nothing is left behind")),
        Ok(Err(error)) => error.into(),
        Err(error) => CliError::Refused(error.to_string()),
    }
}

/// A folder of the demo's own that PostgreSQL's user may pass through. `/tmp` where there is one: a socket's path is short.
fn private_folder() -> Result<TempDir, CliError> {
    let near = Some(Path::new("/tmp")).filter(|path| path.is_dir()).map_or_else(std::env::temp_dir, Path::to_path_buf);
    let passable = std::fs::Permissions::from_mode(0o711);
    Ok(tempfile::Builder::new().prefix("calos-demo-").permissions(passable).tempdir_in(near)?)
}

async fn tell(config: &Config, database: Database) -> Result<(), CliError> {
    let owner_url = database.owner_url.clone();
    let running = Running::start(config.clone(), database, true).await?;
    let outcome = match postgres::connect_owner(&owner_url, OWNER_CONNECTIONS).await {
        Ok(owner) => {
            let outcome = match Story::new(config, &running, owner.clone()) {
                Ok(mut story) => story.tell().await,
                Err(error) => Err(error),
            };
            owner.close().await;
            outcome
        }
        Err(error) => Err(CliError::Database(error.into())),
    };
    running.stop(GRACE).await;
    outcome
}

/// Removes the demo's folder, and its cluster where that had to live elsewhere.
fn remove(folder: TempDir, cluster: Option<&Path>) -> Result<(), CliError> {
    let elsewhere: Option<PathBuf> =
        cluster.filter(|cluster| !cluster.starts_with(folder.path())).map(Path::to_path_buf);
    folder.close()?;
    match elsewhere {
        Some(cluster) if cluster.exists() => Ok(std::fs::remove_dir_all(cluster)?),
        _ => Ok(()),
    }
}
