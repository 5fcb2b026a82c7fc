//! Lanes: what this node has in hand, by destination.
//!
//! A delivery in hand occupies a [`Slot`] of its lane from before its row is leased until its result is committed.  A
//! lane has a bounded number of slots and of workers, so that a slow destination fills its own lane and nothing else;
//! the more lanes are busy, the smaller the share of each in the node's total.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::engine::Leased;

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
    queue: VecDeque<(Slot<P>, Leased<P>)>,
    held: usize,
    workers: usize,
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
    pub(super) fn push(&self, mut slot: Slot<P>, job: Leased<P>) -> Option<Arc<str>> {
        let name = Arc::clone(&slot.lane);
        slot.id = Some(job.id.clone());
        let mut inner = self.lock();
        inner.ids.insert(job.id.clone());
        let concurrency = self.limits.concurrency;
        let lane = inner.lane(&name);
        lane.queue.push_back((slot, job));
        let start = lane.workers < concurrency;
        lane.workers += usize::from(start);
        start.then_some(name)
    }

    /// The next delivery for a worker; `None` ends the worker.
    pub(super) fn pop(&self, name: &str) -> Option<(Slot<P>, Leased<P>)> {
        let mut inner = self.lock();
        let closed = inner.closed;
        let lane = inner.lanes.get_mut(name)?;
        let next = if closed { None } else { lane.queue.pop_front() };
        if next.is_none() {
            lane.workers -= 1;
        }
        inner.forget_if_idle(name);
        next
    }

    /// Lets no worker start anything more, and answers what had not been started.
    pub(super) fn close(&self) -> usize {
        let queues: Vec<_> = {
            let mut inner = self.lock();
            inner.closed = true;
            inner.lanes.values_mut().map(|lane| std::mem::take(&mut lane.queue)).collect()
        };
        // The slots take the lock when they are dropped.
        queues.iter().map(VecDeque::len).sum()
    }
}

impl<P> Inner<P> {
    fn lane(&mut self, name: &Arc<str>) -> &mut Lane<P> {
        self.lanes.entry(Arc::clone(name)).or_insert_with(|| Lane {
            queue: VecDeque::new(),
            held: 0,
            workers: 0,
        })
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
        let started = ["1", "2", "3"].map(|id| lanes.push(lanes.reserve(&a, 0).unwrap(), job(id)).is_some());
        assert_eq!(started, [true, true, false]);
        let mut seen = Vec::new();
        while let Some((_slot, job)) = lanes.pop("a") {
            seen.push(job.id);
        }
        assert_eq!(seen, ["1", "2", "3"]);
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
