//! How many streams there may be, and how fast they may be opened.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use crate::clock::{Stopwatch, Timestamp};
use crate::error::{Error, Kind};
use crate::rpc::admission::quota::Quota;

/// What the settings say about streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Whether there are any.
    pub enabled: bool,
    /// Open streams on this node.
    pub streams: usize,
    /// Open streams of one user on this node.
    pub per_user: usize,
    /// Open streams from one address on this node; `None` means any number.
    pub per_address: Option<usize>,
    /// Streams opened in a second on this node.
    pub opens_per_second: i64,
    /// How long a stream lasts.
    pub max_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            enabled: true,
            streams: 20_000,
            per_user: 20,
            per_address: None,
            opens_per_second: 1_000,
            max_age: Duration::from_secs(15 * 60),
        }
    }
}

/// How fast streams are opened.
pub(super) struct Opens {
    began: Stopwatch,
    back: AtomicI64,
}

impl Opens {
    pub fn new() -> Self {
        Self { began: Stopwatch::start(), back: AtomicI64::new(0) }
    }

    /// Counts one.
    ///
    /// # Errors
    /// How long to wait.
    pub fn take(&self, limits: &Limits) -> Result<(), Duration> {
        let now = i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX);
        match Quota::new("stream_opens", limits.opens_per_second, Duration::from_secs(1)) {
            None => Ok(()),
            Some(quota) => {
                let taken = quota.take(&self.back, Timestamp::from_micros(now));
                taken.map(drop).map_err(|refused| refused.after)
            }
        }
    }
}

/// Live streams are switched off.
pub(super) fn disabled() -> Error {
    Error::new(Kind::FailedPrecondition, "LIVE_DISABLED", "live streams are switched off")
}

/// A limit of streams is reached.
pub(super) fn full(setting: &'static str, what: String, after: Duration) -> Error {
    Error::new(Kind::ResourceExhausted, "STREAM_LIMIT", what).with("setting", setting).retry_after(after)
}
