//! Workers: they take what is in hand of a lane, have the channel make the attempts, and see the results written.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;

use super::completion::Completion;
use super::engine::{Attempt, Channel, Leased, Shared};
use super::lane::{Gathered, InHand, Next, Slot};
use super::machine::{Input, Outcome, Status, next};
use super::model::State;
use super::order::Sequence;
use crate::clock::{Stopwatch, Timestamp};
use crate::failpoint;

const COMPLETION_RETRY: Duration = Duration::from_secs(1);
/// The same, while the database is known not to take anything.
const LONGEST_RETRY: Duration = Duration::from_secs(5);
const PANICKED: &str = "the attempt failed inside the server; the log has the details";

/// Puts a delivery into its lane, and starts a worker if there is need of one.
pub(super) fn submit<C: Channel>(shared: &Arc<Shared<C>>, slot: Slot<C::Payload>, job: Leased<C::Payload>) {
    let dispatch = shared.channel.dispatch(&job.lane);
    if let Some(lane) = shared.lanes.push(slot, job, dispatch) {
        start(shared, lane);
    }
}

fn start<C: Channel>(shared: &Arc<Shared<C>>, lane: Arc<str>) {
    shared.tracker.spawn(work(Arc::clone(shared), lane));
}

async fn work<C: Channel>(shared: Arc<Shared<C>>, lane: Arc<str>) {
    let mut waited = false;
    loop {
        // Asked each time: the endpoint may have been changed.
        let dispatch = shared.channel.dispatch(&lane);
        match dispatch.batching {
            None if waited => {
                shared.lanes.stop_gathering(&lane);
                waited = false;
            }
            None => match shared.lanes.pop(&lane, dispatch) {
                Next::One(slot, job, more) => {
                    if more {
                        start(&shared, Arc::clone(&lane));
                    }
                    attempt_one(&shared, slot, job).await;
                }
                Next::End => return,
            },
            Some(batching) => {
                let weight = |job: &Leased<C::Payload>| shared.channel.weight(job);
                match shared.lanes.gather(&lane, batching, shared.clock.now(), waited, weight) {
                    Gathered::Batch(batch) => {
                        waited = false;
                        attempt_batch(&shared, batch).await;
                    }
                    Gathered::Wait(woken, wait) => {
                        waited = true;
                        // A time-out is the normal case here: the batch has waited long enough.
                        let _ = tokio::time::timeout(wait, woken.notified()).await;
                    }
                    Gathered::End => return,
                }
            }
        }
    }
}

/// Whether the delivery may be attempted: another node may have it by now, and what was not started is not sent twice.
fn is_ours<C: Channel>(shared: &Shared<C>, slot: &Slot<C::Payload>, job: &Leased<C::Payload>) -> bool {
    let ours = slot.term == shared.node.term() && shared.node.holds_lease();
    if !ours {
        let lost = (job.id.clone(), job.token);
        shared.abandoned.lock().unwrap_or_else(PoisonError::into_inner).push(lost);
    }
    ours
}

async fn attempt_one<C: Channel>(shared: &Arc<Shared<C>>, slot: Slot<C::Payload>, job: Leased<C::Payload>) {
    if !is_ours(shared, &slot, &job) {
        return;
    }
    let (started_at, stopwatch) = (shared.clock.now(), Stopwatch::start());
    // A fault in a channel must cost one attempt, and neither the worker nor the delivery.
    failpoint::pass("attempt.begin");
    if failpoint::bug("attempt_made_twice") {
        shared.channel.attempt(&job).await;
    }
    let attempt = AssertUnwindSafe(shared.channel.attempt(&job)).catch_unwind().await;
    failpoint::pass("attempt.end");
    let attempt = attempt.unwrap_or_else(|_| Attempt::failed(Outcome::Retry { after: None }, PANICKED));
    complete(shared, slot, job, attempt, started_at, stopwatch.elapsed());
}

async fn attempt_batch<C: Channel>(shared: &Arc<Shared<C>>, mut batch: InHand<C::Payload>) {
    batch.retain(|(slot, job)| is_ours(shared, slot, job));
    if batch.is_empty() {
        return;
    }
    let (slots, jobs): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
    let (started_at, stopwatch) = (shared.clock.now(), Stopwatch::start());
    failpoint::pass("attempt.begin");
    let attempts = AssertUnwindSafe(shared.channel.attempt_together(&jobs)).catch_unwind().await;
    failpoint::pass("attempt.end");
    let mut attempts = attempts.unwrap_or_default().into_iter();
    let duration = stopwatch.elapsed();
    for (slot, job) in slots.into_iter().zip(jobs) {
        let attempt = attempts.next();
        let attempt = attempt.unwrap_or_else(|| Attempt::failed(Outcome::Retry { after: None }, PANICKED));
        complete(shared, slot, job, attempt, started_at, duration);
    }
}

fn complete<C: Channel>(
    shared: &Arc<Shared<C>>,
    slot: Slot<C::Payload>,
    job: Leased<C::Payload>,
    attempt: Attempt,
    started_at: Timestamp,
    duration: Duration,
) {
    let now = shared.clock.now();
    let Leased { attempts, attempts_before, due, .. } = job;
    let sequence = job.ordering_key.clone().map(|key| Sequence { lane: Arc::clone(&job.lane), key });
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
        details: attempt.details,
        effect: attempt.effect,
        started_at,
        duration,
        now,
        sequence,
        slot: Some(slot),
    };
    write(shared, completion);
}

fn write<C: Channel>(shared: &Arc<Shared<C>>, completion: Completion<C::Payload>) {
    let retry = Arc::clone(shared);
    shared.results.submit(completion, move |completion, result| match result {
        // The next of its sequence is due now.
        Ok(true) if completion.frees().is_some() => retry.wake.notify_one(),
        Ok(true) => {}
        Ok(false) => {
            tracing::warn!(id = completion.id, "the result came after the lease had ended and was refused");
        }
        // The result must not be forgotten: as long as the row is ours, nobody else will attempt it.
        Err(error) => {
            // What is wrong with the database itself is logged once, and may concern thousands of results.
            if retry.db.trouble().is_none() {
                tracing::warn!(id = completion.id, %error, "a result could not be written");
            }
            let again = Arc::clone(&retry);
            // Also while the server drains, which waits for it, within its bounds.
            retry.tracker.spawn(async move {
                tokio::time::sleep(COMPLETION_RETRY).await;
                again.db.recovers(LONGEST_RETRY).await;
                write(&again, completion);
            });
        }
    });
}
