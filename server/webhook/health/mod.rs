//! How endpoints fare: one that only fails is told of, and in the end disabled; one whose host is dead is only probed.
//!
//! # Who is who
//! * The [`Pulse`] is what this node knows of an endpoint, in memory; the [`Chart`] what it has to do about endpoints.
//! * The [`breaker`] decides whether requests go out, or a probe only.  It is this node's own, and starts closed.
//! * The [`ramp`] says how many requests go out at a time.  It is this node's own, too, and starts with one.
//! * The [`Pace`] keeps requests to those that did not answer the last time apart.
//! * The [`record`] is what all nodes know together, a row of `webhook_health`.
//! * The [`verdict`] says what follows from a record, and the [`Keeper`] does it.
//! * A [`notice`] is an event about an endpoint, kept in the transaction of what was decided until it is published.
//!
//! # Guarantees
//! * Each change of an endpoint is announced once, over all nodes and crashes: it is decided under the lock of its row, and
//!   published under a request id of its own.
//! * What waits for a dead host is not lost and not counted as tried.

pub mod breaker;
mod keeper;
pub mod notice;
mod pace;
mod pulse;
mod ramp;
pub mod record;
pub(super) mod store;
pub mod verdict;

pub use keeper::Keeper;
pub use pace::Pace;
pub use pulse::{Chart, Pulse};
pub use record::Record;
pub use verdict::Thresholds;

use super::model::Webhook;
use crate::clock::Timestamp;
use crate::db::Conn;
use crate::delivery::Hold;
use crate::error::Result;

/// Why deliveries to a dead host wait.
pub(super) fn hold(until: Timestamp) -> Hold {
    let why = "many requests in a row failed: only probes are sent until one is answered".into();
    Hold { why, until }
}

/// Somebody switches an endpoint on again: what was before does not count any more.
pub(super) async fn revive(conn: &mut Conn, webhook: &mut Webhook) -> Result<()> {
    webhook.disabled_reason.clear();
    webhook.health = Record::default();
    store::reset(conn, &webhook.id).await
}
