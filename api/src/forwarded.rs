//! On whose behalf a proxy calls.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// Whom a proxy speaks for.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The nearest address that is no trusted proxy: each proxy appends whom it was called by, so the chain is believed
/// from its end, and only as far as those who wrote it are trusted.
///
/// It is read as bytes: a caller may put any of them in front of what the proxy appends.
#[must_use]
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_proxy = |address: &IpAddr| trusted.iter().any(|range| range.contains(address));
    let mut address = peer.to_canonical();
    let chains: Vec<&[u8]> = headers.get_all(FORWARDED_FOR).iter().map(|value| value.as_bytes()).collect();
    for named in chains.iter().rev().flat_map(|chain| chain.rsplit(|byte| *byte == b',')) {
        if !is_proxy(&address) {
            break;
        }
        match std::str::from_utf8(named.trim_ascii()).ok().and_then(|text| text.parse::<IpAddr>().ok()) {
            Some(named) => address = named.to_canonical(),
            None => break,
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn behind_a_proxy(lines: &[&[u8]]) -> IpAddr {
        let line = |bytes: &&[u8]| (FORWARDED_FOR, HeaderValue::from_bytes(bytes).unwrap());
        client_address(address("10.0.0.1"), &lines.iter().map(line).collect(), &["10.0.0.0/8".parse().unwrap()])
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_about_whom_it_speaks_for() {
        assert_eq!(behind_a_proxy(&[b"6.6.6.6, 203.0.113.9", b"10.0.0.2"]), address("203.0.113.9"));
        assert_eq!(behind_a_proxy(&[b"6.6.6.6, 203.0.113.9", b"10.0.0.2", b"garbage"]), address("10.0.0.1"));
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED_FOR, HeaderValue::from_static("203.0.113.9"));
        let stranger = address("198.51.100.7");
        assert_eq!(client_address(stranger, &headers, &["10.0.0.0/8".parse().unwrap()]), stranger);
        assert_eq!(client_address(address("10.0.0.1"), &headers, &[]), address("10.0.0.1"));
    }

    #[test]
    fn bytes_a_caller_put_in_front_do_not_hide_them_behind_the_proxy() {
        assert_eq!(behind_a_proxy(&[b"\xff\xfe, 203.0.113.9"]), address("203.0.113.9"));
        assert_eq!(behind_a_proxy(&[b"\xe9", b"203.0.113.9"]), address("203.0.113.9"));
        assert_eq!(
            behind_a_proxy(&[b"6.6.6.6,\xff,10.0.0.2"]),
            address("10.0.0.2"),
            "what is before it is not believed"
        );
    }
}
