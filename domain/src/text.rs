//! Texts in which people say why, and references to where it can be read.

/// A text that is missing or too long.
pub(crate) struct BadText {
    /// Which.
    pub(crate) field: &'static str,
    /// How long it is.
    pub(crate) bytes: usize,
    /// How long it may be.
    pub(crate) limit: usize,
}

/// Whether a text says something, in at most so many bytes.
pub(crate) fn check_text(field: &'static str, text: &str, limit: usize) -> Result<(), BadText> {
    let bytes = text.len();
    if text.trim().is_empty() || bytes > limit {
        return Err(BadText { field, bytes, limit });
    }
    Ok(())
}
