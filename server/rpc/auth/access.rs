//! What a call was let in with, for calls that last: their callers are asked about again, and by the same measure.

use std::net::IpAddr;

use crate::error::{Error, Result};

/// The measure by which the gate let a call in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The scope that the method needs.
    pub scope: &'static str,
    /// Where the call is from: behind trusted proxies, whom they were asked by.
    pub address: Option<IpAddr>,
}

impl Access {
    /// That of a request that went through the gate.
    ///
    /// # Errors
    /// When it did not.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self> {
        let known = request.extensions().get().copied();
        known.ok_or_else(|| Error::internal("a request came past the gate"))
    }
}
