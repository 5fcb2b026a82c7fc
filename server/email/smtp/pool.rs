//! A provider's connections, and the messages that wait for them.
//!
//! Each connection is a task that takes messages itself.  Connections are opened when more waits than those there are
//! will take up soon: the first alone, so that a server that is down is asked once and not by everybody.  Urgent messages
//! go first, and bulk never has all connections, so that somebody who waits for a mail does not wait behind a newsletter.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::connection;
use super::deadlines::Deadline;
use super::provider::Provider;
use super::task::{Job, Left};

/// What a connection that opens will take at once: a message, and the next one's envelope.
const SHARE: usize = 2;
/// How often it is looked whether what waits is taken up.
const LOOK: Duration = Duration::from_millis(200);
/// For how long no more connections are opened when the server takes those that there are only.
const ENOUGH: Duration = Duration::from_secs(5);

/// The connections and the queue.
pub(super) struct Pool {
    state: Mutex<State>,
    /// Told when a message came and a connection idles.
    pub wake: Notify,
    limit: usize,
    bulk_limit: usize,
}

#[derive(Default)]
struct State {
    urgent: VecDeque<Job>,
    bulk: VecDeque<Job>,
    /// Connections that are being made.
    opening: usize,
    /// Those that are there.
    open: usize,
    /// Of those, the ones without work.
    idle: usize,
    /// Of those, the ones that have been told and have not come yet.
    told: usize,
    /// Connections with bulk in hand.
    with_bulk: usize,
    closed: bool,
    watched: bool,
    enough: Option<Deadline>,
}

impl State {
    fn waiting(&self) -> usize {
        self.urgent.len() + self.bulk.len()
    }

    fn queue(&mut self, urgent: bool) -> &mut VecDeque<Job> {
        if urgent { &mut self.urgent } else { &mut self.bulk }
    }

    /// A connection idles no more.
    fn awake(&mut self) {
        self.idle -= 1;
        self.told = self.told.min(self.idle);
    }

    fn drain(&mut self) -> Vec<Job> {
        self.urgent.drain(..).chain(self.bulk.drain(..)).collect()
    }
}

/// What a connection has in hand while it looks for its next message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// Nothing.
    Nothing,
    /// An urgent message.
    Urgent,
    /// A message that nobody waits for.
    Bulk,
}

