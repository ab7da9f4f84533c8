//! `rekey`: every data key is wrapped by the current master key, so that the one before can be taken out of the settings.
//!
//! Servers wrap a key anew when they next use it; this does so for all of them, without touching an event or anything that
//! is sealed. It goes on beside running servers, and what is done stays done, however it ends.

use serde::Serialize;
use sqlx::PgPool;

use calos_adapters::config::MasterKey;
use calos_adapters::secrets::{Keyring, RootSecret, SecretsError, SubjectKeys};
use calos_commands::log::EventLog;
use calos_commands::ports::SealError;
use calos_domain::operation::{DataKeysRewrapped, OperationCommand, RunBy};

use crate::error::ToolError;
use crate::operation::{now, record};
use crate::progress::{Progress, Show};
use crate::turn::{Deed, Reach, Turn};
use crate::write_guard::Confirmed;

/// A server that still runs with the old settings makes keys that have to be wrapped anew again; it is not chased for ever.
const PASSES_MAX: u32 = 5;

/// The master keys, as the settings have them.
#[derive(Clone, Copy)]
pub struct MasterKeys<'a> {
    /// `CALOS_MASTER_KEY`
    pub current: &'a MasterKey,
    /// `CALOS_MASTER_KEY_PREVIOUS`
    pub previous: Option<&'a MasterKey>,
}

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rekeyed {
    /// Data keys that the previous master key had wrapped.
    pub rewrapped: u64,
    /// Data keys that the current one had wrapped before.
    pub already: u64,
    /// Data keys that do not open, and were left as they were.
    pub unopenable: u64,
}

/// Wraps everything anew that the previous master key wrapped, and records that: the root secret, the keyring's keys, and
/// page by page the data keys.
///
/// # Errors
/// [`ToolError::Busy`] while another operator is at work; [`ToolError::Refused`] when something was wrapped by a master key
/// that is not given, with nothing changed, and when a server goes on with the old one; the database's.
pub async fn rekey<L: EventLog>(
    pool: &PgPool,
    log: &L,
    master: MasterKeys<'_>,
    run: &RunBy,
    show: Show,
    _confirmed: &Confirmed,
) -> Result<Rekeyed, ToolError> {
    let turn = Turn::take(pool, Deed::Rekey, run, Reach::WholeLog).await?;
    let keys = SubjectKeys::new(pool.clone(), master.current, master.previous);
    let (all, unknown) = keys.count().await.map_err(|error| of_seal(&error))?;
    if unknown > 0 {
        return Err(ToolError::Refused(format!(
            "{unknown} of {all} data keys were wrapped by a master key that is neither CALOS_MASTER_KEY nor \
             CALOS_MASTER_KEY_PREVIOUS: set the one before as CALOS_MASTER_KEY_PREVIOUS; nothing was changed"
        )));
    }
    RootSecret::open(pool, master.current, master.previous).await.map_err(of_secrets)?;
    Keyring::open(pool.clone(), master.current, master.previous).await.map_err(of_secrets)?;
    let progress = Progress::new(show, "rekey", keys.count_others().await.map_err(|error| of_seal(&error))?);
    let rekeyed = until_none_is_left(&keys, &progress).await;
    progress.finish();
    let rekeyed = rekeyed?;
    let Rekeyed { rewrapped, already, unopenable } = rekeyed;
    let fact = DataKeysRewrapped { run: run.clone(), rewrapped, already, unopenable, rewrapped_at: now() };
    record(log, run, OperationCommand::RecordRewrapped(fact)).await?;
    turn.end().await?;
    Ok(rekeyed)
}

async fn until_none_is_left(keys: &SubjectKeys, progress: &Progress) -> Result<Rekeyed, ToolError> {
    let mut sum = Rekeyed::default();
    for pass in 0..PASSES_MAX {
        let mut counter = progress.counter();
        let done =
            keys.rewrap_all(|page| (0..page).for_each(|_| counter.event())).await.map_err(|error| of_seal(&error))?;
        if pass == 0 {
            sum.already = done.already;
        }
        sum.rewrapped += done.rewrapped;
        sum.unopenable = done.unopenable;
        if keys.count_others().await.map_err(|error| of_seal(&error))? <= done.unopenable {
            return Ok(sum);
        }
    }
    Err(ToolError::Refused(format!(
        "{} data keys are wrapped by the current master key, and others go on being wrapped by the one before: a server \
         still runs with the old settings. Restart it with the new ones, and run this again",
        sum.rewrapped + sum.already
    )))
}

fn of_seal(error: &SealError) -> ToolError {
    ToolError::Environment(error.to_string())
}

fn of_secrets(error: SecretsError) -> ToolError {
    match error {
        SecretsError::Database(error) => ToolError::Database(error),
        error @ SecretsError::AnotherMasterKey => ToolError::Refused(error.to_string()),
        error @ (SecretsError::Root | SecretsError::Cost(_) | SecretsError::Hashing(_)) => {
            ToolError::Environment(error.to_string())
        }
    }
}
