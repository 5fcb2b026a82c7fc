//! Somebody who watches the bus: topics, and a bell.

use std::sync::{Arc, PoisonError};

use tokio::sync::Notify;

use super::behind::Known;
use super::wanted::Wanted;
use super::{BATCH, Bus, Read};
use crate::error::Result;

/// Somebody who watches the bus.
pub struct Watcher {
    bus: Arc<Bus>,
    wanted: Wanted,
    number: u64,
    bell: Arc<Notify>,
}

impl Watcher {
    pub(super) fn new(bus: Arc<Bus>, wanted: Wanted, bell: Arc<Notify>) -> Self {
        let number = bus.wakes.enter(&wanted, &bell);
        Self { bus, wanted, number, bell }
    }

    /// The position of the last event that is known here.
    pub fn head(&self) -> i64 {
        self.bus.head()
    }

    /// What is watched.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Watches other topics from now on.
    pub fn watch(&mut self, wanted: Wanted) {
        // First the new and then the old, so that what is in both is never missed.
        let number = self.bus.wakes.enter(&wanted, &self.bell);
        self.bus.wakes.leave(&self.wanted, self.number);
        (self.wanted, self.number) = (wanted, number);
    }

    /// The next wanted events after `position`; `None` when some of them were removed for their age before they were
    /// read.
    ///
    /// # Errors
    /// When the log can not be read.
    pub async fn after(&self, position: i64) -> Result<Option<Read>> {
        self.after_at_most(position, BATCH).await
    }

    /// The same, at most `limit` of them.
    ///
    /// # Errors
    /// As [`Watcher::after`].
    pub async fn after_at_most(&self, position: i64, limit: usize) -> Result<Option<Read>> {
        let known = {
            let ring = self.bus.ring.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(read) = ring.after(position, &self.wanted, limit) {
                return Ok(Some(read));
            }
            Known { last: ring.last, forgotten: ring.forgotten }
        };
        // By itself: what few need at a time would be part of each of the many that are not behind.
        Box::pin(self.bus.behind.after(position, &self.wanted, limit, known)).await
    }

    /// Waits until there may be something new since this was called last.
    pub async fn changed(&self) {
        self.bell.notified().await;
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.bus.wakes.leave(&self.wanted, self.number);
    }
}
