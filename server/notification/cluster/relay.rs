//! Ephemeral events on their way between nodes.
//!
//! A publish hands its event to [`Relay::forward`] and goes on.  One task writes what has gathered meanwhile: while one
//! write is under way, the next gathers.  Writes of all nodes come one after the other, under a lock, so that who has
//! seen a row will never find an earlier one later.  What can not be written is lost, as ephemeral events may be.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::store::{self, Row};
use crate::clock::Stopwatch;
use crate::db::Db;
use crate::db::hint::{Hint, Hints};
use crate::error::Result;
use crate::event::Fact;
use crate::event::ephemeral::Ephemeral;

/// How often it is looked for events of other nodes when no hint comes.
const POLL: Duration = Duration::from_millis(200);
/// How many events one write or one read takes, and about how many bytes of payload a write.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How many events, and bytes of payload, may wait to be written.
const QUEUE_LIMIT: usize = 10_000;
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// How many of the newest values a node that starts reads.
const NEWEST: i64 = 10_000;
/// How often it is looked for what is too old.
const TIDY: Duration = Duration::from_secs(15);
/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Carries ephemeral events between this node and the others.
pub struct Relay {
    db: Db,
    node_id: i64,
    hints: Arc<Hints>,
    queue: Mutex<Queue>,
    wake: Notify,
}

/// An event that waits to be written.
#[derive(Debug)]
pub(super) struct Waiting {
    pub fact: Arc<Fact>,
    pub collapse_key: String,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Waiting>,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, event: Waiting) {
        if self.events.len() >= QUEUE_LIMIT || self.bytes >= QUEUE_BYTES {
            self.compact();
        }
        while self.events.len() >= QUEUE_LIMIT || self.bytes >= QUEUE_BYTES {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.fact.data.len();
        }
        self.bytes += event.fact.data.len();
        self.events.push_back(event);
    }

    /// Leaves out what something newer of the same topic and key has replaced.
    fn compact(&mut self) {
        let mut seen = HashSet::new();
        let mut kept = VecDeque::with_capacity(self.events.len());
        for event in std::mem::take(&mut self.events).into_iter().rev() {
            let is_newest = event.collapse_key.is_empty()
                || seen.insert((Arc::clone(&event.fact.topic), event.collapse_key.clone()));
            if is_newest {
                kept.push_front(event);
            }
        }
        self.bytes = kept.iter().map(|event| event.fact.data.len()).sum();
        self.events = kept;
    }

    fn take(&mut self) -> Vec<Waiting> {
        self.compact();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH
            && bytes < BATCH_BYTES
            && let Some(event) = self.events.pop_front()
        {
            bytes += event.fact.data.len();
            batch.push(event);
        }
        self.bytes -= bytes;
        batch
    }
}

impl Relay {
    /// A relay of this node.
    pub fn new(db: Db, node_id: i64, hints: Arc<Hints>) -> Arc<Self> {
        Arc::new(Self { db, node_id, hints, queue: Mutex::default(), wake: Notify::new() })
    }

    /// Takes an event of this node for the others; never waits.
    pub fn forward(&self, event: &Ephemeral) {
        let event = Waiting { fact: Arc::clone(&event.fact), collapse_key: event.collapse_key.clone() };
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        self.wake.notify_one();
    }

