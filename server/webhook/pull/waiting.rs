//! How many reads may wait for events at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, Kind, Result};

const TOTAL: usize = 10_000;
const EACH: usize = 10;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The reads that wait, by endpoint.
pub(super) struct Waiting {
    total: usize,
    each: usize,
    reads: Mutex<Reads>,
}

#[derive(Default)]
struct Reads {
    total: usize,
    each: HashMap<String, usize>,
}

/// A read that waits, as long as it is held.
pub(super) struct Seat {
    waiting: Arc<Waiting>,
    webhook_id: String,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { total: TOTAL, each: EACH, reads: Mutex::default() }
    }
}

impl Waiting {
    /// Notes a read that waits.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` with the reason `PULLS_WAITING` when so many wait already.
    pub(super) fn enter(self: &Arc<Self>, webhook_id: &str) -> Result<Seat> {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let each = reads.each.get(webhook_id).copied().unwrap_or_default();
        let full = if each >= self.each {
            Some((self.each, "of this endpoint"))
        } else if reads.total >= self.total {
            Some((self.total, "of all endpoints"))
        } else {
            None
        };
        if let Some((count, whose)) = full {
            let message = format!("{count} reads {whose} wait for events already: read without `wait`");
            return Err(
                Error::new(Kind::ResourceExhausted, "PULLS_WAITING", message).retry_after(RETRY_AFTER)
            );
        }
        reads.total += 1;
        reads.each.insert(webhook_id.to_owned(), each + 1);
        Ok(Seat { waiting: Arc::clone(self), webhook_id: webhook_id.to_owned() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut reads = self.waiting.reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads.total -= 1;
        if let Some(each) = reads.each.get_mut(&self.webhook_id) {
            *each -= 1;
            if *each == 0 {
                reads.each.remove(&self.webhook_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_wait_and_no_more() {
        let waiting = Arc::new(Waiting { total: 3, each: 2, reads: Mutex::default() });
        let first = waiting.enter("a").unwrap();
        let _second = waiting.enter("a").unwrap();
        let refused = waiting.enter("a").err().unwrap();
        assert_eq!((refused.kind(), refused.reason()), (Kind::ResourceExhausted, "PULLS_WAITING"));
        assert_eq!(refused.retry_delay(), Some(RETRY_AFTER));
        let third = waiting.enter("b").unwrap();
        assert!(waiting.enter("c").is_err(), "all places are taken");
        drop(first);
        let _fourth = waiting.enter("a").unwrap();
        drop(third);
        assert!(!waiting.reads.lock().unwrap().each.contains_key("b"), "who is gone is forgotten");
    }
}
