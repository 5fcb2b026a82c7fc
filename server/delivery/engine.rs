//! The engine of one channel: lanes, workers, hand-over.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::block::{self, Blocks, Hold, Room};
use super::completion::{Completion, Effect, Ledger};
use super::lane::{Lanes, Limits, Slot};
use super::machine::{Input, Outcome, Policy, Status, next};
use super::model::{State, Table};
use super::node::Node;
use super::{poller, store};
use crate::clock::{SharedClock, Stopwatch, Timestamp};
use crate::db::group::{Lane as WriteLane, Writer};
use crate::db::{Conn, Db};
use crate::error::Result;
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
    /// What the channel needs.
    pub payload: P,
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
const COMPLETION_RETRY: Duration = Duration::from_secs(1);

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
    random: SharedRandom,
    results: WriteLane<Completion<C::Payload>>,
    metrics: Arc<Metrics>,
    /// Lanes that take nothing for a while.
    pub blocks: Blocks,
    /// Wakes the poller.
    pub wake: tokio::sync::Notify,
    /// Deliveries that were not started because the lease was in doubt; the poller gives them back.
    pub abandoned: Mutex<Vec<(String, i64)>>,
    tracker: TaskTracker,
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
        if !shared.db.is_shared() {
            let recovered =
                store::recover_all(&shared.db, shared.channel.table(), shared.clock.now()).await?;
            if recovered > 0 {
                tracing::info!(
                    channel = shared.channel.table().channel(),
                    recovered,
                    "deliveries returned to the queue"
                );
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
        submit(&self.0, slot, job);
    }

    /// Looks for due deliveries now.
    pub fn wake(&self) {
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

pub(super) fn submit<C: Channel>(shared: &Arc<Shared<C>>, slot: Slot<C::Payload>, job: Leased<C::Payload>) {
    if let Some(lane) = shared.lanes.push(slot, job) {
        shared.tracker.spawn(work(Arc::clone(shared), lane));
    }
}

async fn work<C: Channel>(shared: Arc<Shared<C>>, lane: Arc<str>) {
    while let Some((slot, job)) = shared.lanes.pop(&lane) {
        // Another node may have it by now; what was not started is not sent twice.
        if slot.term != shared.node.term() || !shared.node.holds_lease() {
            shared.abandoned.lock().unwrap_or_else(PoisonError::into_inner).push((job.id, job.token));
            continue;
        }
        let started_at = shared.clock.now();
        let stopwatch = Stopwatch::start();
        // A fault in a channel must cost one attempt, and neither the worker nor the delivery.
        let attempt = std::panic::AssertUnwindSafe(shared.channel.attempt(&job)).catch_unwind().await;
        let attempt = attempt.unwrap_or_else(|_| {
            let error = "the attempt failed inside the server; the log has the details";
            Attempt::failed(Outcome::Retry { after: None }, error)
        });
        let duration = stopwatch.elapsed();
        complete(&shared, slot, job, attempt, started_at, duration);
    }
}

pub(super) fn complete<C: Channel>(
    shared: &Arc<Shared<C>>,
    slot: Slot<C::Payload>,
    job: Leased<C::Payload>,
    attempt: Attempt,
    started_at: Timestamp,
    duration: Duration,
) {
    let now = shared.clock.now();
    let Leased { attempts, attempts_before, due, .. } = job;
    let status = Status { state: State::Sending, attempts, attempts_before, due };
    let policy = shared.channel.policy(&job);
    let mut jitter = [0; 2];
    if matches!(attempt.outcome, Outcome::Retry { .. }) {
        shared.random.fill(&mut jitter);
    }
    let jitter = f64::from(u16::from_le_bytes(jitter)) / f64::from(u16::MAX);
    let after = next(status, &Input::Attempted(attempt.outcome.clone()), &policy, now, jitter)
        .expect("a delivery in hand can be attempted");
    shared.metrics.attempt(
        shared.channel.table().channel(),
        after.state.word(shared.channel.table()),
        duration,
    );
    let completion = Completion {
        tried: !matches!(attempt.outcome, Outcome::Withdrawn | Outcome::Held { .. }),
        id: job.id,
        token: job.token,
        status: after,
        response_status: attempt.response_status,
        response_body: attempt.response_body,
        error: attempt.error,
        transcript: attempt.transcript,
        effect: attempt.effect,
        started_at,
        duration,
        now,
        slot: Some(slot),
    };
    write(shared, completion);
}

fn write<C: Channel>(shared: &Arc<Shared<C>>, completion: Completion<C::Payload>) {
    let retry = Arc::clone(shared);
    shared.results.submit(completion, move |completion, result| match result {
        Ok(true) => {}
        Ok(false) => {
            tracing::warn!(id = completion.id, "the result came after the lease had ended and was refused");
        }
        // The result must not be forgotten: as long as the row is ours, nobody else will attempt it.
        Err(error) => {
            tracing::warn!(id = completion.id, %error, "a result could not be written");
            let again = Arc::clone(&retry);
            // Also while the server drains, which waits for it, within its bounds.
            retry.tracker.spawn(async move {
                tokio::time::sleep(COMPLETION_RETRY).await;
                write(&again, completion);
            });
        }
    });
}