    /// Writes what was taken, until `stop`.
    pub async fn write(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
            }
            loop {
                let batch = self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
                if batch.is_empty() {
                    break;
                }
                let (count, node_id) = (batch.len(), self.node_id);
                let written = self.db.transaction(move |conn| {
                    Box::pin(async move { store::append(conn, node_id, &batch).await })
                });
                if let Err(error) = written.await {
                    tracing::warn!(%error, count, "ephemeral events did not reach the other nodes");
                    if tokio::time::timeout(PAUSE, stop.cancelled()).await.is_ok() {
                        return;
                    }
                    continue;
                }
                self.hints.give(Hint::Ephemeral);
            }
        }
    }

    /// The newest event of each topic and collapse key, and the place after which [`Relay::read`] goes on.
    ///
    /// # Errors
    /// When the database can not be read.
    pub async fn newest(&self) -> Result<(Vec<Arc<Ephemeral>>, i64)> {
        let mut conn = self.db.reader().await?;
        // The place first: what is written in between comes twice.
        let head = store::head(&mut conn).await?;
        let rows = store::newest(&mut conn, NEWEST).await?;
        Ok((rows.into_iter().map(event_of).collect(), head))
    }

    /// Hands what other nodes publish after `position` to `deliver`, until `stop`.
    pub async fn read(
        self: Arc<Self>,
        mut position: i64,
        deliver: impl Fn(Arc<Ephemeral>) + Send + Sync + 'static,
        stop: CancellationToken,
    ) {
        let mut heard = self.hints.heard(Hint::Ephemeral);
        let mut tidied = Stopwatch::start();
        loop {
            let wait = match self.catch_up(&mut position, &deliver).await {
                Ok(()) => POLL,
                Err(error) => {
                    tracing::warn!(%error, "ephemeral events of other nodes could not be read");
                    PAUSE
                }
            };
            if tidied.elapsed() >= TIDY {
                tidied = Stopwatch::start();
                if let Err(error) = self.tidy().await {
                    tracing::warn!(%error, "old ephemeral events could not be removed");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                // The sender lives as long as the hints that this relay holds.
                _ = heard.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Removes what is older than a minute, but for the newest of each topic and collapse key.
    ///
    /// # Errors
    /// When the database refuses it.
    pub async fn tidy(&self) -> Result<()> {
        store::tidy(&self.db).await
    }

    async fn catch_up(&self, position: &mut i64, deliver: &impl Fn(Arc<Ephemeral>)) -> Result<()> {
        let mut conn = self.db.reader().await?;
        let head = store::head(&mut conn).await?;
        while *position < head {
            let rows = store::read(&mut conn, self.node_id, *position, head, BATCH as i64).await?;
            // This node's own rows are passed over, and may be the last.
            *position = match rows.last() {
                Some(last) if rows.len() == BATCH => last.seq,
                _ => head,
            };
            rows.into_iter().map(event_of).for_each(deliver);
        }
        Ok(())
    }
}

fn event_of(row: Row) -> Arc<Ephemeral> {
    let fact = Fact {
        id: row.event_id.into(),
        event_type: row.event_type.into(),
        data: row.data,
        actor: row.actor,
        subject: row.subject,
        topic: row.topic.into(),
        created_at: row.created_at,
    };
    Ephemeral::new(Arc::new(fact), row.collapse_key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn event(key: &str, data: &str) -> Waiting {
        let fact = Fact {
            id: "evt_1".into(),
            event_type: "a.b".into(),
            data: data.into(),
            actor: String::new(),
            subject: String::new(),
            topic: "t".into(),
            created_at: Timestamp::default(),
        };
        Waiting { fact: Arc::new(fact), collapse_key: key.into() }
    }

    fn taken(queue: &mut Queue) -> Vec<String> {
        queue.take().into_iter().map(|event| event.fact.data.clone()).collect()
    }

    #[test]
    fn of_what_waits_the_newest_of_each_key_is_written() {
        let mut queue = Queue::default();
        for (key, data) in [("a", "1"), ("", "2"), ("b", "3"), ("a", "4"), ("", "5")] {
            queue.push(event(key, data));
        }
        assert_eq!(taken(&mut queue), ["2", "3", "4", "5"]);
        assert_eq!((queue.events.len(), queue.bytes), (0, 0));
    }

    #[test]
    fn what_waits_is_bounded_by_number_and_by_size_and_the_oldest_goes() {
        let mut queue = Queue::default();
        for n in 0..QUEUE_LIMIT + 5 {
            queue.push(event("", &n.to_string()));
        }
        assert_eq!(queue.events.len(), QUEUE_LIMIT);
        assert_eq!(queue.events[0].fact.data, "5");
        let mut queue = Queue::default();
        let large = "x".repeat(1024 * 1024);
        for _ in 0..100 {
            queue.push(event("", &large));
        }
        assert!(queue.bytes <= QUEUE_BYTES, "{}", queue.bytes);
        assert_eq!(taken(&mut queue).len(), BATCH_BYTES / large.len());
        for _ in 0..QUEUE_LIMIT * 3 {
            queue.push(event("one", &large));
        }
        assert!(taken(&mut queue).len() <= 5, "one key takes the room of one");
    }
}
