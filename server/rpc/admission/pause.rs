//! When those who are refused are told to come back.
//!
//! Whoever is refused comes again, and a refusal costs something too, about a third of what a publish does: were everybody to come
//! back after a second, a crowd of a hundred thousand would have the server do little but refuse.  So each is given an
//! appointment, and there are only so many of them in a second, a part of what is done in one.  A crowd of any size comes back one
//! after the other then, from the first moment on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Stopwatch;

/// The least: by then what was under way is done.
pub(super) const SHORTEST: Duration = Duration::from_secs(1);
/// Whoever is told more than this may as well give up.
pub(super) const LONGEST: Duration = Duration::from_secs(60);
/// How often it is reckoned anew how much is done, in microseconds.
const WINDOW: u64 = 500_000;
/// Appointments for each call that is done: refusing those who keep them costs a thirtieth of the server's time.
const PART: f64 = 0.1;
/// Appointments in a second at the least: so many refusals cost nothing worth mentioning, and a server that has been idle
/// until now does not know yet what it can do.
const FEWEST: f64 = 1_000.0;
/// Between two who are refused one after the other while there is no appointment: the golden section, which spreads any number of
/// them evenly.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Gives appointments.
#[derive(Debug)]
pub(super) struct Pause {
    began: Stopwatch,
    /// When it was last reckoned, in microseconds since the beginning.
    reckoned: AtomicU64,
    done: AtomicU64,
    /// The time between two appointments, in microseconds.
    gap: AtomicU64,
    /// The next appointment, in microseconds since the beginning.
    next: AtomicU64,
    /// How many found no appointment.
    number: AtomicU64,
}

impl Default for Pause {
    fn default() -> Self {
        Self {
            began: Stopwatch::start(),
            reckoned: AtomicU64::new(0),
            done: AtomicU64::new(0),
            gap: AtomicU64::new(gap(0, Duration::from_secs(1))),
            next: AtomicU64::new(0),
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
        self.refused_at(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn refused_at(&self, now: u64) -> Duration {
        self.reckon(now);
        let (first, last) = (now.saturating_add(micros(SHORTEST)), now.saturating_add(micros(LONGEST)));
        let gap = self.gap.load(Ordering::Relaxed);
        let given = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            let given = next.max(first);
            (given <= last).then(|| given.saturating_add(gap))
        });
        match given {
            Ok(next) => Duration::from_micros(next.max(first) - now),
            // All are given: somewhere in the later half of the time, so that they do not come together.
            Err(_) => later(self.number.fetch_add(1, Ordering::Relaxed)),
        }
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
        let done = self.done.swap(0, Ordering::Relaxed);
        self.gap.store(gap(done, Duration::from_micros(passed)), Ordering::Relaxed);
    }
}

fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

/// The time between two appointments after a time in which so many calls were done, in microseconds.
fn gap(done: u64, passed: Duration) -> u64 {
    let rate = done as f64 * PART / passed.as_secs_f64().max(f64::MIN_POSITIVE);
    ((1_000_000.0 / rate.max(FEWEST)) as u64).max(1)
}

/// What the one with this number is told who found no appointment.
fn later(number: u64) -> Duration {
    let place = (number.wrapping_mul(STEP) >> 11) as f64 / (1_u64 << 53) as f64;
    LONGEST.mul_f64((1.0 + place) / 2.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A crowd that comes all at once, and of which everybody comes back when they were told and is refused again, at a server
        /// that does so much a second.
        #[test]
        fn a_crowd_comes_back_as_fast_as_there_are_appointments(crowd in 1..20_000_u64, done in 0..50_000_u64) {
            let pause = Pause::default();
            let mut due = BTreeMap::from([(0, crowd)]);
            let (mut came, mut counted) = (BTreeMap::<u64, u64>::new(), 0);
            while let Some((now, number)) = due.pop_first().filter(|(now, _)| *now < 10_000_000) {
                pause.done.fetch_add(done * (now - counted) / 1_000_000, Ordering::Relaxed);
                counted = now;
                for _ in 0..number {
                    *due.entry(now + micros(pause.refused_at(now))).or_default() += 1;
                }
                *came.entry(now / 1_000_000).or_default() += number;
            }
            let most = (done as f64 * PART).max(FEWEST);
            for (second, number) in came.into_iter().filter(|(second, _)| *second > 0) {
                prop_assert!(number as f64 <= most * 1.1 + 2.0, "{number} of {most} in second {second}");
                let least = if crowd < 2_000 { 0.0 } else { FEWEST * 0.9 };
                prop_assert!(number as f64 >= least, "only {number} in second {second}");
            }
        }

        #[test]
        fn nobody_is_told_to_come_at_once_or_never(crowd in 1..100_000_u64, done in any::<u32>(), now in any::<u32>()) {
            let pause = Pause::default();
            pause.done.store(done.into(), Ordering::Relaxed);
            for _ in 0..crowd {
                let told = pause.refused_at(now.into());
                prop_assert!((SHORTEST..=LONGEST).contains(&told), "{told:?}");
            }
        }
    }

    #[test]
    fn who_finds_no_appointment_does_not_come_back_with_others() {
        let pause = Pause::default();
        let mut told: Vec<Duration> = (0..70_000).map(|_| pause.refused_at(0)).collect();
        let mut late = told.split_off(60_000);
        late.sort_unstable();
        assert!(late[0] < Duration::from_secs(31) && *late.last().unwrap() > Duration::from_secs(59));
        assert!(late.windows(2).all(|pair| pair[1] - pair[0] < Duration::from_millis(20)), "evenly");
    }

    #[test]
    fn quiet_makes_it_short_again() {
        let pause = Pause::default();
        let told = (0..=50_000).map(|_| pause.refused_at(0)).max();
        assert!(told > Some(Duration::from_secs(50)), "{told:?}");
        assert_eq!(pause.refused_at(60_000_000), SHORTEST);
    }
}
