//! `receipt check`: a receipt held against the ledger's key, where there is nothing but the receipt.

use std::io::Read as _;
use std::path::Path;

use ed25519_dalek::VerifyingKey;
use serde::Serialize;

use calos_adapters::receipt::{Receipt, ReceiptError, verifying_key};

use crate::error::ToolError;

/// A receipt is one event; no event comes near this.
const RECEIPT_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// Whether everything holds.
    pub holds: bool,
    /// Which part does not, and why.
    pub wrong: Option<String>,
    /// The key that signed.
    pub public_key: String,
    /// Whether that is the key that was asked for; false when none was.
    pub key_known: bool,
}

/// Checks a receipt, with the ledger's key when it is known.
#[must_use]
pub fn check(receipt: &Receipt, key: Option<&VerifyingKey>) -> Checked {
    let wrong = receipt.check(key).err();
    let key_known = key.is_some() && !matches!(wrong, Some(ReceiptError::OtherKey { .. }));
    let wrong = wrong.map(|error| error.to_string());
    Checked { holds: wrong.is_none(), wrong, public_key: receipt.public_key.clone(), key_known }
}

/// Reads a receipt; `-` is standard input.
///
/// # Errors
/// [`ToolError::Usage`] for a file that cannot be read or is no receipt.
pub fn read(file: &Path) -> Result<Receipt, ToolError> {
    let unreadable = |error: std::io::Error| ToolError::Usage(format!("{}: {error}", file.display()));
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().lock().take(RECEIPT_MAX_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    } else {
        let file = std::fs::File::open(file).map_err(unreadable)?;
        file.take(RECEIPT_MAX_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    }
    serde_json::from_str(&text).map_err(|error| ToolError::Usage(format!("{} is no receipt: {error}", file.display())))
}

/// The ledger's key from hexadecimal, or from a file that holds it.
///
/// # Errors
/// [`ToolError::Usage`] when it is neither.
pub fn key(text: &str) -> Result<VerifyingKey, ToolError> {
    if let Ok(key) = verifying_key(text) {
        return Ok(key);
    }
    let read = std::fs::read_to_string(text);
    let read =
        read.map_err(|error| ToolError::Usage(format!("{text} is no key in hexadecimal, and no file: {error}")))?;
    verifying_key(read.trim()).map_err(|error| ToolError::Usage(format!("{text}: {error}")))
}
