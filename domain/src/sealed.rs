//! Personal data as it stands in events: sealed under a key of the subject it belongs to.

use serde::{Deserialize, Serialize};

use crate::SubjectId;

/// Text under AES-256-GCM with the subject's data key; the domain can carry it, compare it and nothing else.
///
/// Destroying the subject's key makes it unreadable for ever while the event, its hash and every sum stay as they are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sealed {
    /// Whose key opens it.
    pub subject: SubjectId,
    /// Base64 of nonce, ciphertext and tag.
    pub ciphertext: String,
}
