//! Lists of networks, and whom a request is from.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderValue};

use super::forwarded::client;
use super::networks::Networks;
use crate::fuzz::texts;

/// An address as 128 bits, and whether it is of IPv4.
fn bits(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(v4) => (true, u128::from(u32::from(v4))),
        IpAddr::V6(v6) => (false, u128::from(v6)),
    }
}

/// A network, told without the code that is tested: its kind, its bits and how many of them count.
fn network(word: &str) -> Option<(bool, u128, u32)> {
    let (address, length) = match word.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (word, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        Some(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().ok()?
        }
        Some(_) => return None,
        None => width,
    };
    if length > width {
        return None;
    }
    match address {
        IpAddr::V6(v6) if length >= 96 => match v6.to_ipv4_mapped() {
            Some(v4) => Some((true, u128::from(u32::from(v4)), length - 96)),
            None => Some((false, u128::from(v6), length)),
        },
        address => {
            let (is_v4, number) = bits(address);
            Some((is_v4, number, length))
        }
    }
}

fn has((is_v4, number, length): (bool, u128, u32), address: IpAddr) -> bool {
    let (of_v4, other) = bits(address);
    let width = if is_v4 { 32 } else { 128 };
    let shift = width - length;
    is_v4 == of_v4 && (shift == 128 || number >> shift == other >> shift)
}

/// A list and an address: whether it is on the list.
pub fn networks(data: &[u8]) {
    let Some([list, address]) = texts(data) else { return };
    let Ok(networks) = Networks::parse(list) else { return };
    let words: Vec<&str> = list.split([',', ' ']).filter(|word| !word.is_empty()).collect();
    assert!(words.len() <= 256);
    assert_eq!(networks.is_empty(), words.is_empty());
    let all: Vec<_> =
        words.iter().map(|word| network(word).unwrap_or_else(|| panic!("{word:?} is taken"))).collect();
    let given = address.parse::<IpAddr>().unwrap_or(IpAddr::V6(Ipv6Addr::LOCALHOST));
    let around = words.iter().filter_map(|word| word.split('/').next()?.parse::<IpAddr>().ok());
    for address in around.chain([given]).map(|address| address.to_canonical()) {
        let expected = all.iter().any(|network| has(*network, address));
        assert_eq!(networks.contain(address), expected, "{list:?} and {address}");
    }
    assert_eq!(networks.have_everything(), all.iter().any(|(_, _, length)| *length == 0));
    for word in words {
        let of_keys = super::networks::parse_network(word).expect("a key's networks are the same");
        assert_eq!(
            of_keys.contains(&given.to_canonical()),
            has(network(word).expect("it is one"), given.to_canonical())
        );
    }
}

/// A trusted list, a peer, and the lines of the header: whom the request is from.
pub fn forwarded(data: &[u8]) {
    let Some([trusted, peer, lines]) = texts(data) else { return };
    let (Ok(networks), Ok(peer)) = (Networks::parse(trusted), peer.parse::<IpAddr>()) else { return };
    let lines: Vec<&str> = lines.split('\n').take(32).collect();
    let headers = |lines: &[String]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", HeaderValue::from_str(line).ok()?);
        }
        Some(headers)
    };
    let mut lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
    let Some(mut map) = headers(&lines) else { return };
    let found = client(peer, &map, &networks);

    let hops: Vec<&str> = lines.iter().flat_map(|line| line.split(',')).map(str::trim).collect();
    let mut at = peer.to_canonical();
    for hop in hops.iter().rev() {
        if !networks.contain(at) {
            break;
        }
        let bare =
            hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).and_then(|hop| hop.parse().ok());
        let with_port = || hop.parse::<std::net::SocketAddr>().ok().map(|hop| hop.ip());
        let Some(next) = hop.parse::<IpAddr>().ok().or(bare.map(IpAddr::V6)).or_else(with_port) else {
            break;
        };
        at = next.to_canonical();
    }
    let readable = lines.iter().all(|line| line.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')));
    if readable {
        assert_eq!(found, at, "{trusted:?} {peer} {lines:?}");
    }

    // Nobody who is not trusted can say that they are another, by whatever they write on the left or in other headers.
    map.insert("forwarded", HeaderValue::from_static("for=6.6.6.6"));
    assert_eq!(client(peer, &map, &networks), found);
    if !networks.contain(found)
        && let Some(first) = lines.first_mut()
    {
        *first = format!("6.6.6.6, 10.0.0.1,{first}");
        let forged = headers(&lines).expect("it was one before");
        assert_eq!(client(peer, &forged, &networks), found, "what is written on the left counts: {lines:?}");
    }
}
