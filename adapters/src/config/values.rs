//! The types a setting is parsed into, once, at the edge.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The length of the master key, in bytes.
pub const MASTER_KEY_BYTES: usize = 32;

/// Text nobody may see printed: `Debug` and `Display` say `<redacted>`, the memory is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("<redacted>")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("<redacted>")
    }
}

/// The key every stored secret is wrapped with: 32 bytes, written as base64 outside the process.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; MASTER_KEY_BYTES]);

impl MasterKey {
    /// A key from its bytes.
    pub fn from_bytes(bytes: [u8; MASTER_KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// A key from base64 with padding; `None` when it is not base64 of exactly 32 bytes.
    pub fn from_base64(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).ok()?);
        Some(Self(<[u8; MASTER_KEY_BYTES]>::try_from(bytes.as_slice()).ok()?))
    }

    /// The key as it is written in `CALOS_MASTER_KEY`.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0))
    }

    /// The 32 bytes, for the key derivation.
    pub fn expose(&self) -> &[u8; MASTER_KEY_BYTES] {
        &self.0
    }

    /// Whether every byte is the same: such a key was typed, not drawn.
    pub fn is_trivial(&self) -> bool {
        self.0.iter().all(|byte| *byte == self.0[0])
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("<redacted>")
    }
}

/// An `http` or `https` address without a trailing slash, so that `format!("{base}/v1/models")` is right.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseUrl(String);

impl BaseUrl {
    /// Parses and normalises `text`; `None` unless it is an absolute http(s) address without user, query or fragment.
    pub fn parse(text: &str) -> Option<Self> {
        let url = reqwest::Url::parse(text.trim()).ok()?;
        let plain = url.query().is_none() && url.fragment().is_none();
        let anonymous = url.username().is_empty() && url.password().is_none();
        let http = matches!(url.scheme(), "http" | "https") && url.has_host();
        (plain && anonymous && http).then(|| Self(url.as_str().trim_end_matches('/').to_owned()))
    }

    /// The address of something that listens on this machine.
    pub fn loopback(port: u16) -> Self {
        Self(format!("http://127.0.0.1:{port}"))
    }

    /// `OLLAMA_HOST` as Ollama itself reads it: a host, a `:port`, a host with a port or an address; what listens on every
    /// interface is reached over loopback. `None` when it is none of these.
    pub fn parse_ollama_host(text: &str) -> Option<Self> {
        const OLLAMA_PORT: u16 = 11434;
        let text = text.trim().trim_end_matches('/');
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let authority = match rest.strip_prefix(':') {
            Some(port) if !port.contains(':') => format!("127.0.0.1:{port}"),
            Some(_) | None if rest.matches(':').count() > 1 && !rest.starts_with('[') => format!("[{rest}]"),
            Some(_) | None => rest.to_owned(),
        };
        let mut url = reqwest::Url::parse(&format!("{scheme}://{authority}")).ok()?;
        if url.port().is_none() && !text.contains("://") {
            url.set_port(Some(OLLAMA_PORT)).ok()?;
        }
        if matches!(url.host_str(), Some("0.0.0.0" | "[::]")) {
            url.set_host(Some("127.0.0.1")).ok()?;
        }
        Self::parse(url.as_str())
    }

    /// The address, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl AsRef<str> for BaseUrl {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("hunter2-hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "<redacted> <redacted>");
        let key = MasterKey::from_bytes([7; 32]);
        assert_eq!(format!("{key:?}"), "<redacted>");
    }

    #[test]
    fn a_master_key_is_exactly_32_bytes_of_base64() {
        let key = MasterKey::from_bytes([9; 32]);
        assert_eq!(MasterKey::from_base64(&key.to_base64()), Some(key));
        assert_eq!(MasterKey::from_base64(&STANDARD.encode([1u8; 31])), None);
        assert_eq!(MasterKey::from_base64("not base64 at all"), None);
    }

    #[test]
    fn a_base_address_loses_its_trailing_slash_and_refuses_other_schemes() {
        assert_eq!(
            BaseUrl::parse("https://api.openai.com/v1/").map(|url| url.0),
            Some("https://api.openai.com/v1".into())
        );
        assert_eq!(BaseUrl::parse("ftp://example.com"), None);
        assert_eq!(BaseUrl::parse("localhost:11434"), None);
        assert_eq!(BaseUrl::parse("https://user:pass@example.com"), None);
    }

    #[test]
    fn ollama_host_is_read_as_ollama_reads_it() {
        for (text, expected) in [
            ("0.0.0.0:11434", "http://127.0.0.1:11434"),
            ("0.0.0.0", "http://127.0.0.1:11434"),
            (":12000", "http://127.0.0.1:12000"),
            ("192.168.1.87", "http://192.168.1.87:11434"),
            ("https://models.example.com", "https://models.example.com"),
            ("::1", "http://[::1]:11434"),
        ] {
            assert_eq!(BaseUrl::parse_ollama_host(text).map(|url| url.0), Some(expected.into()), "{text}");
        }
        assert_eq!(BaseUrl::parse_ollama_host("not a host"), None);
    }
}
