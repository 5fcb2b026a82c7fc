//! Whom a request is from when proxies stand before the server.
//!
//! Each proxy adds the address that it was asked by on the right of `x-forwarded-for`; what is left of that came with the
//! request, and whoever made it may have written anything.  So the list is read from the right, from one trusted proxy to the
//! next, and ends at the first address that is none.  `forwarded` (RFC 7239) is not read: most proxies add to one of the two
//! headers and hand on the other as it came.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use super::networks::Networks;

const HEADER: &str = "x-forwarded-for";

/// The address that a request is from: the peer's, or the one that the last trusted proxy on the way was asked by.
pub fn client(peer: IpAddr, headers: &HeaderMap, trusted: &Networks) -> IpAddr {
    let mut at = peer.to_canonical();
    if trusted.is_empty() || !trusted.contain(at) {
        return at;
    }
    for line in headers.get_all(HEADER).iter().rev() {
        let Ok(line) = line.to_str() else { return at };
        for entry in line.rsplit(',') {
            // Behind what can not be read nobody knows who wrote the rest.
            let Some(address) = address(entry.trim()) else { return at };
            at = address;
            if !trusted.contain(at) {
                return at;
            }
        }
    }
    at
}

/// An address as proxies write it: some with the port, and those of IPv6 then in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare =
        || text.strip_prefix('[')?.strip_suffix(']')?.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::from);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse::<IpAddr>().ok().or_else(with_port).or_else(bare)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HEADER, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn the_walk_ends_at_the_first_hop_that_is_not_trusted() {
        let trusted = "10.0.0.0/8, 2001:db8:ffff::/48";
        let table: &[(&str, &str, &[&str], &str)] = &[
            // Trusted networks, the peer, the header's lines, whom it is from.
            ("", "10.0.0.1", &["192.0.2.1"], "10.0.0.1"),
            (trusted, "198.51.100.1", &["192.0.2.1"], "198.51.100.1"),
            (trusted, "10.0.0.1", &[], "10.0.0.1"),
            (trusted, "10.0.0.1", &["192.0.2.1"], "192.0.2.1"),
            (trusted, "10.0.0.1", &["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
            (trusted, "10.0.0.1", &["6.6.6.6, 192.0.2.1, 10.0.0.2"], "192.0.2.1"),
            (trusted, "10.0.0.1", &["6.6.6.6", "192.0.2.1", "10.0.0.2,10.0.0.3"], "192.0.2.1"),
            (trusted, "10.0.0.1", &["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
            (trusted, "::ffff:10.0.0.1", &["::ffff:192.0.2.1"], "192.0.2.1"),
            (trusted, "2001:db8:ffff::1", &["2001:db8::7"], "2001:db8::7"),
            (trusted, "10.0.0.1", &["[2001:db8::7]:4711"], "2001:db8::7"),
            (trusted, "10.0.0.1", &["[2001:db8::7]"], "2001:db8::7"),
            (trusted, "10.0.0.1", &["192.0.2.1:4711,10.0.0.2:80"], "192.0.2.1"),
            // What can not be read ends it where it is.
            (trusted, "10.0.0.1", &["192.0.2.1, unknown"], "10.0.0.1"),
            (trusted, "10.0.0.1", &["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2"),
            (trusted, "10.0.0.1", &["192.0.2.1,, 10.0.0.2"], "10.0.0.2"),
            (trusted, "10.0.0.1", &["192.0.2.1, 10.0.0.2, "], "10.0.0.1"),
            (trusted, "10.0.0.1", &["192.0.2.1, \u{fc}"], "10.0.0.1"),
            (trusted, "10.0.0.1", &["fe80::1%eth0"], "10.0.0.1"),
            (trusted, "10.0.0.1", &["192.0.2.1:99999"], "10.0.0.1"),
        ];
        for (networks, peer, lines, expected) in table {
            let found = client(peer.parse().unwrap(), &headers(lines), &Networks::parse(networks).unwrap());
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {lines:?}");
        }
    }

    /// A hop: whether it is trusted, and its number.
    fn hop((trusted, number): (bool, u8)) -> IpAddr {
        IpAddr::from([if trusted { 10 } else { 192 }, 0, 2, number])
    }

    proptest! {
        #[test]
        fn it_is_never_an_address_that_an_untrusted_hop_wrote(
            forged in prop::collection::vec("[0-9a-z.:, \\[\\]]{0,20}|6\\.6\\.6\\.[0-9]|10\\.6\\.6\\.[0-9]", 0..4),
            way in prop::collection::vec((any::<bool>(), any::<u8>()), 1..6),
            split in any::<bool>(),
        ) {
            // The first of the way made the request with a forged header; each hop wrote the one before it, the last is the peer.
            let hops: Vec<_> = way.iter().copied().map(hop).collect();
            let mut lines: Vec<String> = forged;
            lines.extend(hops[..hops.len() - 1].iter().map(IpAddr::to_string));
            if !split {
                lines = vec![lines.join(", ")];
            }
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let peer = hops[hops.len() - 1];
            let found = client(peer, &headers(&lines), &Networks::parse("10.0.0.0/8").unwrap());
            let untrusted = way.iter().rposition(|(trusted, _)| !trusted);
            // Who is not trusted is who it is from, whatever it wrote.  Where all are trusted, what the first wrote is believed.
            if let Some(at) = untrusted {
                prop_assert_eq!(found, hops[at]);
            }
        }
    }
}
