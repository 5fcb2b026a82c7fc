//! Lists of networks.

use std::net::IpAddr;

use ipnet::IpNet;

/// How many networks a list has at most: it is gone through for each request.
const LIMIT: usize = 256;

/// Networks, in no order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Box<[IpNet]>);

impl Networks {
    /// Reads networks and single addresses with commas or spaces between, such as `10.0.0.0/8, 2001:db8::1`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words = text.split([',', ' ']).filter(|word| !word.is_empty());
        let networks: Vec<_> = words.map(network).collect::<Result<_, _>>()?;
        if networks.len() > LIMIT {
            return Err(format!("must have at most {LIMIT} networks"));
        }
        Ok(Self(networks.into()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them has this address.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether one of them has all addresses of its kind.
    pub fn have_everything(&self) -> bool {
        self.0.iter().any(|network| network.prefix_len() == 0)
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    parse_network(text).ok_or_else(|| format!("{text:?} is no network such as 10.0.0.0/8"))
}

/// A network, or one address, as text.
///
/// The address is one of the standard library: `010.0.0.1` is 10 to some and 8 to others, and so it is none.  Addresses are
/// compared in the form that they really have, so that those of IPv4 that are written as IPv6 become what they are.
pub fn parse_network(text: &str) -> Option<IpNet> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let network = match length {
        None => IpNet::from(address),
        Some(length) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            IpNet::new(address, length.parse().ok()?).ok()?
        }
        Some(_) => return None,
    };
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => IpNet::new(v4.into(), v6.prefix_len() - 96).ok().map(|network| network.trunc()),
            None => Some(network.trunc()),
        },
        other => Some(other.trunc()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_networks_and_addresses_of_both_kinds() {
        let list = Networks::parse(" 10.0.0.0/8,192.0.2.1  2001:db8::/32, ::ffff:198.51.100.0/120").unwrap();
        let has = |address: &str| list.contain(address.parse().unwrap());
        for inside in ["10.255.0.1", "192.0.2.1", "2001:db8:1::1", "198.51.100.77"] {
            assert!(has(inside), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.2.2", "2001:db9::1", "198.51.101.1"] {
            assert!(!has(outside), "{outside}");
        }
        assert!(
            Networks::parse("").unwrap().is_empty() && Networks::parse("::/0").unwrap().have_everything()
        );
        for bad in [
            "10.0.0.0/33",
            "10.0.0",
            "0.0.0.00/0",
            "010.0.0.1",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "example.com",
            "10.0.0.0/8;10.0.0.1",
            "::1%eth0",
        ] {
            assert!(Networks::parse(bad).is_err(), "{bad}");
        }
        assert!(Networks::parse(&"10.0.0.1,".repeat(257)).is_err());
    }
}
