//! Where a request comes from.

use std::net::IpAddr;

/// The address of whoever sent a request: the peer of its connection.  The port puts it into every request; a layer that
/// knows better, because a proxy that it trusts told it, puts another one in its place before the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// The address of a request, if it came through the port.
    pub fn of(extensions: &http::Extensions) -> Option<IpAddr> {
        extensions.get::<Self>().map(|address| address.0.to_canonical())
    }
}