impl Pool {
    /// A pool of so many connections at most.
    pub(super) fn new(limit: usize) -> Self {
        let reserve = (limit / 4).max(1);
        Self {
            state: Mutex::default(),
            wake: Notify::new(),
            limit,
            bulk_limit: limit.saturating_sub(reserve).max(1),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that waits.
    pub(super) fn drain(&self) -> Vec<Job> {
        self.state().drain()
    }

    /// Takes nothing from now on; gives everything that waits.
    pub(super) fn close(&self) -> Vec<Job> {
        let mut state = self.state();
        state.closed = true;
        state.drain()
    }

    /// The next message for a connection, to go behind what it has in hand; `has_bulk` says whether it counts as one
    /// with bulk already.
    fn take(&self, behind: Behind, has_bulk: bool) -> Option<Job> {
        let mut state = self.state();
        while state.urgent.front().is_some_and(Job::is_given_up) {
            state.urgent.pop_front();
        }
        if !state.urgent.is_empty() {
            // Behind bulk it would wait for an answer that nobody hurries with.
            let fits = behind != Behind::Bulk || self.limit == 1;
            return if fits { state.urgent.pop_front() } else { None };
        }
        while let Some(job) = state.bulk.pop_front() {
            if job.is_given_up() {
                continue;
            }
            if has_bulk {
                return Some(job);
            }
            if state.with_bulk < self.bulk_limit {
                state.with_bulk += 1;
                return Some(job);
            }
            state.bulk.push_front(job);
            return None;
        }
        None
    }
}

impl Provider {
    /// Puts a message into the queue, and sees that somebody takes it.
    pub(super) fn submit(self: &Arc<Self>, job: Job) {
        let mut state = self.pool.state();
        if state.closed {
            drop(state);
            return job.leave(Left::Moved);
        }
        state.queue(job.task.urgent).push_back(job);
        self.balance(&mut state);
        if !state.watched {
            state.watched = true;
            tokio::spawn(watch(Arc::clone(self)));
        }
    }

    /// Puts back what has to be begun again.
    pub(super) fn put_back(self: &Arc<Self>, job: Job) {
        let mut state = self.pool.state();
        if state.closed {
            drop(state);
            return job.leave(Left::Moved);
        }
        state.queue(job.task.urgent).push_front(job);
        self.balance(&mut state);
    }

    /// Tells an idle connection of what waits, or opens one.
    fn balance(self: &Arc<Self>, state: &mut State) {
        let pool = &self.pool;
        let takes_bulk = state.with_bulk < pool.bulk_limit;
        let waiting = if takes_bulk { state.waiting() } else { state.urgent.len() };
        if waiting == 0 || state.closed {
            return;
        }
        if state.idle > state.told {
            state.told += 1;
            pool.wake.notify_one();
            return;
        }
        // Those with bulk do not take what is urgent behind it.
        let slow = if state.urgent.is_empty() { 0 } else { state.with_bulk };
        let busy = (state.open - state.idle).saturating_sub(slow);
        while state.opening + state.open < pool.limit
            && waiting > SHARE * state.opening + busy + state.told
            && (state.open > 0 || state.opening == 0)
        {
            if !self.open_one(state) {
                return;
            }
        }
    }

    /// Gives what has waited for too long, and whether nothing waits any more.
    fn look_after(self: &Arc<Self>) -> (Vec<Job>, bool) {
        let mut state = self.pool.state();
        let limit = self.target.deadlines.queue;
        let State { urgent, bulk, .. } = &mut *state;
        let mut late = Vec::new();
        for queue in [urgent, bulk] {
            while let Some(job) = queue.pop_front_if(|job| job.is_given_up() || job.since.elapsed() > limit) {
                late.push(job);
            }
        }
        state.watched = state.waiting() > 0;
        if state.watched {
            let room = state.opening + state.open < self.pool.limit;
            let of_use = !state.urgent.is_empty() || state.with_bulk < self.pool.bulk_limit;
            if state.idle == 0 && state.opening == 0 && room && of_use {
                self.open_one(&mut state);
            } else {
                self.balance(&mut state);
            }
        }
        (late, !state.watched)
    }

    fn open_one(self: &Arc<Self>, state: &mut State) -> bool {
        if state.enough.is_some_and(|enough| !enough.remaining().is_zero()) {
            return false;
        }
        state.opening += 1;
        let lease = Lease { provider: Arc::clone(self), phase: Phase::Opening, bulk: 0 };
        tokio::spawn(connection::run(lease));
        true
    }
}

/// Looks after what waits, until nothing does: what is behind a slow server gets connections of its own, and what waits
/// for too long is given back.
async fn watch(provider: Arc<Provider>) {
    loop {
        tokio::select! {
            () = sleep(LOOK) => {}
            () = provider.closing.cancelled() => return,
        }
        let (late, is_over) = provider.look_after();
        late.into_iter().for_each(|job| job.leave(Left::Busy));
        if is_over {
            return;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Open,
    Idle,
}

/// A connection's place in the pool; given back however its task ends.
pub(super) struct Lease {
    /// The provider.
    pub provider: Arc<Provider>,
    phase: Phase,
    bulk: usize,
}

impl Lease {
    /// The connection is there: now it shows whether more are needed.
    pub(super) fn opened(&mut self) {
        let mut state = self.provider.pool.state();
        self.phase = Phase::Open;
        state.opening -= 1;
        state.open += 1;
        self.provider.balance(&mut state);
    }

    /// The connection is made anew in the same place.
    pub(super) fn reopens(&mut self) {
        let mut state = self.provider.pool.state();
        self.phase = Phase::Opening;
        state.open -= 1;
        state.opening += 1;
    }

    /// Whether something waits that it could take.
    pub(super) fn is_wanted(&self) -> bool {
        let state = self.provider.pool.state();
        !state.closed
            && (!state.urgent.is_empty()
                || (!state.bulk.is_empty() && state.with_bulk < self.provider.pool.bulk_limit))
    }

    /// The connection could not be made.  Gives what waits when nobody else is there to take it.
    pub(super) fn failed(&self) -> Option<Vec<Job>> {
        let mut state = self.provider.pool.state();
        if state.open > 0 {
            state.enough = Some(Deadline::after(ENOUGH));
            return None;
        }
        Some(state.drain())
    }

    /// The next message, if there is one.
    pub(super) fn take(&mut self, behind: Behind) -> Option<Job> {
        let job = self.provider.pool.take(behind, self.bulk > 0)?;
        if !job.task.urgent {
            self.bulk += 1;
        }
        Some(job)
    }

    /// A message of this kind is not in hand any more.
    pub(super) fn give_back(&mut self, urgent: bool) {
        if !urgent {
            self.bulk -= 1;
            if self.bulk == 0 {
                self.provider.pool.state().with_bulk -= 1;
            }
        }
    }

    /// Waits without work, until told or until `other` comes.
    pub(super) async fn idle<T>(&mut self, other: impl Future<Output = T>) -> Option<T> {
        let provider = Arc::clone(&self.provider);
        let told = provider.pool.wake.notified();
        tokio::pin!(told);
        {
            let mut state = provider.pool.state();
            state.idle += 1;
            self.phase = Phase::Idle;
            told.as_mut().enable();
            // What came in between told nobody.
            let waits = !state.urgent.is_empty()
                || (!state.bulk.is_empty() && state.with_bulk < provider.pool.bulk_limit);
            if waits {
                state.awake();
                self.phase = Phase::Open;
                return None;
            }
        }
        let came = tokio::select! {
            biased;
            () = told => None,
            other = other => Some(other),
        };
        let mut state = provider.pool.state();
        if came.is_none() {
            state.told = state.told.saturating_sub(1);
        }
        state.awake();
        self.phase = Phase::Open;
        came
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.provider.pool.state();
        match self.phase {
            Phase::Opening => state.opening -= 1,
            Phase::Open => state.open -= 1,
            Phase::Idle => {
                state.open -= 1;
                state.awake();
            }
        }
        if self.bulk > 0 {
            state.with_bulk -= 1;
        }
        // A runtime that ends takes no more tasks.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.provider.balance(&mut state);
        }
    }
}
