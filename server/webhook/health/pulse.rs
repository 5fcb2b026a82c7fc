//! What one node knows of how an endpoint fares, in memory.
//!
//! A success of an endpoint that is well is one of many: it costs three atomic reads, and is noted once an hour.  Everything
//! else goes through the endpoint's own lock.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::breaker::{Breaker, Leave};
use super::ramp::Ramp;
use super::record::Noted;
use crate::clock::Timestamp;
use crate::delivery::{Attempt, Outcome};

const HOUR: i64 = 60 * 60;
/// How much of an error is kept, in characters.
const ERROR_LIMIT: usize = 500;
const GONE: i32 = 410;
const TOO_MANY_REQUESTS: i32 = 429;
const UNAVAILABLE: i32 = 503;

/// How an endpoint fares, as this node sees it.
#[derive(Debug)]
pub struct Pulse {
    id: Arc<str>,
    /// Whether a success is worth more than a glance.
    troubled: AtomicBool,
    /// The hour whose first success was noted.
    hour: AtomicI64,
    ramp: Ramp,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    breaker: Breaker,
    /// What is not written yet.
    noted: Noted,
    /// Whether the node knows that there is something to write.
    queued: bool,
    /// Whether it fails, as the database has it.
    failing: bool,
}

impl State {
    fn is_troubled(&self) -> bool {
        self.failing || self.noted.failure_at.is_some() || !self.breaker.is_quiet()
    }
}

