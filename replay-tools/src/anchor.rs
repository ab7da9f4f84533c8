//! `anchor`: the heads as they are now, signed and kept outside the database.

use std::path::Path;

use ed25519_dalek::SigningKey;
use serde::Serialize;
use sqlx::PgPool;

use calos_adapters::anchors::{self, ANCHOR_FILE, AnchorError};

use crate::error::ToolError;
use crate::time_text::show;

/// An anchor that was taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Anchored {
    /// When.
    pub anchored_at: String,
    /// The events it vouches for, over all partitions.
    pub events: i64,
    /// The file it was appended to.
    pub file: String,
    /// Its signature, hexadecimal.
    pub signature: String,
}

/// Signs the heads and appends them to the anchors, beside those of the server.
///
/// # Errors
/// The database's or the file's.
pub async fn anchor(pool: &PgPool, key: &SigningKey, directory: &Path) -> Result<Anchored, ToolError> {
    let anchor = anchors::take(pool, key).await.map_err(failed)?;
    anchors::keep(pool, directory, &anchor).await.map_err(failed)?;
    Ok(Anchored {
        anchored_at: show(anchor.anchored_at),
        events: anchor.heads.iter().map(|head| head.position).sum(),
        file: directory.join(ANCHOR_FILE).display().to_string(),
        signature: anchor.signature,
    })
}

fn failed(error: AnchorError) -> ToolError {
    match error {
        AnchorError::Database(error) => ToolError::Database(error),
        error => ToolError::Environment(error.to_string()),
    }
}
