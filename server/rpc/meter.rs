//! What is told of every call that a key was used for, to whoever counts them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A call that was answered.
#[derive(Debug, Clone)]
pub struct Use {
    /// The caller's key.
    pub key_id: Arc<str>,
    /// The method, as `/package.Service/Method`.
    pub path: &'static str,
    /// The name of the answer's code.
    pub code: &'static str,
    /// The HTTP status that says the same.
    pub status: u16,
    /// Where the call came from.
    pub address: Option<IpAddr>,
    /// How long it took to be answered, or to begin with it for a stream.
    pub duration: Duration,
}

/// Counts calls.  It must not wait: the caller does.
pub trait Meter: Send + Sync + 'static {
    /// Counts one.
    fn used(&self, used: Use);
}
