//! The live end of the log on this node: what was committed, shared by all who watch.
//!
//! The bus keeps the newest events in memory, in order, all that there are.  A publish of this node appends its events right
//! after the commit; where somebody else's events lie between (another node's, on PostgreSQL), the tail task reads them
//! from the log first.  A watcher has a position and nothing else: it takes what follows from memory, or from the log
//! when it is further behind, so that a slow one costs nothing and loses nothing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::log;
use super::model::Event;
use crate::db::Db;
use crate::error::{Error, Result};

/// How many events are kept in memory.
const RING_EVENTS: usize = 65_536;
/// How many bytes of payload are kept in memory.
const RING_BYTES: usize = 64 * 1024 * 1024;
/// How many events are read at a time.
const BATCH: usize = 512;
/// How often the log is read for other nodes' events when nothing says that there are some.
const POLL: Duration = Duration::from_millis(200);

/// An event on the bus, with room for its encoded form: made by whoever needs it first, shared by all.
#[derive(Debug)]
pub struct Record {
    /// The event.
    pub event: Event,
    /// The event as it goes over the wire, with its length in front.
    pub encoded: OnceLock<Bytes>,
}

impl Record {
    fn new(event: Event) -> Arc<Self> {
        Arc::new(Self { event, encoded: OnceLock::new() })
    }

    fn weight(&self) -> usize {
        self.event.fact.data.len() + 256
    }
}

/// The bus.
pub struct Bus {
    db: Db,
    epoch: i64,
    ring: RwLock<Ring>,
    head: watch::Sender<i64>,
    watchers: AtomicUsize,
    tail: Notify,
}

#[derive(Default)]
struct Ring {
    records: VecDeque<Arc<Record>>,
    bytes: usize,
    /// All that the log has after this position, up to `last`, is here.
    first: i64,
    /// How far the log is known here.
    last: i64,
    /// How often everything here was forgotten.
    forgotten: u64,
}

impl Ring {
    fn push(&mut self, record: Arc<Record>) {
        debug_assert!(record.event.position > self.last, "the ring is in order");
        self.last = record.event.position;
        self.bytes += record.weight();
        self.records.push_back(record);
        while self.records.len() > RING_EVENTS || self.bytes > RING_BYTES {
            let Some(oldest) = self.records.pop_front() else {
                break;
            };
            self.first = oldest.event.position;
            self.bytes -= oldest.weight();
        }
    }

    /// What follows `position`; `None` when the ring does not reach back that far.
    fn after(&self, position: i64, limit: usize) -> Option<Vec<Arc<Record>>> {
        if position >= self.last {
            return Some(Vec::new());
        }
        if position < self.first {
            return None;
        }
        // Positions have holes where something was erased.
        let skip = self.records.partition_point(|record| record.event.position <= position);
        Some(self.records.iter().skip(skip).take(limit).cloned().collect())
    }
}

impl Bus {
    /// A bus that starts at the end of the log.
    pub async fn open(db: Db) -> Result<Arc<Self>> {
        let (epoch, last) = log::head(&mut db.reader().await?).await?;
        Ok(Arc::new(Self {
            db,
            epoch,
            ring: RwLock::new(Ring { first: last, last, ..Ring::default() }),
            head: watch::Sender::new(last),
            watchers: AtomicUsize::new(0),
            tail: Notify::new(),
        }))
    }

    /// Tells this database from every other.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Takes events that this node has just committed.
    pub fn committed(&self, events: &[Event]) {
        let Some(first) = events.first() else { return };
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        if first.position != ring.last + 1 {
            // Something of another node's comes first, or the tail task has been faster.
            drop(ring);
            self.tail.notify_one();
            return;
        }
        for event in events {
            ring.push(Record::new(event.clone()));
        }
        // Under the lock, so that the head never goes back.
        self.head.send_replace(ring.last);
    }

