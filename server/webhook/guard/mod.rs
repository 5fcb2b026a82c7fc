//! The guard: where the server must not be led.
//!
//! A webhook's URL is somebody else's input.  Everything but the public internet is refused unless it is allowed: the
//! ranges of IANA's special-purpose registries, the IPv6 forms that carry an IPv4 address inside ([`table`]), and the
//! ports of other protocols.  Ranges of addresses can be allowed, and names ([`host`]).  A URL is checked when it is
//! saved, and again where the connection is made ([`connect`]), there with what its name resolves to at that moment, so
//! that a name that changes its answer gains nothing.

mod connect;
mod host;
mod table;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::Uri;
use http::uri::Scheme;
use ipnet::IpNet;

pub use connect::{GuardedConnector, GuardedResolver, Lookup, SystemLookup, Unreachable, Unresolved};

use crate::error::{Result, Violations};
use host::HostPattern;

/// Says where connections may be made to.
#[derive(Debug, Clone, Default)]
pub struct Guard(Arc<Allowed>);

#[derive(Debug, Default)]
struct Allowed {
    networks: Vec<IpNet>,
    hosts: Vec<HostPattern>,
}

impl Guard {
    /// A guard that lets these ranges through although they are not the public internet.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(Arc::new(Allowed { networks, hosts: Vec::new() }))
    }

    /// A guard that besides lets these hosts be on a private network: exact names, or `*.example.com` for all names
    /// under one.  What other hosts may reach stays as it is.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with all entries that are not the name of a host.
    pub fn with_hosts(self, hosts: &[String]) -> Result<Self> {
        let mut violations = Violations::default();
        let hosts = hosts
            .iter()
            .filter_map(|text| violations.check("allow_host", HostPattern::parse(text.trim())))
            .collect();
        violations.finish()?;
        Ok(Self(Arc::new(Allowed { networks: self.0.networks.clone(), hosts })))
    }

    /// Whether a connection may be made to this address.
    pub fn permits(&self, address: IpAddr) -> bool {
        // `::ffff:10.0.0.1` is 10.0.0.1, to the system and so to the guard.
        let address = address.to_canonical();
        // An operator who allows a translator's range, as networks without IPv4 need it, does not thereby open what
        // lies behind the translator.
        let onward = table::embedded(address).is_none_or(|inner| self.permits(inner.into()));
        onward && (self.allows(address) || table::is_public(address))
    }

    /// Whether a connection may be made to this address for a host of this name.
    ///
    /// A name that is allowed may lead to private networks, but not to link-local addresses or others where clouds have
    /// their metadata services, unless the range is allowed too.
    fn permits_name(&self, name: &str, address: IpAddr) -> bool {
        self.permits(address) || (self.allows_name(name) && table::is_private(address.to_canonical()))
    }

    /// Checks what can be known of a URL without resolving its name: the port, and a host that is an address.  `host` is
    /// as in a URL, with brackets around IPv6.
    ///
    /// # Errors
    /// [`Refused`], when no connection may be made.
    pub fn check(&self, host: &str, port: u16) -> Result<(), Refused> {
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let allowed = match literal {
            Ok(address) if !self.permits(address) => return Err(Refused::Address(address)),
            Ok(address) => self.allows(address.to_canonical()),
            Err(_) => self.allows_name(host),
        };
        if !allowed && table::is_foreign(port) {
            return Err(Refused::Port(port));
        }
        Ok(())
    }

    fn check_uri(&self, uri: &Uri) -> Result<(), Refused> {
        let default = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        self.check(uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(default))
    }

    fn allows(&self, address: IpAddr) -> bool {
        table::contains(&self.0.networks, address)
    }

    fn allows_name(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.0.hosts.iter().any(|pattern| pattern.matches(&name))
    }
}

/// Why no connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// This is the address, or the first of those of a name.
    Address(IpAddr),
    /// The port belongs to another protocol.
    Port(u16),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "the address {address} is not allowed as a destination"),
            Self::Port(port) => write!(f, "the port {port} is not allowed as a destination"),
        }
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests;
