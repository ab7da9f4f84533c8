//! What a URL may look like before anything is done about it.

use std::net::IpAddr;

use calos_commands::web::FetchRefusal;
use url::{Host, Url};

/// The longest URL, in bytes, as written and as understood.
pub const URL_MAX_BYTES: usize = 2_048;
/// The ports of http and https.
const WEB_PORTS: [u16; 2] = [80, 443];
/// The longest name, in bytes, and the longest label of one.
const NAME_MAX_BYTES: usize = 253;
const LABEL_MAX_BYTES: usize = 63;
/// Names that mean something inside a network only, or nothing at all. The addresses behind them are checked too; this
/// keeps CALOS from asking a resolver about them in the first place.
const INSIDE_DOMAINS: [&str; 13] = [
    "localhost",
    "local",
    "localdomain",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "home.arpa",
    "onion",
    "invalid",
    "test",
];

/// Who is to be connected to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TargetHost {
    /// An address that stood in the URL, whichever way it was written.
    Literal(IpAddr),
    /// A name of at least two labels, in lower case, without a trailing dot.
    Name(String),
}

/// A URL that may be followed as far as can be told from the URL alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    url: Url,
    host: TargetHost,
    port: u16,
}

impl Target {
    /// Reads an absolute URL. `extra_ports` are allowed besides 80 and 443.
    ///
    /// # Errors
    /// `BadUrl`, `Scheme`, `Userinfo`, `Port`, or `ForbiddenAddress` for a name that is none of the public web's.
    pub fn parse(text: &str, extra_ports: &[u16]) -> Result<Self, FetchRefusal> {
        unambiguous(text)?;
        Self::checked(Url::parse(text).map_err(|_| FetchRefusal::BadUrl)?, extra_ports)
    }

    /// Reads where a redirect points, absolute or relative to this URL, by the same rules.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn join(&self, location: &str, extra_ports: &[u16]) -> Result<Self, FetchRefusal> {
        unambiguous(location)?;
        Self::checked(self.url.join(location).map_err(|_| FetchRefusal::BadUrl)?, extra_ports)
    }

    /// The URL, without a fragment.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Who is to be connected to.
    #[must_use]
    pub fn host(&self) -> &TargetHost {
        &self.host
    }

    /// The port, given or implied.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Looks at the URL as the `url` crate normalised it: decimal, octal, hexadecimal and short IPv4, percent-encoded
    /// hosts and digits of other scripts are plain addresses by now.
    fn checked(mut url: Url, extra_ports: &[u16]) -> Result<Self, FetchRefusal> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(FetchRefusal::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(FetchRefusal::Userinfo);
        }
        let port = url.port_or_known_default().ok_or(FetchRefusal::BadUrl)?;
        if !WEB_PORTS.contains(&port) && !extra_ports.contains(&port) {
            return Err(FetchRefusal::Port { port });
        }
        if let Some(rooted) = url.domain().and_then(|name| name.strip_suffix('.')).map(str::to_owned) {
            url.set_host(Some(&rooted)).map_err(|_| FetchRefusal::BadUrl)?;
        }
        let host = match url.host() {
            Some(Host::Ipv4(address)) => TargetHost::Literal(address.into()),
            Some(Host::Ipv6(address)) => TargetHost::Literal(address.into()),
            Some(Host::Domain(name)) => TargetHost::Name(public_name(name)?.to_owned()),
            None => return Err(FetchRefusal::BadUrl),
        };
        url.set_fragment(None);
        if url.as_str().len() > URL_MAX_BYTES {
            return Err(FetchRefusal::BadUrl);
        }
        Ok(Self { url, host, port })
    }
}

/// Refuses what URL readers disagree about: they drop tabs and line ends, trim blanks and take a backslash for a slash,
/// each in its own way.
fn unambiguous(text: &str) -> Result<(), FetchRefusal> {
    let odd = |c: char| c.is_control() || c.is_whitespace() || c == '\\';
    if text.is_empty() || text.len() > URL_MAX_BYTES || text.contains(odd) {
        return Err(FetchRefusal::BadUrl);
    }
    Ok(())
}

