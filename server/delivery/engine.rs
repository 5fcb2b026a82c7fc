//! The engine of one channel: lanes, workers, hand-over.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::block::{self, Blocks, Hold, Room};
use super::completion::{Completion, Effect, Ledger};
use super::lane::{Lanes, Limits, Slot};
use super::machine::{Outcome, Policy};
use super::model::Table;
use super::node::Node;
use super::{poller, set_back, store, worker};
use crate::clock::{SharedClock, Timestamp};
use crate::db::group::{Lane as WriteLane, Writer};
use crate::db::{Conn, Db};
use crate::error::Result;
use crate::failpoint;
use crate::secret::SharedRandom;
use crate::telemetry::Metrics;

/// How one channel makes an attempt.
pub trait Channel: Send + Sync + 'static {
    /// What an attempt needs to know of a delivery.
    type Payload: Send + Sync + 'static;

    /// The table of its deliveries.
    fn table(&self) -> Table;

    /// When a failed delivery is tried again.
    fn policy(&self, job: &Leased<Self::Payload>) -> Arc<Policy>;

    /// Makes one attempt.  It must end by itself: the engine sets no deadline.
    fn attempt(&self, job: &Leased<Self::Payload>) -> impl Future<Output = Attempt> + Send;

    /// How deliveries of a lane go out now.  Asked before each attempt.
    fn dispatch(&self, _lane: &str) -> Dispatch {
        Dispatch::default()
    }

    /// What a delivery weighs in a batch, in bytes.
    fn weight(&self, _job: &Leased<Self::Payload>) -> usize {
        0
    }

    /// Makes one attempt for several deliveries of a lane together; answers what came of it for each, in their order.
    fn attempt_together(&self, jobs: &[Leased<Self::Payload>]) -> impl Future<Output = Vec<Attempt>> + Send {
        async move {
            let mut attempts = Vec::with_capacity(jobs.len());
            for job in jobs {
                attempts.push(self.attempt(job).await);
            }
            attempts
        }
    }

    /// How many of `wanted` deliveries of a lane may be claimed now.  Asked in the transaction of the claim.
    fn room<'a>(
        &'a self,
        _conn: &'a mut Conn,
        _lane: &'a str,
        wanted: usize,
        _now: Timestamp,
    ) -> BoxFuture<'a, Result<Room>> {
        async move { Ok(Room { granted: wanted, hold: None }) }.boxed()
    }

    /// Told, in the transaction of the claim, how many were claimed of what there was room for.
    fn claimed<'a>(
        &'a self,
        _conn: &'a mut Conn,
        _lane: &'a str,
        _count: usize,
        _now: Timestamp,
    ) -> BoxFuture<'a, Result<()>> {
        async { Ok(()) }.boxed()
    }

    /// Which of the lanes that have something due is served first: the lowest.
    fn rank(&self, _lane: &str) -> u8 {
        0
    }

    /// The payloads of deliveries that were claimed from the database; one that is missing is given back as withdrawn.
    fn load<'a>(
        &'a self,
        conn: &'a mut Conn,
        ids: Vec<String>,
    ) -> BoxFuture<'a, Result<Loaded<Self::Payload>>>;
}

/// Payloads by the ids of their deliveries.
pub type Loaded<P> = Vec<(String, P)>;

/// A delivery that this node has in hand.
#[derive(Debug)]
pub struct Leased<P> {
    /// The delivery's id.
    pub id: String,
    /// Its lane.
    pub lane: Arc<str>,
    /// Attempts made before.
    pub attempts: u32,
    /// How many of them were made before somebody asked for another try.
    pub attempts_before: u32,
    /// When it was due.
    pub due: Timestamp,
    /// The lease's token: a result is written only under it.
    pub token: i64,
    /// What it is in order with, in its lane.
    pub ordering_key: Option<Arc<str>>,
    /// What the channel needs.
    pub payload: P,
}

/// How deliveries of a lane go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dispatch {
    /// Attempts at a time, one at least, if that is less than [`Limits::concurrency`].
    pub concurrency: usize,
    /// How they share an attempt; `None` for one attempt each.
    pub batching: Option<Batching>,
}

impl Default for Dispatch {
    fn default() -> Self {
        Self { concurrency: usize::MAX, batching: None }
    }
}

/// How deliveries share an attempt: it is made as soon as one of these is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// So many deliveries.
    pub most: usize,
    /// So long after the first of them.
    pub wait: Duration,
    /// So many bytes; a delivery that is more by itself goes alone.
    pub bytes: usize,
}

/// What came of one attempt.
pub struct Attempt {
    /// What it means.
    pub outcome: Outcome,
    /// The HTTP status or the SMTP reply code.
    pub response_status: Option<i32>,
    /// What the destination said.
    pub response_body: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    /// What was said, for an attempt that failed.
    pub transcript: Option<String>,
    /// What the channel keeps of the attempt beside that, in its own form.
    pub details: Option<String>,
    /// What is to be written with the result.
    pub effect: Option<Box<dyn Effect>>,
}

impl Attempt {
    /// One that ended so, and has nothing more to say.
    pub fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            response_status: None,
            response_body: None,
            error: None,
            transcript: None,
            details: None,
            effect: None,
        }
    }

    /// One that failed, in words.
    pub fn failed(outcome: Outcome, error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..Self::new(outcome) }
    }
}

