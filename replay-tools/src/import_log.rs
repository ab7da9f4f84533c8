//! `import`: a log from a file into an empty database, proved while it is read, or nothing at all.

use std::path::Path;

use ed25519_dalek::VerifyingKey;
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use calos_adapters::erasures;
use calos_commands::log::EventLog;
use calos_domain::operation::{LogImported, OperationCommand, RunBy};

use crate::error::ToolError;
use crate::load::{Load, Until, load};
use crate::log_file::Source;
use crate::operation::{self, now};
use crate::progress::Show;
use crate::rebuild::replay_all;
use crate::turn::{Deed, Reach, Turn};
use crate::versions::Vector;
use crate::write_guard::Confirmed;

/// What an import did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Imported {
    /// Which log.
    pub log_id: Uuid,
    /// The heads it has, before the import itself was recorded in it.
    pub heads: Vector,
    /// Its events.
    pub events: u64,
    /// Whether keys came with it.
    pub keys: bool,
    /// Keys that were left out, of subjects erased since the file was written.
    pub erased: u64,
    /// Whose signature the heads of the file bear, hexadecimal.
    pub signed_by: String,
    /// Read models that were made from it.
    pub read_models: usize,
}

/// Reads a log into this database, which has to be empty, and makes every read model from it. The file has to be signed by
/// `key`; without one it only has to agree with itself. The keys of whoever was erased from this log since, by the list in
/// `directory`, are left out. `pool` has to log in as the owner, and no server may be running.
///
/// # Errors
/// [`ToolError::Refused`] when the database is not empty, [`ToolError::Corrupt`] with what is wrong with the file or with
/// the list of erasures; in either case nothing was changed. The database's and the files'.
pub async fn import_log(
    pool: &PgPool,
    path: &Path,
    directory: &Path,
    key: Option<VerifyingKey>,
    run: &RunBy,
    show: Show,
    _confirmed: &Confirmed,
) -> Result<Imported, ToolError> {
    let turn = Turn::take(pool, Deed::Import, run, Reach::WholeLog).await?;
    let (header, signed) = Source::header(path, key).await?;
    let (signed_by, keys) = (hex::encode(signed.to_bytes()), !header.tables.is_empty());
    let erased = erasures::read(directory, header.log_id()).map_err(|error| ToolError::Corrupt(error.to_string()))?;
    let erased: Vec<Uuid> = erased.into_iter().collect();
    let plan = Load { key: Some(signed), until: Until::End, erased: &erased, epoch: None, show };
    let loaded = load(pool, &[path.to_owned()], plan).await?;
    let replayed = replay_all(pool, show).await?;
    turn.end().await?;
    let (log_id, heads, events, erased) = (loaded.log_id, loaded.heads(), loaded.events, loaded.erased);
    Ok(Imported { log_id, heads, events, keys, erased, signed_by, read_models: replayed })
}

/// Records an import in the log it brought.
///
/// # Errors
/// As [`operation::record`].
pub async fn record_import<L: EventLog>(
    log: &L,
    run: &RunBy,
    path: &Path,
    imported: &Imported,
    started_at: calos_domain::Timestamp,
) -> Result<(), ToolError> {
    let fact = LogImported {
        run: run.clone(),
        log_id: imported.log_id,
        source: name_of(path),
        positions: operation::positions(&imported.heads),
        events: imported.events,
        with_keys: imported.keys,
        erased: imported.erased,
        started_at,
        finished_at: now(),
    };
    operation::record(log, run, OperationCommand::RecordImported(fact)).await
}

/// The last part of a path, as a fact names it.
pub(crate) fn name_of(path: &Path) -> String {
    /// A fact takes no longer name.
    const NAME_MAX_CHARS: usize = 100;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let short: String = name.chars().take(NAME_MAX_CHARS).collect();
    if short.is_empty() { "-".to_owned() } else { short }
}
