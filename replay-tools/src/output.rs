//! What a verb says: lines for people, or one JSON document for machines, both on standard output.

use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::error::ToolError;

/// Standard output, in one of two voices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// JSON with `--json`, lines without.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether a machine reads.
    #[must_use]
    pub fn is_json(self) -> bool {
        self.json
    }

    /// A line for people; nothing when a machine reads.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn say(self, text: impl std::fmt::Display) -> Result<(), ToolError> {
        if self.json { Ok(()) } else { write_line(&text.to_string()) }
    }

    /// The document for machines; nothing when a person reads.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn document(self, document: &impl Serialize) -> Result<(), ToolError> {
        if self.json { json_line(document) } else { Ok(()) }
    }
}

/// One JSON value on a line of its own, whoever reads.
///
/// # Errors
/// Standard output cannot be written.
pub fn json_line(value: &impl Serialize) -> Result<(), ToolError> {
    let text = serde_json::to_string(value).map_err(std::io::Error::from)?;
    write_line(&text)
}

fn write_line(text: &str) -> Result<(), ToolError> {
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

/// Whether the reader at the other end has gone away (`| head`): then there is nothing left to do, and nothing wrong.
#[must_use]
pub fn reader_has_gone(error: &ToolError) -> bool {
    matches!(error, ToolError::Output(error) if error.kind() == ErrorKind::BrokenPipe)
}
