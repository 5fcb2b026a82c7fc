//! How many requests an endpoint has under way at a time: one until it answers, and with each answer one more, as the window of
//! a TCP connection opens in slow start (RFC 5681, 3.1).  What says that it has too many, or says nothing, halves them.
//!
//! A host that hangs holds one connection and one attempt's memory then, not as many as there are events for it; one that answers
//! has all it may have after six round trips.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::delivery::CONCURRENCY;

/// How many requests an endpoint may have under way; 0 is one, to an endpoint that did not answer the last one.
#[derive(Debug)]
pub(super) struct Ramp(AtomicUsize);

impl Default for Ramp {
    fn default() -> Self {
        Self(AtomicUsize::new(1))
    }
}

impl Ramp {
    /// How many it may have.
    pub fn width(&self) -> usize {
        self.0.load(Ordering::Relaxed).max(1)
    }

    /// Whether it has shown for some time that it does not answer.
    pub fn is_silent(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// It answered one.
    pub fn answered(&self) {
        // Nearly always there is nothing to do, and nothing is written then.
        if self.width() < CONCURRENCY {
            self.change(|width| width.saturating_add(1).min(CONCURRENCY));
        }
    }

    /// It did not answer one, or answered that it has too many.
    pub fn failed(&self) {
        self.change(|width| width / 2);
    }

    /// It is another now.
    pub fn begin(&self) {
        self.change(|_| 1);
    }

    fn change(&self, next: impl Fn(usize) -> usize) {
        let update = |width| Some(next(width));
        // An update that always has a next value can not fail.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_opens_within_six_round_trips_and_closes_as_fast() {
        let ramp = Ramp::default();
        let mut trips = 0;
        while ramp.width() < CONCURRENCY {
            for _ in 0..ramp.width() {
                ramp.answered();
            }
            trips += 1;
        }
        assert_eq!(trips, 6);
        for _ in 0..6 {
            assert!(ramp.width() > 1);
            ramp.failed();
        }
        assert!(ramp.width() == 1 && !ramp.is_silent());
        ramp.failed();
        assert!(ramp.width() == 1 && ramp.is_silent());
        ramp.answered();
        assert!(ramp.width() == 1 && !ramp.is_silent());
    }

    #[test]
    fn one_failure_in_a_hundred_costs_next_to_nothing() {
        let ramp = Ramp::default();
        let mut sum = 0;
        for number in 1..=10_000 {
            if number % 100 == 0 {
                ramp.failed();
            } else {
                ramp.answered();
            }
            sum += ramp.width();
        }
        assert!(sum / 10_000 > CONCURRENCY * 3 / 4, "{}", sum / 10_000);
    }

    proptest! {
        #[test]
        fn there_is_always_one_and_never_more_than_the_most(answers in prop::collection::vec(any::<bool>(), 0..500)) {
            let ramp = Ramp::default();
            for answered in answers {
                if answered {
                    ramp.answered();
                } else {
                    ramp.failed();
                }
                prop_assert!((1..=CONCURRENCY).contains(&ramp.width()));
            }
        }
    }
}