    /// Follows what other nodes commit, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let poll = self.db.is_shared();
        loop {
            if let Err(error) = self.catch_up().await {
                tracing::warn!(%error, "the live log could not be read");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.tail.notified() => {}
                () = tokio::time::sleep(POLL), if poll => {}
            }
        }
    }

    async fn catch_up(&self) -> Result<()> {
        loop {
            let (last, forgotten) = {
                let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
                (ring.last, ring.forgotten)
            };
            let events = log::read_after(&mut self.db.reader().await?, last, BATCH as i64).await?;
            let full = events.len() == BATCH;
            let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
            if ring.forgotten != forgotten {
                // Some of them may be erased by now.
                continue;
            }
            for event in events {
                // A publish of this node may have appended some of them while the query ran.  What is not there between
                // them was erased: whoever sees a position sees all that were given before it.
                if event.position > ring.last {
                    ring.push(Record::new(event));
                }
            }
            let last = ring.last;
            drop(ring);
            self.head.send_if_modified(|head| std::mem::replace(head, last) != last);
            if !full {
                return Ok(());
            }
        }
    }

    /// Forgets all events in memory: some were erased.  Who is behind reads the log.
    pub fn forget(&self) {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        let last = ring.last;
        let forgotten = ring.forgotten + 1;
        let old = std::mem::replace(&mut *ring, Ring { first: last, last, forgotten, ..Ring::default() });
        drop(ring);
        drop(old);
    }

    /// Waits until all that stands in the log up to `position` is known here.
    pub async fn reached(&self, position: i64) {
        let mut head = self.head.subscribe();
        self.tail.notify_one();
        // The sender lives as long as this bus.
        let _ = head.wait_for(|head| *head >= position).await;
    }

    /// Starts watching.
    pub fn watch(self: &Arc<Self>) -> Watcher {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        Watcher { bus: Arc::clone(self), head: self.head.subscribe() }
    }

    /// How many watch.
    pub fn watchers(&self) -> usize {
        self.watchers.load(Ordering::Relaxed)
    }
}

/// Somebody who watches the bus.
pub struct Watcher {
    bus: Arc<Bus>,
    head: watch::Receiver<i64>,
}

impl Watcher {
    /// The position of the last event that is known here.
    pub fn head(&self) -> i64 {
        *self.head.borrow()
    }

    /// The next events after `position`, in order, all that there are; empty when there is none yet.
    ///
    /// # Errors
    /// `UNAVAILABLE` when some have been removed for their age before they were read.
    pub async fn after(&mut self, position: i64) -> Result<Vec<Arc<Record>>> {
        self.after_at_most(position, BATCH).await
    }

    /// The same, at most `limit`; there are no more yet when it answers fewer.
    ///
    /// # Errors
    /// As [`Watcher::after`].
    pub async fn after_at_most(&mut self, position: i64, limit: usize) -> Result<Vec<Arc<Record>>> {
        // Marked as seen before it is read: what comes in between wakes `changed`.
        let head = *self.head.borrow_and_update();
        if position >= head {
            return Ok(Vec::new());
        }
        let shared = self.bus.ring.read().unwrap_or_else(PoisonError::into_inner).after(position, limit);
        match shared {
            Some(records) => Ok(records),
            None => {
                let mut conn = self.bus.db.reader().await?;
                let events = log::read_after(&mut conn, position, limit as i64).await?;
                // Asked after they were read: what was there then is whole if the log still begins before it.
                if position < log::start(&mut conn).await? {
                    return Err(Error::unavailable(
                        "the log begins later by now",
                        format!("after {position}"),
                    ));
                }
                Ok(events.into_iter().map(Record::new).collect())
            }
        }
    }

    /// Waits until there may be something new.
    pub async fn changed(&mut self) {
        // The sender lives as long as the bus that this watcher holds.
        let _ = self.head.changed().await;
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.bus.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::event::Fact;

    fn record(position: i64) -> Arc<Record> {
        let fact = Fact {
            id: format!("evt_{position}").into(),
            event_type: "a.b".into(),
            data: "{}".into(),
            actor: String::new(),
            subject: String::new(),
            topic: "events".into(),
            created_at: Timestamp::default(),
        };
        Record::new(Event { position, fact: Arc::new(fact) })
    }

    fn after(ring: &Ring, position: i64) -> Option<Vec<i64>> {
        let records = ring.after(position, 100)?;
        Some(records.iter().map(|record| record.event.position).collect())
    }

    #[test]
    fn a_ring_with_holes_answers_what_there_is_and_knows_how_far_back_it_reaches() {
        let mut ring = Ring { first: 10, last: 10, ..Ring::default() };
        assert_eq!(after(&ring, 10), Some(Vec::new()));
        assert_eq!(after(&ring, 9), None);
        for position in [11, 12, 15, 19] {
            ring.push(record(position));
        }
        assert_eq!(after(&ring, 10), Some(vec![11, 12, 15, 19]));
        assert_eq!(after(&ring, 12), Some(vec![15, 19]));
        assert_eq!(
            after(&ring, 13),
            Some(vec![15, 19]),
            "an event that was erased is a place like any other"
        );
        assert_eq!(after(&ring, 18), Some(vec![19]));
        assert_eq!(after(&ring, 19), Some(Vec::new()));
        for position in 20..=RING_EVENTS as i64 + 18 {
            ring.push(record(position));
        }
        assert_eq!(after(&ring, 13), None, "it has forgotten 15");
        assert_eq!(after(&ring, 15).unwrap()[0], 19, "and remembers all after it");
    }
}
