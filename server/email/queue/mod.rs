//! The queue, as administrators see it and change it: lists, counts, cancel, retry.
//!
//! Every change is a compare-and-set on the state: a mail that a worker has in hand meanwhile is left to it, and the
//! answer says so.

mod service;
mod store;

pub use service::{Detail, QueueService};
pub use store::{Captured, EmailFilter, Queued, RecipientRow, RetryFilter, Standing};

use crate::clock::Timestamp;
use crate::delivery::{Hold, State};

/// How many mails are in which state, and what keeps them waiting.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// How many are in each state that has any.
    pub counts: Vec<(State, i64)>,
    /// When the oldest of those that wait was due; `None` when nothing waits past its time.
    pub oldest_due: Option<Timestamp>,
    /// What keeps mails waiting.
    pub holds: Vec<Hold>,
}
