//! How events get to an endpoint.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::delivery::Batching as Gathering;
use crate::error::Violations;

const MOST_EVENTS: u32 = 500;
const DEFAULT_EVENTS: u32 = 100;
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const DEFAULT_WAIT: Duration = Duration::from_secs(5);
/// The most that the payloads of a batch weigh together, but for one that is alone.
const BATCH_BYTES: usize = 1024 * 1024;

/// How events get to an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryMode {
    /// A request for each event, many at a time.
    #[default]
    Concurrent,
    /// A request for each event, for each subject one at a time, in the order of publishing.
    Ordered,
    /// A request for several events.
    Batched,
    /// No requests: the receiver reads.
    Pulled,
}

impl DeliveryMode {
    /// Whether it is the default.
    pub fn is_concurrent(&self) -> bool {
        *self == Self::Concurrent
    }
}

/// When a batch is sent: as soon as either is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batching {
    /// So many events; 0 is the default.
    pub max_events: u32,
    /// So long after the first; `None` is the default.
    pub max_wait: Option<Duration>,
}

impl Batching {
    /// Checks what a caller set.
    pub fn check(&self, violations: &mut Violations) {
        let fits = self.max_events <= MOST_EVENTS;
        violations.require(
            fits,
            "webhook.batching.max_events",
            "must be from 1 to 500, or 0 for the default",
        );
        let fits = self.max_wait.is_none_or(|wait| wait <= LONGEST_WAIT);
        violations.require(fits, "webhook.batching.max_wait", "must be at most 60 seconds");
    }

    /// As the engine uses it.
    pub fn ready(self) -> Gathering {
        let most = if self.max_events == 0 { DEFAULT_EVENTS } else { self.max_events };
        Gathering { most: most as usize, wait: self.max_wait.unwrap_or(DEFAULT_WAIT), bytes: BATCH_BYTES }
    }
}
