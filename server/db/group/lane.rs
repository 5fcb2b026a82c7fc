//! A lane: the queue of one kind of write.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::batch::{AnyBatch, Batch, GroupedWrite, Reply};
use crate::clock::Stopwatch;
use crate::error::{Error, Kind, Result};

/// About how many rows one group may insert: enough to make the fsync cheap, few enough to keep it short.
pub(super) const GROUP_WEIGHT: usize = 1_000;
/// How many writes may wait in a lane.
const QUEUE_LIMIT: usize = 20_000;
/// How many bytes of payload may wait in a lane.
const QUEUE_BYTES: usize = 256 * 1024 * 1024;

/// Takes writes of one kind.
pub struct Lane<W: GroupedWrite>(Arc<Inner<W>>);

impl<W: GroupedWrite> Clone for Lane<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<W: GroupedWrite> {
    context: Arc<W::Context>,
    patience: Duration,
    queue: Mutex<Queue<W>>,
    wake: Arc<Notify>,
}

struct Queue<W: GroupedWrite> {
    items: VecDeque<(W, Reply<W>)>,
    bytes: usize,
    oldest: Stopwatch,
}

impl<W: GroupedWrite> Lane<W> {
    pub(super) fn new(context: Arc<W::Context>, patience: Duration, wake: Arc<Notify>) -> Self {
        let queue = Mutex::new(Queue { items: VecDeque::new(), bytes: 0, oldest: Stopwatch::start() });
        Self(Arc::new(Inner { context, patience, queue, wake }))
    }

    pub(super) fn erased(&self) -> Arc<dyn AnyLane> {
        Arc::clone(&self.0) as Arc<dyn AnyLane>
    }

    /// What all writes of the lane share.
    pub fn context(&self) -> &Arc<W::Context> {
        &self.0.context
    }

    /// Writes, and answers after the commit is durable.  A caller that goes away does not stop the write.
    ///
    /// # Errors
    /// `UNAVAILABLE` when the lane is full or the database can not be written to.
    pub async fn write(&self, write: W) -> Result<W::Output> {
        let (sender, receiver) = oneshot::channel();
        self.push(write, Reply::Caller(sender)).map_err(|(_, error)| error)?;
        receiver
            .await
            .map_err(|_| Error::unavailable("the server is shutting down", "the writer has ended"))?
    }

    /// Writes, and calls back after the commit, or with the write when it failed.
    pub fn submit(&self, write: W, callback: impl FnOnce(W, Result<W::Output>) + Send + 'static) {
        if let Err((item, error)) = self.push(write, Reply::Callback(Box::new(callback)))
            && let (write, Reply::Callback(callback)) = *item
        {
            callback(write, Err(error));
        }
    }

    #[expect(clippy::type_complexity, reason = "a refused item goes back to the only two callers, above")]
    fn push(&self, write: W, reply: Reply<W>) -> Result<(), (Box<(W, Reply<W>)>, Error)> {
        let mut queue = self.0.lock();
        if queue.items.len() >= QUEUE_LIMIT || queue.bytes >= QUEUE_BYTES {
            let error = Error::new(
                Kind::Unavailable,
                "OVERLOADED",
                "the server has too much to write: try again soon",
            )
            .retry_after(Duration::from_secs(1));
            return Err((Box::new((write, reply)), error));
        }
        if queue.items.is_empty() {
            queue.oldest = Stopwatch::start();
        }
        queue.bytes += write.bytes();
        queue.items.push_back((write, reply));
        drop(queue);
        self.0.wake.notify_one();
        Ok(())
    }
}

impl<W: GroupedWrite> Inner<W> {
    fn lock(&self) -> MutexGuard<'_, Queue<W>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a lane has something to write, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Readiness {
    Now,
    In(Duration),
    Empty,
}

/// A lane of any kind.
pub(super) trait AnyLane: Send + Sync {
    fn readiness(&self) -> Readiness;
    fn take(&self) -> Option<Box<dyn AnyBatch>>;
}

impl<W: GroupedWrite> AnyLane for Inner<W> {
    fn readiness(&self) -> Readiness {
        let queue = self.lock();
        if queue.items.is_empty() {
            return Readiness::Empty;
        }
        let left = self.patience.saturating_sub(queue.oldest.elapsed());
        if left.is_zero() || queue.items.len() >= GROUP_WEIGHT / 4 {
            Readiness::Now
        } else {
            Readiness::In(left)
        }
    }

    fn take(&self) -> Option<Box<dyn AnyBatch>> {
        let mut queue = self.lock();
        let mut weight = 0;
        let count = queue
            .items
            .iter()
            .take_while(|(write, _)| {
                let fits = weight < GROUP_WEIGHT;
                weight += write.weight();
                fits
            })
            .count();
        if count == 0 {
            return None;
        }
        let (writes, replies): (Vec<W>, Vec<_>) = queue.items.drain(..count).unzip();
        queue.bytes -= writes.iter().map(GroupedWrite::bytes).sum::<usize>();
        queue.oldest = Stopwatch::start();
        Some(Box::new(Batch { context: Arc::clone(&self.context), writes, replies, done: None }))
    }
}
