//! The guard: addresses that the server must not be led to.
//!
//! A webhook's URL is somebody else's input.  Everything but the public internet is refused unless it is allowed by
//! name: the ranges of IANA's special-purpose registries, and the IPv6 forms that carry an IPv4 address inside.  The
//! check is made on what a name resolves to, where the connection is made, so that a name that changes its answer gains
//! nothing.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::{fmt, io, vec};

use hyper_util::client::legacy::connect::dns::Name;
use ipnet::IpNet;
use tower::Service;

/// Ranges that are not the public internet.
const REFUSED: &[&str] = &[
    // IPv4: this host, private, shared (CGNAT), loopback, link-local with the metadata services, protocol assignments,
    // documentation, 6to4 relay, benchmarking, multicast, reserved, broadcast.
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
    // IPv6: unspecified and loopback with IPv4-compatible, NAT64, discard, protocol assignments with Teredo,
    // documentation, 6to4, segment routing, unique local, link-local, site-local, multicast.
    "::/96",
    "::ffff:0:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "2620:4f:8000::/48",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/9",
    "ff00::/8",
];

static REFUSED_NETWORKS: LazyLock<Vec<IpNet>> =
    LazyLock::new(|| REFUSED.iter().map(|range| range.parse().expect("the table is valid")).collect());

/// Says which addresses may be connected to.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    allowed: Arc<[IpNet]>,
}

impl Guard {
    /// A guard that lets these ranges through although they are not the public internet.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed: allowed.into() }
    }

    /// Whether a connection may be made to this address.
    pub fn permits(&self, address: IpAddr) -> bool {
        // `::ffff:10.0.0.1` is 10.0.0.1, to the system and so to the guard.
        let address = address.to_canonical();
        self.allowed.iter().any(|range| range.contains(&address))
            || !REFUSED_NETWORKS.iter().any(|range| range.contains(&address))
    }
}

/// All addresses of a name are refused.
#[derive(Debug)]
pub struct Refused(pub IpAddr);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the address {} is not allowed as a destination", self.0)
    }
}

impl std::error::Error for Refused {}

/// Resolves names to addresses that may be connected to.
#[derive(Debug, Clone)]
pub struct GuardedResolver(pub Guard);

impl Service<Name> for GuardedResolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let permitted: Vec<_> =
                found.iter().copied().filter(|address| guard.permits(address.ip())).collect();
            match found.first() {
                None => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address").into()),
                Some(first) if permitted.is_empty() => Err(Refused(first.ip()).into()),
                Some(_) => Ok(permitted.into_iter()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_permitted() {
        let guard = Guard::default();
        let permits = |address: &str| guard.permits(address.parse().unwrap());
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00::1",
            "2001:4860:4860::8888",
            "2003::1",
        ] {
            assert!(permits(public), "{public}");
        }
        for refused in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.170",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.2.3",
            "::ffff:169.254.169.254",
            "::ffff:0:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:0:53aa:64c:0:0:0:1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!permits(refused), "{refused}");
        }
    }

    #[test]
    fn a_range_can_be_allowed_without_allowing_its_neighbours() {
        let guard = Guard::new(vec!["127.0.0.0/8".parse().unwrap(), "10.1.0.0/16".parse().unwrap()]);
        let permits = |address: &str| guard.permits(address.parse().unwrap());
        assert!(permits("127.0.0.1") && permits("10.1.2.3") && permits("::ffff:10.1.2.3"));
        assert!(!permits("10.2.0.1") && !permits("169.254.169.254") && !permits("::1"));
    }

    #[tokio::test]
    async fn a_name_of_a_refused_address_does_not_resolve() {
        let name: Name = "localhost".parse().unwrap();
        let error = GuardedResolver(Guard::default()).call(name.clone()).await.unwrap_err();
        assert!(error.downcast_ref::<Refused>().is_some(), "{error}");
        let allowed = Guard::new(vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        assert!(GuardedResolver(allowed).call(name).await.unwrap().count() > 0);
    }
}