impl Pulse {
    /// That of an endpoint of which nothing is known.
    pub fn new(id: Arc<str>) -> Arc<Self> {
        let (troubled, hour) = (AtomicBool::new(false), AtomicI64::new(i64::MIN));
        Arc::new(Self { id, troubled, hour, ramp: Ramp::default(), state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and remembers whether there is trouble.
    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let done = change(&mut state);
        self.troubled.store(state.is_troubled(), Ordering::Release);
        done
    }

    fn is_troubled(&self) -> bool {
        self.troubled.load(Ordering::Acquire)
    }

    /// Whether only probes go out.
    pub fn is_open(&self) -> bool {
        self.is_troubled() && self.lock().breaker.is_open()
    }

    /// Whether a request may go out now.
    pub fn ask(&self, now: Timestamp) -> Leave {
        if self.is_troubled() { self.lock().breaker.ask(now) } else { Leave::Free }
    }

    /// The same, of one that goes out if it may.
    pub fn start(&self, now: Timestamp) -> Leave {
        if self.is_troubled() { self.lock().breaker.start(now) } else { Leave::Free }
    }

    /// How many requests may be under way at a time.
    pub fn width(&self) -> usize {
        self.ramp.width()
    }

    /// Whether it did not answer the last request, nor most of those before.
    pub fn is_silent(&self) -> bool {
        self.ramp.is_silent()
    }

    /// Lets requests go out again: somebody changed where they lead, or switched the endpoint on.
    pub fn forgive(&self) {
        self.ramp.begin();
        self.change(|state| state.breaker = Breaker::default());
    }

    /// Whether it fails, as the database has it.
    pub(super) fn know(&self, failing: bool) {
        if failing || self.is_troubled() {
            self.change(|state| state.failing = failing);
        }
    }

    /// What is to be written.
    pub(super) fn take(&self) -> Noted {
        self.change(|state| {
            state.queued = false;
            mem::take(&mut state.noted)
        })
    }

    /// Puts back what could not be written.
    fn put_back(&self, noted: Noted) {
        self.change(|state| {
            let later = mem::take(&mut state.noted);
            state.noted = noted.then(later);
            state.queued = true;
        });
    }

    /// The endpoint.
    pub(super) fn id(&self) -> &Arc<str> {
        &self.id
    }
}

/// What this node has to do about endpoints.
#[derive(Debug, Default)]
pub struct Chart {
    changed: Mutex<Vec<Arc<Pulse>>>,
    recovered: Mutex<Vec<Arc<str>>>,
    /// Something is to be done at once.
    pub(super) urgent: Notify,
}

impl Chart {
    /// Notes how a request ended.
    pub fn note(&self, pulse: &Arc<Pulse>, attempt: &Attempt, now: Timestamp) {
        if attempt.outcome == Outcome::Succeeded {
            self.success(pulse, now);
        } else {
            self.failure(pulse, attempt, now);
        }
    }

    fn success(&self, pulse: &Arc<Pulse>, now: Timestamp) {
        pulse.ramp.answered();
        let hour = now.seconds().div_euclid(HOUR);
        if !pulse.is_troubled() && pulse.hour.load(Ordering::Relaxed) == hour {
            return;
        }
        pulse.hour.store(hour, Ordering::Relaxed);
        let (queue, recovered) = pulse.change(|state| {
            let recovered = state.breaker.is_open();
            state.breaker.answered();
            state.noted.success(now);
            (!mem::replace(&mut state.queued, true), recovered)
        });
        self.after(pulse, queue, recovered);
    }

    fn failure(&self, pulse: &Arc<Pulse>, attempt: &Attempt, now: Timestamp) {
        let (status, error) = (attempt.response_status, attempt.error.as_deref().unwrap_or_default());
        let gone = status == Some(GONE);
        match status {
            // As for the breaker: nothing went anywhere.
            None if attempt.outcome == Outcome::Refused => {}
            None | Some(TOO_MANY_REQUESTS | UNAVAILABLE) => pulse.ramp.failed(),
            Some(_) => pulse.ramp.answered(),
        }
        let error: String = error.chars().filter(|c| *c != '\0').take(ERROR_LIMIT).collect();
        let (queue, recovered) = pulse.change(|state| {
            let was_open = state.breaker.is_open();
            match status {
                Some(status) if status < 500 && status != TOO_MANY_REQUESTS => state.breaker.answered(),
                // Nothing went anywhere: the guard refused the address.
                None if attempt.outcome == Outcome::Refused => {}
                _ => state.breaker.failed(now, jitter(&pulse.id, now)),
            }
            state.noted.failure(now, &error, gone);
            (!mem::replace(&mut state.queued, true), was_open && !state.breaker.is_open())
        });
        self.after(pulse, queue, recovered);
        if gone {
            self.urgent.notify_one();
        }
    }

    fn after(&self, pulse: &Arc<Pulse>, queue: bool, recovered: bool) {
        if queue {
            lock(&self.changed).push(Arc::clone(pulse));
        }
        if recovered {
            lock(&self.recovered).push(Arc::clone(&pulse.id));
            self.urgent.notify_one();
        }
    }

    /// The endpoints of which something is to be written.
    pub(super) fn take_changed(&self) -> Vec<Arc<Pulse>> {
        mem::take(&mut *lock(&self.changed))
    }

    /// Keeps what could not be written for the next time.
    pub(super) fn put_back(&self, pulse: &Arc<Pulse>, noted: Noted) {
        pulse.put_back(noted);
        lock(&self.changed).push(Arc::clone(pulse));
    }

    /// The endpoints that answer again.
    pub(super) fn take_recovered(&self) -> Vec<Arc<str>> {
        mem::take(&mut *lock(&self.recovered))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Spreads what many nodes and endpoints would do at the same moment.
fn jitter(id: &str, now: Timestamp) -> f64 {
    let mut hasher = DefaultHasher::new();
    (id, now).hash(&mut hasher);
    f64::from(hasher.finish() as u16) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn failed(status: u16) -> Attempt {
        let error = format!("answered {status}");
        Attempt {
            response_status: Some(status.into()),
            ..Attempt::failed(Outcome::Retry { after: None }, error)
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::default() + Duration::from_secs(seconds)
    }

    #[test]
    fn successes_are_noted_once_an_hour_while_all_is_well_and_each_in_trouble() {
        let (chart, pulse) = (Chart::default(), Pulse::new("wh_1".into()));
        let succeed = |now| chart.note(&pulse, &Attempt::new(Outcome::Succeeded), now);
        succeed(at(1));
        succeed(at(2));
        assert_eq!((chart.take_changed().len(), pulse.take().success_at), (1, Some(at(1))));
        succeed(at(3));
        assert!(chart.take_changed().is_empty() && pulse.take().is_empty());
        pulse.know(true);
        succeed(at(4));
        succeed(at(5));
        assert_eq!((chart.take_changed().len(), pulse.take().success_at), (1, Some(at(5))));
        pulse.know(false);
        succeed(at(3_600));
        assert_eq!(pulse.take().success_at, Some(at(3_600)), "the next hour");
    }

    #[test]
    fn what_could_not_be_written_stays_and_is_queued_once() {
        let (chart, pulse) = (Chart::default(), Pulse::new("wh_1".into()));
        chart.note(&pulse, &failed(503), at(1));
        let [queued] = chart.take_changed().try_into().unwrap();
        let noted = queued.take();
        chart.put_back(&pulse, noted);
        chart.note(&pulse, &failed(503), at(2));
        assert_eq!(chart.take_changed().len(), 1);
        let failing = pulse.take().failing.unwrap();
        assert_eq!((failing.since, failing.failures), (at(1), 2));
    }

    #[test]
    fn who_answers_gets_more_at_a_time_and_who_is_silent_or_overloaded_less() {
        let (chart, pulse) = (Chart::default(), Pulse::new("wh_1".into()));
        let silent = || Attempt::failed(Outcome::Retry { after: None }, "no answer");
        for (attempt, width) in [
            (silent(), 1),
            (Attempt::new(Outcome::Succeeded), 1),
            (Attempt::new(Outcome::Succeeded), 2),
            (failed(500), 3),
            (failed(404), 4),
            (failed(503), 2),
            (failed(200), 3),
            (failed(302), 4),
            (Attempt::failed(Outcome::Refused, "the address is refused"), 4),
            (failed(429), 2),
            (silent(), 1),
        ] {
            chart.note(&pulse, &attempt, at(1));
            assert_eq!(pulse.width(), width, "{:?}", attempt.response_status);
        }
        (0..9).for_each(|_| chart.note(&pulse, &Attempt::new(Outcome::Succeeded), at(1)));
        pulse.forgive();
        assert_eq!(pulse.width(), 1, "it may be another host");
    }

    #[test]
    fn client_errors_do_not_open_the_breaker_and_close_it() {
        let (chart, pulse) = (Chart::default(), Pulse::new("wh_1".into()));
        let fail = |status: u16, times| {
            for second in times {
                chart.note(&pulse, &failed(status), at(second));
            }
        };
        fail(404, 0..20);
        assert!(!pulse.is_open());
        fail(429, 20..40);
        assert!(pulse.is_open());
        fail(404, 40..41);
        assert!(!pulse.is_open());
        assert_eq!(chart.take_recovered().len(), 1);
    }
}
