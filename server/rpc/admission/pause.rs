//! When those who are refused are told to come back.
//!
//! Whoever is refused comes again, and a refusal costs something too: were everybody to come back after a second, a crowd of a
//! hundred thousand would have the server do little but refuse.  So they are told to come back no faster than there may be room:
//! the pause grows while more are refused in a second than half of what is done in one, and shrinks when fewer are.  Each is told
//! something else, up to half as much again, so that those who were refused together do not return together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Stopwatch;

/// The least: by then what was under way is done.
pub(super) const SHORTEST: Duration = Duration::from_secs(1);
/// Whoever is told more than this may as well give up.
pub(super) const LONGEST: Duration = Duration::from_secs(30);
/// How often the pause is reckoned anew, in microseconds.
const WINDOW: u64 = 500_000;
/// So many refusals in a second cost nothing worth mentioning, whatever is done beside them.
const CHEAP: f64 = 200.0;
/// Between two who are refused one after the other: the golden section, which spreads any number of them evenly.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Reckons the pause from what is refused and what is done.
#[derive(Debug)]
pub(super) struct Pause {
    began: Stopwatch,
    /// When it was last reckoned, in microseconds since the beginning.
    reckoned: AtomicU64,
    refused: AtomicU64,
    done: AtomicU64,
    /// In microseconds.
    pause: AtomicU64,
    /// How many have been refused since the beginning.
    number: AtomicU64,
}

impl Default for Pause {
    fn default() -> Self {
        Self {
            began: Stopwatch::start(),
            reckoned: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            done: AtomicU64::new(0),
            pause: AtomicU64::new(SHORTEST.as_micros() as u64),
            number: AtomicU64::new(0),
        }
    }
}

impl Pause {
    /// A call that was let in has been answered.
    pub fn done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// A call is refused; answers when it may come again.
    pub fn refused(&self) -> Duration {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.reckon(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX));
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        spread(Duration::from_micros(self.pause.load(Ordering::Relaxed)), number)
    }

    fn reckon(&self, now: u64) {
        let before = self.reckoned.load(Ordering::Relaxed);
        let passed = now.saturating_sub(before);
        let is_time = passed >= WINDOW;
        // One of those who come at the same time does it.
        if !is_time
            || self.reckoned.compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        let (refused, done) = (self.refused.swap(0, Ordering::Relaxed), self.done.swap(0, Ordering::Relaxed));
        let pause = Duration::from_micros(self.pause.load(Ordering::Relaxed));
        let pause = next(pause, refused, done, Duration::from_micros(passed));
        self.pause.store(pause.as_micros() as u64, Ordering::Relaxed);
    }
}

/// The next pause after a time in which so many were refused and so many calls done.
fn next(pause: Duration, refused: u64, done: u64, passed: Duration) -> Duration {
    let seconds = passed.as_secs_f64().max(f64::MIN_POSITIVE);
    let (refused, done) = (refused as f64 / seconds, done as f64 / seconds);
    // Who came was told the pause before or an older one: it changes by no more than half of itself or as much again.
    let ratio = (refused / (done / 2.0).max(CHEAP)).clamp(0.5, 2.0);
    pause.mul_f64(ratio).clamp(SHORTEST, LONGEST)
}

/// The pause of the one with this number: up to half as much again.
fn spread(pause: Duration, number: u64) -> Duration {
    let place = (number.wrapping_mul(STEP) >> 11) as f64 / (1_u64 << 53) as f64;
    pause.mul_f64(1.0 + place / 2.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A crowd of which everybody comes back when they were told, at a server that does so much a second.
        #[test]
        fn a_crowd_comes_back_about_half_as_fast_as_calls_are_done(crowd in 100..200_000_u32, done in 100..20_000_u64) {
            let mut pause = SHORTEST;
            let mut refused = 0.0;
            for _ in 0..200 {
                refused = f64::from(crowd) / pause.as_secs_f64();
                pause = next(pause, (refused / 2.0) as u64, done / 2, Duration::from_millis(500));
            }
            let wanted = (done as f64 / 2.0).max(CHEAP);
            prop_assert!(refused <= wanted * 1.1 || pause == LONGEST, "{refused} of {wanted}, {pause:?}");
            prop_assert!(refused >= wanted * 0.9 || pause == SHORTEST, "{refused} of {wanted}, {pause:?}");
        }

        #[test]
        fn it_stays_within_its_bounds(refused in any::<u32>(), done in any::<u32>(), micros in 1..u64::from(u32::MAX), before in 1..30_u64) {
            let pause = next(Duration::from_secs(before), refused.into(), done.into(), Duration::from_micros(micros));
            prop_assert!((SHORTEST..=LONGEST).contains(&pause));
            prop_assert!(pause <= Duration::from_secs(before * 2));
        }
    }

    #[test]
    fn nobody_comes_back_together() {
        let mut told: Vec<Duration> =
            (0..1_000).map(|number| spread(Duration::from_secs(4), number)).collect();
        told.sort_unstable();
        assert!(told[0] >= Duration::from_secs(4) && told[999] <= Duration::from_secs(6));
        assert!(told.windows(2).all(|pair| pair[1] - pair[0] < Duration::from_millis(10)), "evenly");
    }

    #[test]
    fn quiet_makes_it_short_again() {
        let pause = Pause::default();
        pause.pause.store(30_000_000, Ordering::Relaxed);
        for window in 1..=10 {
            pause.reckon(window * WINDOW);
        }
        assert_eq!(pause.pause.load(Ordering::Relaxed), SHORTEST.as_micros() as u64);
    }
}
