//! Which addresses are on the public internet. Whatever is in doubt is not.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};
use nix::ifaddrs::getifaddrs;

/// Which addresses may be connected to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum AddressPolicy {
    /// The public internet alone, less this machine.
    #[default]
    PublicOnly,
    /// The public internet, and exactly these sockets though they are not public. This opens a way into the network CALOS
    /// stands in: it is for tests against a server of their own, and no setting from outside leads here.
    PublicAndNonPublic(Vec<SocketAddr>),
}

impl AddressPolicy {
    /// Whether `socket` may be connected to from a machine with the addresses `own`. What listens there for the machine
    /// itself, or behind a firewall that stands outside, is not the public web, even on a public address.
    #[must_use]
    pub fn admits(&self, socket: SocketAddr, own: &[IpAddr]) -> bool {
        (is_public(socket.ip()) && !own.contains(&socket.ip()))
            || match self {
                Self::PublicOnly => false,
                Self::PublicAndNonPublic(sockets) => sockets.contains(&socket),
            }
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(first: u16, second: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0), prefix)
}

/// IANA's special-purpose registry, less what it calls globally reachable, plus multicast and the addresses that only
/// look public.
const NOT_PUBLIC_V4: [Ipv4Net; 16] = [
    // "This network"; Linux connects to itself over 0.0.0.0.
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    // Carrier-grade NAT, and the metadata service of one cloud (100.100.100.200).
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    // Link-local, and the metadata service of most clouds (169.254.169.254).
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    // Protocol assignments, and the metadata service of another cloud (192.0.0.192).
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    // The relays of 6to4: what comes out of them is somebody else's choice.
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 4),
    // Reserved, and the broadcast address at its end.
    v4(240, 0, 0, 0, 4),
    // A public address that one cloud answers inside every machine: its metadata and health service.
    v4(168, 63, 129, 16, 32),
];

/// What IANA has given out at all. Loopback, unique-local, link-local, multicast, v4-mapped and v4-compatible
/// addresses, NAT64 (64:ff9b::/96, 64:ff9b:1::/48) and the discard prefix all lie outside.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 3);

/// What is not public inside [`GLOBAL_V6`].
const NOT_PUBLIC_V6: [Ipv6Net; 5] = [
    // Protocol assignments: Teredo (2001::/32) with a v4 address inside, benchmarking, ORCHID.
    v6(0x2001, 0, 23),
    v6(0x2001, 0xdb8, 32),
    // 6to4, with a v4 address inside.
    v6(0x2002, 0, 16),
    // The old 6bone, given back.
    v6(0x3ffe, 0, 16),
    // Documentation.
    v6(0x3fff, 0, 20),
];

/// Whether `address` is on the public internet. An IPv6 address that carries an IPv4 address is refused whatever it
/// carries: who translates it, and to where, is not known here.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !NOT_PUBLIC_V4.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) => GLOBAL_V6.contains(&address) && !NOT_PUBLIC_V6.iter().any(|net| net.contains(&address)),
    }
}

