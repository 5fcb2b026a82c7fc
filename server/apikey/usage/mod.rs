//! Usage: how often keys are used, for what, with what outcome and how fast.
//!
//! ```text
//! gate, verify ─▶ Usage::note ─▶ counts (exact) ──┬─ once a second, one transaction ─▶ api_key_usage, api_key_durations,
//!                               └▶ log (a ring) ──┘                                   api_key_logs, api_key_activity
//! ```
//! A call is counted in memory and never waits for the database or fails for it.  Counts are exact: what can not be written now
//! is kept and written later.  The log has an end: what does not fit into a second is dropped, errors last, and counted.  A crash
//! loses the last second of both; a stop loses nothing.  Rows of minutes become rows of hours after a day, and of days after a month.

mod durations;
pub mod endpoint;
mod flush;
mod read;
mod rollup;
mod store;
mod tally;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::id::IdGenerator;
use crate::rpc::meter::Use;
pub use durations::Durations;
pub use read::{EndpointUsage, KeyUsage, LogFilter, StatusUsage, TopKey, UsageReport, UsageWindow};
pub use rollup::Kept;
pub use store::LogRow;
use tally::Tally;

/// A use of a key that ended.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// The key.
    pub key_id: &'a Arc<str>,
    /// The HTTP method.
    pub method: &'a str,
    /// What was called: a path.
    pub path: &'a str,
    /// What is counted together with it: the path, or what it has in common with others.
    pub endpoint: Cow<'a, str>,
    /// The HTTP status that says how it ended.
    pub status: u16,
    /// The same in a word.
    pub code: &'static str,
    /// Where from.
    pub address: Option<IpAddr>,
    /// How long it took.
    pub duration: Duration,
    /// When it ended.
    pub at: Timestamp,
}

/// A use that waits to be written to the log.  Most uses are only counted, and nothing of them is copied.
#[derive(Debug)]
struct Entry {
    key_id: Arc<str>,
    method: Box<str>,
    path: Box<str>,
    status: u16,
    code: &'static str,
    address: Option<IpAddr>,
    duration: Duration,
    at: Timestamp,
}

impl From<&Call<'_>> for Entry {
    fn from(call: &Call<'_>) -> Self {
        Self {
            key_id: Arc::clone(call.key_id),
            method: call.method.into(),
            path: endpoint::without_query(call.path).into(),
            status: call.status,
            code: call.code,
            address: call.address,
            duration: call.duration,
            at: call.at,
        }
    }
}

/// Counts and logs uses.
pub struct Usage {
    tally: Tally,
    ids: Arc<IdGenerator>,
    /// Log entries that did not fit.
    dropped: AtomicU64,
    /// One flush at a time.
    flushing: tokio::sync::Mutex<()>,
}

impl Usage {
    /// Nothing yet.
    pub fn new(ids: Arc<IdGenerator>) -> Self {
        Self {
            tally: Tally::default(),
            ids,
            dropped: AtomicU64::new(0),
            flushing: tokio::sync::Mutex::default(),
        }
    }

    /// Counts and logs a use.
    pub fn note(&self, call: &Call<'_>) {
        if !self.tally.note(call) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts and logs a call of this server's own.
    pub fn note_own(&self, own: Use, at: Timestamp) {
        let Use { key_id, path, code, status, address, duration } = own;
        let (key_id, endpoint) = (&key_id, Cow::Borrowed(path));
        // gRPC knows one HTTP method.
        self.note(&Call { key_id, method: "POST", path, endpoint, status, code, address, duration, at });
    }

    /// How many log entries were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
