//! `export log`: every event byte for byte, in a file that proves itself.

use std::path::Path;

use ed25519_dalek::SigningKey;
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use crate::error::ToolError;
use crate::log_file::{self, LogFormat, Plan, Tables};
use crate::progress::Show;
use crate::versions::Vector;

pub use crate::log_file::Header;

/// What is exported, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogExport {
    /// How it is written.
    pub format: LogFormat,
    /// With the keys, wrapped by the master key; JSON lines only.
    pub keys: bool,
    /// Replace the file if it is there already.
    pub force: bool,
    /// Where progress is shown.
    pub show: Show,
}

/// What an export of the log has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogExported {
    /// Which log.
    pub log_id: Uuid,
    /// Its heads, which the file goes up to.
    pub heads: Vector,
    /// Its events.
    pub events: u64,
    /// Whether the keys are in it.
    pub keys: bool,
}

/// Writes the log up to its heads of now into a file, which has a temporary name until it is whole; the heads are signed
/// with `key`. `pool` has to log in as the owner.
///
/// # Errors
/// [`ToolError::Usage`] when the file is there already or the format takes no keys, [`ToolError::Corrupt`] when the log is
/// not what was sealed, the database's and the file's.
pub async fn export_log(
    pool: &PgPool,
    key: &SigningKey,
    path: &Path,
    export: LogExport,
) -> Result<LogExported, ToolError> {
    let LogExport { format, keys, force, show } = export;
    let tables = if keys { Tables::Keys } else { Tables::None };
    let plan = Plan { format, tables, number: 0, after: None, path, force, show };
    let (header, events) = log_file::write(pool, key, plan).await?;
    Ok(LogExported { log_id: header.log_id(), heads: vector(&header), events, keys })
}

/// The heads a file goes up to.
pub(crate) fn vector(header: &Header) -> Vector {
    header.heads.heads.iter().map(|head| (head.partition, head.position)).collect()
}
