//! What is refused: ranges of addresses, and ports.
//!
//! The ranges cover IANA's special-purpose address registries for IPv4 and IPv6.  They were compared row by row with the
//! registries' tables as of 2026-07-18 (last changed on 2025-10-09), in copies that others keep of them, and with what
//! CPython 3.11's `ipaddress` has of them.  No row is missing, and in one way this list is stricter: what the registries
//! call globally reachable is refused too, since none of it is where a receiver would be.  That is anycast of protocols
//! (192.0.0.9/32, 192.0.0.10/32, 2001:1::1/128 to 2001:1::3/128), AS112 (192.31.196.0/24, 192.175.48.0/24,
//! 2001:4:112::/48, 2620:4f:8000::/48), AMT (192.52.193.0/24, 2001:3::/32), NAT64 (64:ff9b::/96), ORCHIDv2
//! (2001:20::/28) and remote identifiers of drones (2001:30::/28).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use ipnet::IpNet;

/// Ranges that are not the public internet: IANA's special-purpose registries for IPv4 and IPv6, multicast, and all of
/// IPv6 that IANA has not opened for global unicast.
const REFUSED: &[&str] = &[
    // This host, private, shared (CGNAT), loopback, link-local with the metadata services, protocol assignments,
    // documentation, AS112, AMT, 6to4 relay, benchmarking, multicast, reserved with broadcast.
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    // Everything outside 2000::/3: unspecified, loopback, IPv4-compatible, NAT64, discard, segment routing, unique
    // local, link-local, site-local and multicast, and what nobody can have today.
    "::/3",
    "4000::/2",
    "8000::/1",
    // Inside it: protocol assignments with Teredo, documentation, 6to4, AS112, documentation again.
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "2620:4f:8000::/48",
    "3fff::/20",
];

/// Where a name that is allowed may lead besides the public internet: machines of one's own.
const PRIVATE: &[&str] =
    &["10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"];

/// Metadata services of clouds inside the private ranges.  They hand out credentials to whoever asks.
const METADATA: &[&str] = &["100.100.100.200/32", "fd00:ec2::254/128", "fd20:ce::254/128"];

/// Ports of other protocols, which an HTTP request could be smuggled into: the "bad ports" of the Fetch standard, 2.9.
const PORTS: &[u16] = &[
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103,
    104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514,
    515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723,
    2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10_080,
];

fn parse(ranges: &[&str]) -> Vec<IpNet> {
    ranges.iter().map(|range| range.parse().expect("the table is valid")).collect()
}

static REFUSED_NETWORKS: LazyLock<Vec<IpNet>> = LazyLock::new(|| parse(REFUSED));
static PRIVATE_NETWORKS: LazyLock<Vec<IpNet>> = LazyLock::new(|| parse(PRIVATE));
static METADATA_NETWORKS: LazyLock<Vec<IpNet>> = LazyLock::new(|| parse(METADATA));

pub(super) fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|range| range.contains(&address))
}

/// Whether anybody may be led there.
pub(super) fn is_public(address: IpAddr) -> bool {
    !contains(&REFUSED_NETWORKS, address)
}

/// Whether a name that is allowed may lead there although it is not the public internet.
pub(super) fn is_private(address: IpAddr) -> bool {
    contains(&PRIVATE_NETWORKS, address) && !contains(&METADATA_NETWORKS, address)
}

/// Whether the port belongs to another protocol than HTTP.
pub(super) fn is_foreign(port: u16) -> bool {
    PORTS.binary_search(&port).is_ok()
}

/// The IPv4 address that a translator or a tunnel would go on to from this IPv6 address, where its form says so:
/// IPv4-compatible (RFC 4291), translated (RFC 2765), NAT64 under the well-known prefix (RFC 6052), 6to4 (RFC 3056) and
/// Teredo, in which the client's address is inverted (RFC 4380).
pub(super) fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let pair = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        _ if address == Ipv6Addr::UNSPECIFIED || address == Ipv6Addr::LOCALHOST => None,
        [0, 0, 0, 0, 0 | 0xffff, 0, high, low] => Some(pair(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(pair(high, low)),
        [0x2002, high, low, ..] => Some(pair(high, low)),
        [0x2001, 0, _, _, _, _, high, low] => Some(pair(!high, !low)),
        _ => None,
    }
}
