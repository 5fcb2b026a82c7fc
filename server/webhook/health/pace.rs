//! Requests to endpoints that did not answer the last time go out one after the other, a moment apart.
//!
//! One event for many of them makes as many connections, handshakes and long answers at the same moment, and for as long everybody else
//! waits for the processor.  Apart they are something to do in between.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Stopwatch;

/// Between two of them, in microseconds.  Those that are dead are only probed soon, so that there are few.
const GAP: u64 = 2_000;
/// The longest wait, in microseconds: the delivery is leased meanwhile, and a drain waits for it.
const LONGEST: u64 = 1_000_000;

/// Says when the next one goes out.
#[derive(Debug)]
pub struct Pace {
    began: Stopwatch,
    /// When the last turn that was given ends, in microseconds since the beginning.
    ends: AtomicU64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { began: Stopwatch::start(), ends: AtomicU64::new(0) }
    }
}

impl Pace {
    /// Waits for a turn.
    pub async fn turn(&self) {
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let wait = self.wait(now);
        if wait > 0 {
            tokio::time::sleep(Duration::from_micros(wait)).await;
        }
    }

    /// How long who asks now has to wait.
    fn wait(&self, now: u64) -> u64 {
        let latest = now.saturating_add(LONGEST);
        let next = |ends: u64| Some(ends.max(now).saturating_add(GAP).min(latest));
        let ends = self.ends.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        ends.unwrap_or_else(|ends| ends).saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_alone_goes_at_once_and_a_crowd_one_after_the_other() {
        let pace = Pace::default();
        assert_eq!(pace.wait(10), 0);
        let waits: Vec<_> = (0..3).map(|_| pace.wait(10)).collect();
        assert_eq!(waits, [GAP, 2 * GAP, 3 * GAP]);
        assert_eq!(pace.wait(10 + 3 * GAP), GAP, "what is left of the crowd");
        assert_eq!(pace.wait(10 + 9 * GAP), 0);
        assert_eq!((0..10_000).map(|_| pace.wait(10 + 9 * GAP)).max(), Some(LONGEST));
    }
}
