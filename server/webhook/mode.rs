//! How events get to an endpoint.

use serde::{Deserialize, Serialize};

/// How events get to an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryMode {
    /// A request for each event, many at a time, in no order.
    #[default]
    Concurrent,
    /// A request for each event, one at a time for each subject, in the order of publishing.
    Ordered,
    /// One request for several events.
    Batched,
    /// No requests: the receiver reads.
    Pulled,
}

impl DeliveryMode {
    /// Whether it is the one that endpoints have who say nothing.
    pub fn is_concurrent(&self) -> bool {
        *self == Self::Concurrent
    }
}
