//! Lanes: what this node has in hand, by destination.
//!
//! A delivery in hand occupies a [`Slot`] of its lane from before its row is leased until its result is committed.  A
//! lane has a bounded number of slots and of workers, so that a slow destination fills its own lane and nothing else;
//! the more lanes are busy, the smaller the share of each in the node's total.
//!
//! Where deliveries share an attempt, one worker of the lane *gathers*: it waits until there are enough of them, or the first
//! has waited long enough, or the lane holds no more.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::engine::{Batching, Dispatch, Leased};
use crate::clock::{Stopwatch, Timestamp};

/// How much may be in hand.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Attempts at a time to one destination.
    pub concurrency: usize,
    /// Deliveries in hand for one destination: waiting, being attempted, or with a result not yet committed.
    pub lane: usize,
    /// Deliveries in hand on this node.
    pub total: usize,
}

/// Attempts at a time to one destination, unless it is said otherwise.
pub const CONCURRENCY: usize = 64;

impl Default for Limits {
    fn default() -> Self {
        Self { concurrency: CONCURRENCY, lane: 512, total: 16_384 }
    }
}

/// The lanes of one channel.
pub struct Lanes<P> {
    limits: Limits,
    inner: Mutex<Inner<P>>,
    /// Tells the poller that a lane with more in the database has room again.
    pub(super) room: Notify,
}

struct Inner<P> {
    lanes: HashMap<Arc<str>, Lane<P>>,
    held: usize,
    closed: bool,
    /// Lanes whose rows in the database are due and did not fit.
    backlog: HashSet<Arc<str>>,
    /// The deliveries in hand.
    ids: HashSet<String>,
}

struct Lane<P> {
    queue: VecDeque<Waiting<P>>,
    held: usize,
    workers: usize,
    /// Wakes the worker that gathers, while one does.
    gatherer: Option<Arc<Notify>>,
}

struct Waiting<P> {
    slot: Slot<P>,
    job: Leased<P>,
    /// How long it has waited here.
    waited: Stopwatch,
}

/// Deliveries in hand, each with its right to be.
pub(super) type InHand<P> = Vec<(Slot<P>, Leased<P>)>;

/// What a worker finds that takes deliveries one by one.
pub(super) enum Next<P> {
    /// One, and whether another worker must be started for those behind it.
    One(Slot<P>, Leased<P>, bool),
    /// Nothing to do for this worker.
    End,
}

/// What a worker that gathers finds.
pub(super) enum Gathered<P> {
    /// Deliveries that share an attempt.
    Batch(InHand<P>),
    /// Not enough: to be woken, or to come back after a time.
    Wait(Arc<Notify>, Duration),
    /// Nothing to do for this worker.
    End,
}

/// The right to have one delivery of a lane in hand; gives it back when dropped.
pub struct Slot<P> {
    lanes: Arc<Lanes<P>>,
    lane: Arc<str>,
    /// The delivery, once it is known.
    id: Option<String>,
    /// The term of the node's lease that it was reserved in.
    pub(super) term: u64,
}