/// The addresses of this machine's interfaces as they stand now. It asks the kernel and waits for nobody.
///
/// # Errors
/// The kernel does not say.
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let addresses = getifaddrs()?.filter_map(|interface| interface.address);
    let ip = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    Ok(addresses.filter_map(ip).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(text: &str) -> bool {
        is_public(text.parse().unwrap())
    }

    #[test]
    fn both_ends_of_every_closed_range_are_refused_and_their_neighbours_are_not() {
        let ranges = [
            ("0.0.0.0", "0.255.255.255", None, Some("1.0.0.0")),
            ("10.0.0.0", "10.255.255.255", Some("9.255.255.255"), Some("11.0.0.0")),
            ("100.64.0.0", "100.127.255.255", Some("100.63.255.255"), Some("100.128.0.0")),
            ("127.0.0.0", "127.255.255.255", Some("126.255.255.255"), Some("128.0.0.0")),
            ("169.254.0.0", "169.254.255.255", Some("169.253.255.255"), Some("169.255.0.0")),
            ("172.16.0.0", "172.31.255.255", Some("172.15.255.255"), Some("172.32.0.0")),
            ("192.0.0.0", "192.0.0.255", Some("191.255.255.255"), Some("192.0.1.0")),
            ("192.0.2.0", "192.0.2.255", Some("192.0.1.255"), Some("192.0.3.0")),
            ("192.88.99.0", "192.88.99.255", Some("192.88.98.255"), Some("192.88.100.0")),
            ("192.168.0.0", "192.168.255.255", Some("192.167.255.255"), Some("192.169.0.0")),
            ("198.18.0.0", "198.19.255.255", Some("198.17.255.255"), Some("198.20.0.0")),
            ("198.51.100.0", "198.51.100.255", Some("198.51.99.255"), Some("198.51.101.0")),
            ("203.0.113.0", "203.0.113.255", Some("203.0.112.255"), Some("203.0.114.0")),
            ("224.0.0.0", "255.255.255.255", Some("223.255.255.255"), None),
            ("168.63.129.16", "168.63.129.16", Some("168.63.129.15"), Some("168.63.129.17")),
            ("::", "1fff:ffff::", None, Some("2000::")),
            ("2001::", "2001:1ff:ffff::", Some("2000:ffff::"), Some("2001:200::")),
            ("2001:db8::", "2001:db8:ffff::", Some("2001:db7::"), Some("2001:db9::")),
            ("2002::", "2002:ffff::", Some("2001:ffff::"), Some("2003::")),
            ("3ffe::", "3fff:fff::", Some("3ffd::"), Some("3fff:1000::")),
            ("4000::", "ffff:ffff::", Some("3fff:ffff::"), None),
        ];
        for (first, last, before, after) in ranges {
            assert!(!public(first), "{first}");
            assert!(!public(last), "{last}");
            for neighbour in [before, after].into_iter().flatten() {
                assert!(public(neighbour), "{neighbour}");
            }
        }
    }

    #[test]
    fn the_usual_ways_inside_are_refused_by_name() {
        for address in [
            "::1",
            "::",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b::8.8.8.8",
            "64:ff9b:1::a00:1",
            "100::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2002:7f00:1::",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "169.254.169.254",
            "100.100.100.200",
            "192.0.0.192",
            "255.255.255.255",
        ] {
            assert!(!public(address), "{address}");
        }
    }

    #[test]
    fn the_public_internet_is_public() {
        for address in ["8.8.8.8", "1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450:4001:80e::200e"] {
            assert!(public(address), "{address}");
        }
    }

    #[test]
    fn an_exception_holds_for_its_address_and_its_port_alone() {
        let socket: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        let policy = AddressPolicy::PublicAndNonPublic(vec![socket]);
        assert!(policy.admits(socket, &[]));
        assert!(policy.admits(socket, &[socket.ip()]), "an exception is one for this machine too");
        assert!(policy.admits("8.8.8.8:443".parse().unwrap(), &[]));
        assert!(!policy.admits("127.0.0.1:8081".parse().unwrap(), &[]));
        assert!(!policy.admits("127.0.0.2:8080".parse().unwrap(), &[]));
        assert!(!policy.admits("[::ffff:127.0.0.1]:8080".parse().unwrap(), &[]));
        assert!(!AddressPolicy::default().admits(socket, &[]));
    }

    #[test]
    fn a_public_address_of_this_machine_is_refused_like_any_inside() {
        let own = ["8.8.8.8".parse().unwrap(), "2606:4700:4700::1111".parse().unwrap()];
        let admits = |socket: &str| AddressPolicy::default().admits(socket.parse().unwrap(), &own);
        assert!(!admits("8.8.8.8:443") && !admits("8.8.8.8:80") && !admits("[2606:4700:4700::1111]:443"));
        assert!(admits("8.8.4.4:443") && admits("[2606:4700:4700::1112]:443"));
    }

    #[test]
    fn this_machines_addresses_are_known() {
        let own = own_addresses().unwrap();
        assert!(own.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{own:?}");
    }
}
