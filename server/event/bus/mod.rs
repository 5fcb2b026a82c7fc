//! The live end of the log on this node: what was committed, shared by all who watch.
//!
//! The bus keeps the newest events in memory, in order, all that there are ([`ring`]).  A publish of this node appends its
//! events right after the commit; where somebody else's events lie between (another node's, on PostgreSQL), the tail task
//! reads them from the log first.  A watcher ([`watcher`]) has a position, the topics that it [wants](Wanted), and nothing
//! else: it takes what follows from memory, or from the log when it is further behind ([`behind`]), so that a slow one
//! costs nothing and loses nothing.  It is woken for its own topics only ([`wakes`]).

mod behind;
mod bounds;
mod ring;
mod wakes;
mod wanted;
mod watcher;

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::log;
use super::model::Event;
use crate::db::Db;
use crate::db::hint::{Hint, Hints};
use crate::error::Result;
use behind::Behind;
use bounds::Shared;
use ring::Ring;

pub use bounds::Bounds;
pub use wakes::Wakes;
pub use wanted::Wanted;
pub use watcher::Watcher;

/// How many events are read at a time.
const BATCH: usize = 512;
/// How often the log is read for other nodes' events when nothing says that there are some.
const POLL: Duration = Duration::from_millis(200);
/// How many events are in memory from the beginning: those who watched the process before come back all at once, and are
/// not far behind.
const REMEMBERED: i64 = 2_048;

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

    /// About what it takes of memory, in bytes.
    fn weight(&self) -> usize {
        // The encoded form has the payload once more, and the index knows the event too.
        2 * self.event.fact.data.len() + 768
    }
}

/// What somebody who watches gets.
#[derive(Debug, Clone, Default)]
pub struct Read {
    /// Wanted events, in order.
    pub records: Vec<Arc<Record>>,
    /// There are no others up to this position.
    pub through: i64,
}

/// The bus.
pub struct Bus {
    db: Db,
    epoch: i64,
    ring: RwLock<Ring>,
    behind: Behind,
    bounds: Shared,
    head: watch::Sender<i64>,
    wakes: Arc<Wakes>,
    tail: Notify,
    hints: OnceLock<Arc<Hints>>,
}

impl Bus {
    /// A bus that knows the log to its end, and the last of it by heart.
    ///
    /// # Errors
    /// When the log can not be read.
    pub async fn open(db: Db) -> Result<Arc<Self>> {
        let bounds = Shared::new(db.clone());
        let Bounds { epoch, start, head } = bounds.read().await?;
        let bus = Self {
            behind: Behind::new(db.clone()),
            db,
            epoch,
            ring: RwLock::new(Ring::at(start.max(head - REMEMBERED), 0)),
            bounds,
            head: watch::Sender::new(head),
            wakes: Arc::default(),
            tail: Notify::new(),
            hints: OnceLock::new(),
        };
        bus.catch_up().await?;
        // The last events may be erased.
        bus.ring.write().unwrap_or_else(PoisonError::into_inner).reach(head);
        Ok(Arc::new(bus))
    }

    /// Where the log begins and ends, as it is now.
    ///
    /// # Errors
    /// When the database can not be read.
    pub async fn bounds(&self) -> Result<Bounds> {
        self.bounds.read().await
    }

    /// Has other nodes told by `hints` what this one commits, and this one look when it hears of theirs.  The first ones stay.
    pub fn hint_with(&self, hints: Arc<Hints>) {
        let _ = self.hints.set(hints);
    }

    /// Tells this database from every other.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// The position of the last event that is known here.
    pub fn head(&self) -> i64 {
        *self.head.borrow()
    }

    /// Wakes those who watch, also for what is not in the log.
    pub fn wakes(&self) -> &Arc<Wakes> {
        &self.wakes
    }

    /// Takes events that this node has just committed.
    pub fn committed(&self, events: &[Event]) {
        let Some(first) = events.first() else { return };
        if let Some(hints) = self.hints.get() {
            hints.give(Hint::Log);
        }
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
        drop(ring);
        self.wakes.touch(events.iter().map(|event| &event.fact.topic));
    }

    /// Follows what other nodes commit and wakes who waits, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::join!(self.follow(&stop), self.wakes.run(&stop));
    }

    async fn follow(&self, stop: &CancellationToken) {
        let poll = self.db.is_shared();
        let mut heard = self.hints.get().map(|hints| hints.heard(Hint::Log));
        loop {
            if let Err(error) = self.catch_up().await {
                tracing::warn!(%error, "the live log could not be read");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.tail.notified() => {}
                () = hint(&mut heard) => {}
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
            let mut topics = Vec::new();
            let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
            if ring.forgotten != forgotten {
                // Some of them may be erased by now.
                continue;
            }
            for event in events {
                // A publish of this node may have appended some of them while the query ran.  What is not there between
                // them was erased: whoever sees a position sees all that were given before it.
                if event.position > ring.last {
                    topics.push(Arc::clone(&event.fact.topic));
                    ring.push(Record::new(event));
                }
            }
            let last = ring.last;
            drop(ring);
            self.head.send_if_modified(|head| last > std::mem::replace(head, last.max(*head)));
            if !topics.is_empty() {
                self.wakes.touch(&topics);
            }
            if !full {
                return Ok(());
            }
        }
    }

    /// Forgets all events in memory: some were erased.  Who is behind reads the log.
    pub fn forget(&self) {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        let new = Ring::at(ring.last, ring.forgotten + 1);
        let old = std::mem::replace(&mut *ring, new);
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

    /// Starts watching all topics.
    pub fn watch(self: &Arc<Self>) -> Watcher {
        self.watch_topics(Wanted::All, Arc::default())
    }

    /// Starts watching some topics; `bell` is rung when there may be something new.
    pub fn watch_topics(self: &Arc<Self>, wanted: Wanted, bell: Arc<Notify>) -> Watcher {
        Watcher::new(Arc::clone(self), wanted, bell)
    }
}

/// Waits for a hint; for ever where there are none.
async fn hint(heard: &mut Option<watch::Receiver<()>>) {
    match heard {
        // The sender lives as long as the bus that has it.
        Some(heard) => drop(heard.changed().await),
        None => std::future::pending().await,
    }
}
