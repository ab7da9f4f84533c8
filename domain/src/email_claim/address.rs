//! An email address, parsed once, at the edge.

use std::fmt;
use std::str::FromStr;

/// The longest address, in bytes, that mail can carry.
pub const EMAIL_MAX_BYTES: usize = 254;

/// The longest part before the `@`, in bytes.
const LOCAL_PART_MAX_BYTES: usize = 64;

/// The longest label of a domain name, in bytes.
const DOMAIN_LABEL_MAX_BYTES: usize = 63;

/// A plausible address, as typed. Its `Debug` shows nothing: an address is personal data and must not reach a log.
#[derive(Clone, PartialEq, Eq)]
pub struct EmailAddress(String);

/// Why a text is no address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoEmailAddress {
    /// Longer than mail can carry.
    #[error("an email address has {EMAIL_MAX_BYTES} bytes at most, this one has {bytes}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// Not of the form `name@host.domain`.
    #[error("an email address looks like name@example.com")]
    Malformed,
}

impl EmailAddress {
    /// As typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form in which two spellings of one address are equal: letter case is ignored on both sides of the `@`.
    #[must_use]
    pub fn normalised(&self) -> String {
        self.0.to_lowercase()
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailAddress(..)")
    }
}

impl FromStr for EmailAddress {
    type Err = NoEmailAddress;

    fn from_str(text: &str) -> Result<Self, NoEmailAddress> {
        let text = text.trim();
        if text.len() > EMAIL_MAX_BYTES {
            return Err(NoEmailAddress::TooLong { bytes: text.len() });
        }
        let (local, domain) = text.rsplit_once('@').ok_or(NoEmailAddress::Malformed)?;
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '@' | '<' | '>' | ',' | ';' | '"');
        let local_holds = !local.is_empty()
            && local.len() <= LOCAL_PART_MAX_BYTES
            && local.chars().all(plain)
            && !local.starts_with('.')
            && !local.ends_with('.')
            && !local.contains("..");
        let label_holds = |label: &str| {
            !label.is_empty()
                && label.len() <= DOMAIN_LABEL_MAX_BYTES
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_alphanumeric() || c == '-')
        };
        let domain_holds = domain.contains('.') && domain.split('.').all(label_holds);
        if local_holds && domain_holds { Ok(Self(text.to_owned())) } else { Err(NoEmailAddress::Malformed) }
    }
}