/// A name that may be asked about.
fn public_name(name: &str) -> Result<&str, FetchRefusal> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| !label.is_empty() && label.len() <= LABEL_MAX_BYTES && label.bytes().all(letter);
    if name.len() > NAME_MAX_BYTES || !name.split('.').all(label) {
        return Err(FetchRefusal::BadUrl);
    }
    // A single label is completed by the resolver with the network's own domain.
    let inside = |domain: &&str| name.strip_suffix(*domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if !name.contains('.') || INSIDE_DOMAINS.iter().any(inside) {
        return Err(FetchRefusal::ForbiddenAddress);
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Result<TargetHost, FetchRefusal> {
        Target::parse(text, &[]).map(|target| target.host)
    }

    fn literal(text: &str) -> Result<TargetHost, FetchRefusal> {
        Ok(TargetHost::Literal(text.parse().unwrap()))
    }

    #[test]
    fn an_address_is_seen_through_every_way_of_writing_it() {
        for written in [
            "http://127.0.0.1/",
            "http://127.0.0.1./",
            "http://2130706433/",
            "http://017700000001/",
            "http://0177.0.0.1/",
            "http://0x7f.0.0.1/",
            "http://0x7f.1/",
            "http://0x7F000001/",
            "http://127.1/",
            "http://127.0.1/",
            "http://%31%32%37.0.0.1/",
            "http://１２７.0.0.1/",
            "http://①②⑦.⓪.⓪.①/",
            "http://127。0。0。1/",
            "http:127.0.0.1/",
            "http:///127.0.0.1/",
            "HTTP://127.0.0.1/",
            "http://127.0.0.1#@example.com/",
            "http://127.0.0.1?@example.com/",
            "http://@127.0.0.1/",
        ] {
            assert_eq!(host(written), literal("127.0.0.1"), "{written}");
        }
        assert_eq!(host("http://[::ffff:127.0.0.1]/"), literal("::ffff:127.0.0.1"));
        assert_eq!(host("http://[0:0:0:0:0:0:0:1]/"), literal("::1"));
        assert_eq!(host("http://[::]/"), literal("::"));
    }

    #[test]
    fn what_two_readers_would_read_differently_is_no_url() {
        for written in [
            "",
            "example.com",
            "//example.com/",
            "http://",
            "http://exa\tmple.com/",
            "http://example.com/\r\nHost: other",
            "http://example.com\\@127.0.0.1/",
            "http:\\\\127.0.0.1/",
            " http://example.com/",
            "http://example.com/ ",
            "http://exam\u{a0}ple.com/",
            "http://256.256.256.256/",
            "http://1.2.3.4.5/",
            "http://example.com:99999/",
            "http://[::1%25lo]/",
            "http://a..example.com/",
            "http://example.com../",
            "http://.example.com/",
        ] {
            assert_eq!(host(written), Err(FetchRefusal::BadUrl), "{written:?}");
        }
        let long = format!("http://example.com/{}", "a".repeat(URL_MAX_BYTES));
        assert_eq!(host(&long), Err(FetchRefusal::BadUrl));
        let fragment = format!("http://example.com/#{}", "a".repeat(URL_MAX_BYTES));
        assert_eq!(host(&fragment), Err(FetchRefusal::BadUrl), "too long before its fragment goes");
        let grows = format!("http://example.com/{}", "ü".repeat(500));
        assert_eq!(host(&grows), Err(FetchRefusal::BadUrl), "3,000 bytes once it is escaped");
        let label = format!("http://{}.example.com/", "a".repeat(64));
        assert_eq!(host(&label), Err(FetchRefusal::BadUrl));
    }

    #[test]
    fn other_schemes_users_and_ports_are_refused() {
        for written in ["file:///etc/passwd", "ftp://example.com/", "gopher://example.com/", "data:text/plain,hi"] {
            assert_eq!(host(written), Err(FetchRefusal::Scheme), "{written}");
        }
        for written in ["http://example.com@127.0.0.1/", "http://user:word@example.com/", "http://:word@example.com/"] {
            assert_eq!(host(written), Err(FetchRefusal::Userinfo), "{written}");
        }
        for port in [0, 21, 22, 25, 6379, 8080, 11434] {
            assert_eq!(host(&format!("http://example.com:{port}/")), Err(FetchRefusal::Port { port }), "{port}");
        }
        assert!(Target::parse("https://example.com:8443/", &[8443]).is_ok());
    }

    #[test]
    fn names_from_inside_a_network_are_not_asked_about() {
        for name in [
            "localhost",
            "localhost.",
            "LOCALHOST",
            "a.localhost",
            "printer.local",
            "metadata.google.internal",
            "metadata.google.internal.",
            "router.home.arpa",
            "wiki",
            "wiki.",
            "com",
        ] {
            assert_eq!(host(&format!("http://{name}/")), Err(FetchRefusal::ForbiddenAddress), "{name}");
        }
        for name in ["mylocal.com", "local.example.com", "xn--bcher-kva.example.com"] {
            assert_eq!(host(&format!("http://{name}/")), Ok(TargetHost::Name(name.to_owned())));
        }
    }

    #[test]
    fn a_trailing_dot_and_a_fragment_go() {
        let target = Target::parse("https://Example.COM./a?b#c", &[]).unwrap();
        assert_eq!(target.url().as_str(), "https://example.com/a?b");
        assert_eq!((target.host(), target.port()), (&TargetHost::Name("example.com".to_owned()), 443));
    }

    #[test]
    fn a_redirect_is_held_to_the_same_rules() {
        let from = Target::parse("https://example.com/a/b", &[]).unwrap();
        let to = |location: &str| from.join(location, &[]).map(|target| target.url.to_string());
        assert_eq!(to("../c"), Ok("https://example.com/c".to_owned()));
        assert_eq!(to("//other.example.com/"), Ok("https://other.example.com/".to_owned()));
        assert_eq!(to("file:///etc/passwd"), Err(FetchRefusal::Scheme));
        assert_eq!(to("http://u@example.com/"), Err(FetchRefusal::Userinfo));
        assert_eq!(to("http://example.com:22/"), Err(FetchRefusal::Port { port: 22 }));
        assert_eq!(to("http://localhost/"), Err(FetchRefusal::ForbiddenAddress));
        assert_eq!(to("/\\127.0.0.1/"), Err(FetchRefusal::BadUrl));
        assert_eq!(to(""), Err(FetchRefusal::BadUrl));
    }
}