/// The token of a row that is leased by the commit that makes it.
pub const FIRST_TOKEN: i64 = 1;
/// How long a result waits for company before it takes a commit of its own.  Nobody waits for it but its lane's slot.
const PATIENCE: Duration = Duration::from_millis(4);

/// The engine of one channel.
pub struct Engine<C: Channel>(Arc<Shared<C>>);

impl<C: Channel> Clone for Engine<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

pub(super) struct Shared<C: Channel> {
    pub db: Db,
    pub channel: Arc<C>,
    pub lanes: Arc<Lanes<C::Payload>>,
    pub node: Arc<Node>,
    pub clock: SharedClock,
    pub random: SharedRandom,
    pub results: WriteLane<Completion<C::Payload>>,
    pub metrics: Arc<Metrics>,
    /// Lanes that take nothing for a while.
    pub blocks: Blocks,
    /// Wakes the poller.
    pub wake: tokio::sync::Notify,
    /// Deliveries that were not started because the lease was in doubt; the poller gives them back.
    pub abandoned: Mutex<Vec<(String, i64)>>,
    pub tracker: TaskTracker,
    stop: CancellationToken,
}

/// What the engines of all channels share.
#[derive(Clone)]
pub struct Parts {
    /// The database.
    pub db: Db,
    /// This node's lease.
    pub node: Arc<Node>,
    /// The time.
    pub clock: SharedClock,
    /// Randomness for jitter.
    pub random: SharedRandom,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Knows the workers, so that a drain can wait for them.
    pub tracker: TaskTracker,
    /// Stops polling and starting attempts.
    pub stop: CancellationToken,
}

impl<C: Channel> Engine<C> {
    /// An engine that writes its results through a lane of `writer`.
    pub fn new(parts: Parts, writer: &mut Writer, channel: Arc<C>, limits: Limits) -> Self {
        let ledger = Ledger { table: channel.table(), owner: parts.node.id() };
        let results = writer.lane(Arc::new(ledger), PATIENCE);
        let Parts { db, node, clock, random, metrics, tracker, stop } = parts;
        Self(Arc::new(Shared {
            db,
            channel,
            lanes: Lanes::new(limits),
            node,
            clock,
            random,
            results,
            metrics,
            blocks: Blocks::default(),
            wake: tokio::sync::Notify::new(),
            abandoned: Mutex::default(),
            tracker,
            stop,
        }))
    }

    /// Starts the poller.  Rows that a dead process left behind on SQLite return to the queue first.
    pub async fn start(&self) -> Result<()> {
        let shared = &self.0;
        let (table, now) = (shared.channel.table(), shared.clock.now());
        // The clock may have been set back while no process was there to see it.
        set_back::store::bring_forward(&shared.db, table, now).await?;
        if !shared.db.is_shared() && !failpoint::bug("recovery_forgotten") {
            let recovered = store::recover_all(&shared.db, table, now).await?;
            if recovered > 0 {
                tracing::info!(channel = table.channel(), recovered, "deliveries returned to the queue");
            }
        }
        shared.tracker.spawn(poller::run(Arc::clone(shared), shared.stop.clone()));
        Ok(())
    }

    /// The owner for rows that are leased by the commit that makes them.
    pub fn owner(&self) -> i64 {
        self.0.node.id()
    }

    /// Room for one delivery; `None` means that its row must be made waiting, for the poller.
    pub fn reserve(&self, lane: &Arc<str>) -> Option<Slot<C::Payload>> {
        self.0.lanes.reserve(lane, self.0.node.term())
    }

    /// Takes a delivery whose leased row is committed.
    pub fn submit(&self, slot: Slot<C::Payload>, job: Leased<C::Payload>) {
        worker::submit(&self.0, slot, job);
    }

    /// Looks for due deliveries now.
    pub fn wake(&self) {
        self.0.lanes.wake_gatherers();
        self.0.wake.notify_one();
    }

    /// Ends the blocks of lanes: what blocked them may have been mended.  Looks for due deliveries now.
    ///
    /// # Errors
    /// When what was held for later can not be made due now; it stays held until its time.
    pub async fn unblock(&self) -> Result<()> {
        let Shared { db, channel, clock, blocks, .. } = &*self.0;
        blocks.clear();
        let released = block::store::release_held(db, channel.table(), "", clock.now()).await;
        self.wake();
        released
    }

    /// Ends the block of one lane, as [`Engine::unblock`] does of all.
    ///
    /// # Errors
    /// When what was held for later can not be made due now; it stays held until its time.
    pub async fn unblock_lane(&self, lane: &str) -> Result<()> {
        let Shared { db, channel, clock, blocks, .. } = &*self.0;
        blocks.remove(lane);
        let released = block::store::release_held(db, channel.table(), lane, clock.now()).await;
        self.wake();
        released
    }

    /// Why lanes take nothing now.
    pub fn holds(&self) -> Vec<Hold> {
        self.0.blocks.holds(self.0.clock.now())
    }

    /// The deliveries in hand on this node.
    pub fn in_hand(&self) -> usize {
        self.0.lanes.held()
    }

    /// Starts nothing more.  Attempts under way go on.
    pub fn close(&self) {
        self.0.lanes.close();
    }

    /// Gives back what was in hand and not attempted; the last step of a drain.
    pub async fn release(&self) -> Result<()> {
        let Shared { db, channel, node, clock, .. } = &*self.0;
        store::recover_owned(db, channel.table(), node.id(), clock.now()).await.map(drop)
    }
}
