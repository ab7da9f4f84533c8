//! A range of network addresses, in CIDR.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network of either family: an address and how many of its leading bits count.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// Why a text is no network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a network looks like 203.0.113.0/24, 2001:db8::/32 or a single address")]
pub struct NoNetwork;

/// An IPv4 address that came in over an IPv6 socket is the IPv4 address it stands for.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

fn masked_v4(address: Ipv4Addr, bits: u8) -> u32 {
    u32::MAX.checked_shl(u32::from(32 - bits)).unwrap_or(0) & u32::from(address)
}

fn masked_v6(address: Ipv6Addr, bits: u8) -> u128 {
    u128::MAX.checked_shl(u32::from(128 - bits)).unwrap_or(0) & u128::from(address)
}

impl Network {
    /// Whether an address lies in the network. An IPv4-mapped IPv6 address counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, plain(address)) {
            (IpAddr::V4(network), IpAddr::V4(asked)) => {
                masked_v4(network, self.prefix_bits) == masked_v4(asked, self.prefix_bits)
            }
            (IpAddr::V6(network), IpAddr::V6(asked)) => {
                masked_v6(network, self.prefix_bits) == masked_v6(asked, self.prefix_bits)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NoNetwork)?;
        let most_bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match bits {
            // `u8::from_str` takes a leading `+`, which no CIDR has.
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().map_err(|_| NoNetwork)?,
            Some(_) => return Err(NoNetwork),
            None => most_bits,
        };
        if prefix_bits > most_bits {
            return Err(NoNetwork);
        }
        let address = match address {
            IpAddr::V4(v4) => IpAddr::V4(masked_v4(v4, prefix_bits).into()),
            IpAddr::V6(v6) => IpAddr::V6(masked_v6(v6, prefix_bits).into()),
        };
        Ok(Self { address, prefix_bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}
