//! Deletes what is left in the keyring without an event, now and then: see [`calos_commands::byok::sweep`].

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use calos_adapters::postgres::PgLog;
use calos_adapters::secrets::Secrets;
use calos_commands::byok::{self, ByokFailure};
use calos_domain::KeyringEntryId;
use uuid::Uuid;

/// How often the keyring is looked through.
pub const SWEEP_SECONDS: u64 = 600;

/// The most pages one sweep looks at; what is left waits for the next.
const PAGES_MAX: usize = 50;

/// Looks through the keyring until `stop`.
#[must_use]
pub fn spawn(secrets: Secrets, log: PgLog, stop: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(SWEEP_SECONDS)) => {}
            }
            let Some(swept) = log.pulse().unless_lost(sweep(&secrets, &log)).await else {
                tracing::warn!("the keyring could not be swept: the database does not answer");
                continue;
            };
            match swept {
                Ok(0) => {}
                Ok(deleted) => tracing::info!(deleted, "entries of the keyring were deleted that nobody uses"),
                Err(error) => tracing::warn!(%error, "the keyring could not be swept; it will be tried again"),
            }
        }
    })
}

/// Deletes what nobody uses and is not young, and answers how many entries that were.
///
/// # Errors
/// The keyring's and the log's; what was deleted before stays so.
pub async fn sweep(secrets: &Secrets, log: &PgLog) -> Result<usize, ByokFailure> {
    let keyring = secrets.keyring();
    let (mut after, mut deleted) = (KeyringEntryId(Uuid::nil()), 0);
    for _ in 0..PAGES_MAX {
        let page = keyring.unclaimed(after).await?;
        let Some(last) = page.last() else { break };
        after = last.entry_id;
        deleted += byok::sweep(log, keyring.as_ref(), &page).await?;
    }
    Ok(deleted)
}
