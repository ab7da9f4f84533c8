//! The root secret in a file that has the keys: by it a file says whose it is, before anything of it is believed.

use std::path::Path;

use serde::Deserialize;

use super::{Item, Source};
use crate::error::ToolError;

/// The root secret as it is kept: wrapped by a master key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrappedRoot {
    /// The wrapped secret.
    pub wrapped: Vec<u8>,
    /// The number of the master key that wrapped it.
    pub master_version: i32,
}

#[derive(Deserialize)]
struct RootRow {
    wrapped: String,
    master_version: i32,
}

/// The root secret a file has; none in a file without keys, or of a log that never had one.
///
/// # Errors
/// [`ToolError::Usage`] when the file cannot be opened, [`ToolError::Corrupt`] when it cannot be read.
pub async fn wrapped_root(path: &Path) -> Result<Option<WrappedRoot>, ToolError> {
    let mut source = Source::open(path, None).await?;
    if !source.header.tables.iter().any(|table| table == "secrets_root") {
        return Ok(None);
    }
    // It is the first of the tables; whatever comes next says that there is none.
    let Item::Rows { table, rows } = source.next().await? else { return Ok(None) };
    let Some(row) = rows.first().filter(|_| table == "secrets_root") else { return Ok(None) };
    let unreadable = || source.wrong("its root secret cannot be read");
    let RootRow { wrapped, master_version } = serde_json::from_str(row).map_err(|_| unreadable())?;
    let wrapped = wrapped.strip_prefix("\\x").and_then(|digits| hex::decode(digits).ok()).ok_or_else(unreadable)?;
    Ok(Some(WrappedRoot { wrapped, master_version }))
}