impl<P> Lanes<P> {
    /// Empty lanes.
    pub fn new(limits: Limits) -> Arc<Self> {
        let inner = Inner {
            lanes: HashMap::new(),
            held: 0,
            closed: false,
            backlog: HashSet::new(),
            ids: HashSet::new(),
        };
        Arc::new(Self { limits, inner: Mutex::new(inner), room: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner<P>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot in this lane; `None` when it is full, and then the poller comes back to it once there is room.
    pub fn reserve(self: &Arc<Self>, lane: &Arc<str>, term: u64) -> Option<Slot<P>> {
        let mut inner = self.lock();
        if inner.closed || inner.free(lane, self.limits) == 0 {
            inner.backlog.insert(Arc::clone(lane));
            inner.wake_gatherer(lane);
            return None;
        }
        inner.held += 1;
        inner.lane(lane).held += 1;
        Some(Slot { lanes: Arc::clone(self), lane: Arc::clone(lane), id: None, term })
    }

    /// How many more of this lane fit in hand.
    pub fn free(&self, lane: &str) -> usize {
        let inner = self.lock();
        if inner.closed { 0 } else { inner.free(lane, self.limits) }
    }

    /// Notes that this lane has more in the database than fits in hand, or that it has no more.
    pub fn set_backlog(&self, lane: &Arc<str>, more: bool) {
        let mut inner = self.lock();
        if more {
            inner.backlog.insert(Arc::clone(lane));
        } else {
            inner.backlog.remove(lane);
        }
    }

    /// Of these deliveries, those that are not in hand.
    pub(super) fn without(&self, mut leases: Vec<(String, i64)>) -> Vec<(String, i64)> {
        let inner = self.lock();
        leases.retain(|(id, _)| !inner.ids.contains(id));
        leases
    }

    /// The deliveries in hand.
    pub fn held(&self) -> usize {
        self.lock().held
    }

    /// Puts a delivery into its lane; answers whether a worker must be started for it.
    pub(super) fn push(&self, mut slot: Slot<P>, job: Leased<P>, dispatch: Dispatch) -> Option<Arc<str>> {
        let name = Arc::clone(&slot.lane);
        slot.id = Some(job.id.clone());
        let mut inner = self.lock();
        inner.ids.insert(job.id.clone());
        let concurrency = self.limits.concurrency.min(dispatch.concurrency);
        let lane = inner.lane(&name);
        lane.queue.push_back(Waiting { slot, job, waited: Stopwatch::start() });
        if let (Some(gatherer), Some(batching)) = (&lane.gatherer, dispatch.batching) {
            if lane.queue.len() >= batching.most {
                gatherer.notify_one();
            }
            return None;
        }
        let start = lane.workers < concurrency;
        lane.workers += usize::from(start);
        start.then_some(name)
    }

    /// The next delivery for a worker.  The destination may take more at a time than it did, or fewer.
    pub(super) fn pop(&self, name: &str, dispatch: Dispatch) -> Next<P> {
        let concurrency = self.limits.concurrency.min(dispatch.concurrency);
        let mut inner = self.lock();
        let closed = inner.closed;
        let Some(lane) = inner.lanes.get_mut(name) else { return Next::End };
        let ends = closed || lane.workers > concurrency.max(1);
        let next = if ends { None } else { lane.queue.pop_front() };
        let Some(Waiting { slot, job, .. }) = next else {
            lane.workers -= 1;
            inner.forget_if_idle(name);
            return Next::End;
        };
        let more = !lane.queue.is_empty() && lane.workers < concurrency;
        lane.workers += usize::from(more);
        Next::One(slot, job, more)
    }

    /// What there is for a worker of a lane whose deliveries share attempts.  `mine` says that it is the one that has waited.
    pub(super) fn gather(
        &self,
        name: &str,
        batching: Batching,
        now: Timestamp,
        mine: bool,
        weight: impl Fn(&Leased<P>) -> usize,
    ) -> Gathered<P> {
        let mut inner = self.lock();
        let full = inner.free(name, self.limits) == 0;
        let closed = inner.closed;
        let Some(lane) = inner.lanes.get_mut(name) else { return Gathered::End };
        if mine {
            lane.gatherer = None;
        }
        let first = lane.queue.front().filter(|_| !closed);
        let found = match first {
            // Another worker waits for them already.
            Some(_) if lane.gatherer.is_some() => Gathered::End,
            Some(first) => {
                // What was due while nobody had it in hand has waited too.
                let waited = first.waited.elapsed().max(now.since(first.job.due));
                if full || lane.queue.len() >= batching.most || waited >= batching.wait {
                    Gathered::Batch(lane.take(batching, weight))
                } else {
                    let woken = Arc::new(Notify::new());
                    lane.gatherer = Some(Arc::clone(&woken));
                    Gathered::Wait(woken, batching.wait - waited)
                }
            }
            None => Gathered::End,
        };
        if matches!(found, Gathered::End) {
            lane.workers -= 1;
            inner.forget_if_idle(name);
        }
        found
    }

    /// Has every worker that gathers look again.
    pub(super) fn wake_gatherers(&self) {
        self.lock()
            .lanes
            .values()
            .filter_map(|lane| lane.gatherer.as_ref())
            .for_each(|gatherer| gatherer.notify_one());
    }

    /// The worker that has waited for company takes deliveries one by one from now on.
    pub(super) fn stop_gathering(&self, name: &str) {
        if let Some(lane) = self.lock().lanes.get_mut(name) {
            lane.gatherer = None;
        }
    }

    /// Lets no worker start anything more, and answers what had not been started.
    pub(super) fn close(&self) -> usize {
        let queues: Vec<_> = {
            let mut inner = self.lock();
            inner.closed = true;
            let empty = |lane: &mut Lane<P>| {
                lane.gatherer.iter().for_each(|gatherer| gatherer.notify_one());
                std::mem::take(&mut lane.queue)
            };
            inner.lanes.values_mut().map(empty).collect()
        };
        // The slots take the lock when they are dropped.
        queues.iter().map(VecDeque::len).sum()
    }
}

impl<P> Lane<P> {
    /// The deliveries of the next batch.
    fn take(&mut self, batching: Batching, weight: impl Fn(&Leased<P>) -> usize) -> InHand<P> {
        let (mut batch, mut bytes) = (Vec::new(), 0_usize);
        while let Some(next) = self.queue.front() {
            bytes = bytes.saturating_add(weight(&next.job));
            let fits = batch.is_empty() || batch.len() < batching.most && bytes <= batching.bytes;
            let Some(Waiting { slot, job, .. }) = fits.then(|| self.queue.pop_front()).flatten() else {
                break;
            };
            batch.push((slot, job));
        }
        batch
    }
}

impl<P> Inner<P> {
    fn lane(&mut self, name: &Arc<str>) -> &mut Lane<P> {
        self.lanes.entry(Arc::clone(name)).or_insert_with(|| Lane {
            queue: VecDeque::new(),
            held: 0,
            workers: 0,
            gatherer: None,
        })
    }

    /// A lane that holds no more sends what it has.
    fn wake_gatherer(&self, name: &str) {
        if let Some(gatherer) = self.lanes.get(name).and_then(|lane| lane.gatherer.as_ref()) {
            gatherer.notify_one();
        }
    }

    fn free(&self, name: &str, limits: Limits) -> usize {
        let held = self.lanes.get(name).map_or(0, |lane| lane.held);
        self.share(limits).saturating_sub(held)
    }

    /// With many busy lanes each gets its part of the total, and at least one slot, so that destinations that hang can
    /// not keep the others out.
    fn share(&self, limits: Limits) -> usize {
        (limits.total / (self.lanes.len() + 1)).clamp(1, limits.lane)
    }

    fn forget_if_idle(&mut self, name: &str) {
        if self.lanes.get(name).is_some_and(|lane| lane.held == 0 && lane.workers == 0) {
            self.lanes.remove(name);
        }
    }
}

impl<P> Drop for Slot<P> {
    fn drop(&mut self) {
        let mut inner = self.lanes.lock();
        inner.held -= 1;
        if let Some(lane) = inner.lanes.get_mut(&self.lane) {
            lane.held -= 1;
        }
        if let Some(id) = &self.id {
            inner.ids.remove(id);
        }
        // Half of what the lane may hold now, so that a claim is worth its query.
        let enough = (inner.share(self.lanes.limits) / 2).clamp(1, 64);
        let room = inner.backlog.contains(&self.lane) && inner.free(&self.lane, self.lanes.limits) >= enough;
        inner.forget_if_idle(&self.lane);
        drop(inner);
        if room {
            self.lanes.room.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes() -> Arc<Lanes<()>> {
        Lanes::new(Limits { concurrency: 2, lane: 4, total: 8 })
    }

    fn job(id: &str) -> Leased<()> {
        Leased {
            id: id.into(),
            lane: "a".into(),
            attempts: 0,
            attempts_before: 0,
            due: crate::clock::Timestamp::default(),
            token: 1,
            ordering_key: None,
            payload: (),
        }
    }

    #[test]
    fn a_full_lane_refuses_and_another_does_not() {
        let lanes = lanes();
        let (a, b) = (Arc::from("a"), Arc::from("b"));
        let held: Vec<_> = std::iter::from_fn(|| lanes.reserve(&a, 0)).collect();
        assert_eq!(held.len(), 4);
        assert!(lanes.reserve(&b, 0).is_some());
        drop(held);
        assert!(lanes.reserve(&a, 0).is_some());
        assert_eq!(lanes.held(), 0);
        assert!(lanes.lock().lanes.is_empty(), "an idle lane is forgotten");
    }

    #[test]
    fn many_busy_lanes_shrink_each_others_share_but_never_to_nothing() {
        let lanes = lanes();
        let names: Vec<Arc<str>> = (0..20).map(|n| Arc::from(format!("lane-{n}"))).collect();
        let held: Vec<_> = names.iter().filter_map(|name| lanes.reserve(name, 0)).collect();
        assert_eq!(held.len(), 20);
        assert!(lanes.reserve(&names[0], 0).is_none());
    }

    #[test]
    fn workers_are_started_up_to_the_concurrency_and_end_when_the_queue_is_empty() {
        let lanes = lanes();
        let a: Arc<str> = Arc::from("a");
        let started = ["1", "2", "3"]
            .map(|id| lanes.push(lanes.reserve(&a, 0).unwrap(), job(id), Dispatch::default()).is_some());
        assert_eq!(started, [true, true, false]);
        let mut seen = Vec::new();
        while let Next::One(_slot, job, more) = lanes.pop("a", Dispatch::default()) {
            seen.push(job.id);
            assert!(!more, "there are two");
        }
        assert_eq!(seen, ["1", "2", "3"]);
    }

    #[test]
    fn a_destination_that_takes_more_gets_more_workers_and_one_that_takes_fewer_loses_them() {
        let lanes = Lanes::<()>::new(Limits { concurrency: 3, lane: 9, total: 99 });
        let a: Arc<str> = Arc::from("a");
        let at_a_time = |concurrency| Dispatch { concurrency, batching: None };
        let pushed = |id| lanes.push(lanes.reserve(&a, 0).unwrap(), job(id), at_a_time(1)).is_some();
        assert_eq!(["1", "2", "3", "4", "5", "6"].map(pushed), [true, false, false, false, false, false]);
        let mut slots = Vec::new();
        let mut pop = |concurrency| match lanes.pop("a", at_a_time(concurrency)) {
            Next::One(slot, job, more) => {
                slots.push(slot);
                Some((job.id, more))
            }
            Next::End => None,
        };
        assert_eq!(pop(1), Some(("1".into(), false)));
        assert_eq!(pop(2), Some(("2".into(), true)), "the first answered: another is started");
        assert_eq!(pop(9), Some(("3".into(), true)), "no more than three");
        assert_eq!(pop(9), Some(("4".into(), false)));
        assert_eq!(pop(1), None, "one of three ends");
        assert_eq!(pop(1), None, "another");
        assert_eq!(pop(1), Some(("5".into(), false)), "the last stays");
        assert_eq!(pop(0), Some(("6".into(), false)), "whatever it is told");
        assert_eq!(pop(1), None, "nothing is left");
        drop(slots);
        assert!(lanes.lock().lanes.is_empty());
    }

    fn batching(most: usize) -> Option<Batching> {
        Some(Batching { most, wait: Duration::from_secs(60), bytes: 10 })
    }

    fn gathering(most: usize) -> Dispatch {
        Dispatch { batching: batching(most), ..Dispatch::default() }
    }

    fn gather(
        lanes: &Arc<Lanes<()>>,
        most: usize,
        mine: bool,
        weight: usize,
        now: Timestamp,
    ) -> Option<Vec<String>> {
        match lanes.gather("a", batching(most).unwrap(), now, mine, |_| weight) {
            Gathered::Batch(batch) => Some(batch.into_iter().map(|(_, job)| job.id).collect()),
            Gathered::Wait(..) => None,
            Gathered::End => Some(Vec::new()),
        }
    }

    #[test]
    fn one_worker_gathers_until_there_are_enough_or_the_first_has_waited_long_enough() {
        let (lanes, a, now) = (lanes(), Arc::from("a"), Timestamp::default());
        let push = |id| lanes.push(lanes.reserve(&a, 0).unwrap(), job(id), gathering(2)).is_some();
        assert!(push("1"));
        assert_eq!(gather(&lanes, 2, false, 1, now), None);
        assert!(!push("2"), "the one that waits takes it");
        assert_eq!(gather(&lanes, 2, true, 1, now), Some(vec!["1".into(), "2".into()]));
        assert_eq!(gather(&lanes, 2, false, 1, now), Some(vec![]), "and ends");
        assert!(push("3"));
        assert_eq!(gather(&lanes, 2, false, 1, now), None);
        let later = now + Duration::from_secs(60);
        assert_eq!(gather(&lanes, 2, true, 1, later), Some(vec!["3".into()]));
    }

    #[test]
    fn a_batch_is_bounded_by_its_bytes_and_a_full_lane_waits_for_nothing() {
        let (lanes, a, now) = (lanes(), Arc::from("a"), Timestamp::default());
        for id in ["1", "2", "3", "4"] {
            lanes.push(lanes.reserve(&a, 0).unwrap(), job(id), gathering(9));
        }
        assert_eq!(gather(&lanes, 9, false, 4, now), Some(vec!["1".into(), "2".into()]));
        let later = now + Duration::from_secs(60);
        assert_eq!(gather(&lanes, 9, false, 40, later), Some(vec!["3".into()]), "alone, however large");
        assert_eq!(gather(&lanes, 9, false, 4, later), Some(vec!["4".into()]));
    }

    #[tokio::test]
    async fn room_in_a_lane_with_a_backlog_wakes_the_poller() {
        let lanes = lanes();
        let a = Arc::from("a");
        let mut held: Vec<_> = std::iter::from_fn(|| lanes.reserve(&a, 0)).collect();
        held.truncate(1);
        lanes.room.notified().await;
    }
}
