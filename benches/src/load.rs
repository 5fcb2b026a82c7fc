//! The closed loop: a number of callers, each of which calls again as soon as it has its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::error::{Context, Result};

/// The most calls that one measurement makes, whatever its time.
const CALLS_LIMIT: usize = 10_000_000;

/// Somebody who makes one call after the other.
pub trait Caller: Send + 'static {
    /// Makes the next one, and waits for the answer. A failed call ends the measurement.
    fn call(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// What the callers achieved.
#[derive(Debug)]
pub struct Calls {
    /// Calls answered per second.
    pub per_second: f64,
    /// How long each of those took.
    pub latencies: Vec<Duration>,
    /// When the first call began.
    pub begin: Instant,
}

/// Lets the callers call for so long, and gives them back for the next time. A call counts when it is answered within
/// the time; those under way at its end are waited for, and not counted.
pub async fn closed_loop<C: Caller>(callers: Vec<C>, time: Duration) -> Result<(Vec<C>, Calls)> {
    let limit = CALLS_LIMIT / callers.len().max(1);
    let begin = Instant::now();
    let end = begin + time;
    let mut tasks = JoinSet::new();
    for mut caller in callers {
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            let mut from = Instant::now();
            while from < end && latencies.len() < limit {
                caller.call().await?;
                let to = Instant::now();
                if to <= end {
                    latencies.push(to - from);
                }
                from = to;
            }
            Result::Ok((caller, latencies))
        });
    }
    let mut callers = Vec::new();
    let mut latencies = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        let (caller, of_caller) = joined.context("a caller")??;
        callers.push(caller);
        latencies.extend(of_caller);
    }
    let per_second = latencies.len() as f64 / time.as_secs_f64();
    Ok((callers, Calls { per_second, latencies, begin }))
}

/// Lets the callers make so many calls together, as fast as they go.
pub async fn make_calls<C: Caller>(callers: Vec<C>, count: u64) -> Result<()> {
    let left = Arc::new(AtomicU64::new(count));
    let mut tasks = JoinSet::new();
    for mut caller in callers {
        let left = Arc::clone(&left);
        let take = |left: u64| left.checked_sub(1);
        tasks.spawn(async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                caller.call().await?;
            }
            Result::Ok(())
        });
    }
    while let Some(joined) = tasks.join_next().await {
        joined.context("a caller")??;
    }
    Ok(())
}

/// As [`closed_loop`], after a second that warms everything up and does not count.
pub async fn measured<C: Caller>(callers: Vec<C>, time: Duration) -> Result<(Vec<C>, Calls)> {
    let (callers, _) = closed_loop(callers, WARM_UP).await?;
    closed_loop(callers, time).await
}

/// So many moments at a steady rate, each when it has come.
pub fn pace(interval: Duration, count: u32) -> mpsc::UnboundedReceiver<Instant> {
    let (tick, ticks) = mpsc::unbounded_channel();
    let begin = Instant::now();
    // A thread of its own: the runtime's timers are a millisecond coarse, which would be part of every figure.
    std::thread::spawn(move || {
        for number in 0..count {
            let due = begin + interval * number;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if tick.send(due).is_err() {
                break;
            }
        }
    });
    ticks
}

/// How long a warm-up lasts.
pub const WARM_UP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    struct Sleeper(usize);

    impl Caller for Sleeper {
        async fn call(&mut self) -> Result<()> {
            self.0 += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok(())
        }
    }

    #[tokio::test]
    async fn calls_are_counted_within_the_time() {
        let callers = vec![Sleeper(0), Sleeper(0)];
        let (callers, calls) = closed_loop(callers, Duration::from_millis(100)).await.unwrap();
        let made: usize = callers.iter().map(|caller| caller.0).sum();
        assert!((2..=40).contains(&calls.latencies.len()), "{}", calls.latencies.len());
        assert!(made - calls.latencies.len() <= 2);
        assert!(calls.latencies.iter().all(|latency| *latency >= Duration::from_millis(5)));
    }

    struct Counter(Arc<AtomicU64>);

    impl Caller for Counter {
        async fn call(&mut self) -> Result<()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(())
        }
    }

    #[tokio::test]
    async fn as_many_calls_are_made_as_asked_for() {
        let made = Arc::new(AtomicU64::new(0));
        let callers = (0..8).map(|_| Counter(Arc::clone(&made))).collect();
        make_calls(callers, 101).await.unwrap();
        assert_eq!(made.load(Ordering::Relaxed), 101);
    }
}
