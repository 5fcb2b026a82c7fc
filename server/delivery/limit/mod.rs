//! How many deliveries are taken in hand in a time.
//!
//! A limit is a row of `send_limits`: how much is used since its window began.  It is taken from inside the transaction
//! that takes the deliveries in hand, so that it holds over all nodes and over a crash.  A window begins with the first
//! delivery after the one before has ended; what does not fit waits for its end, and none is lost.

pub mod store;

use std::time::Duration;

use crate::clock::Timestamp;

/// A limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The name of its row.
    pub name: String,
    /// How many in a window.
    pub most: u64,
    /// How long a window is.
    pub window: Duration,
}

/// What is used of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// When its window began.
    pub window_start: Timestamp,
    /// How many were taken in hand since.
    pub used: u64,
    /// How long a window is.
    pub window: Duration,
}

impl Usage {
    /// The usage at this time: nothing once the window has ended.  One that begins more than a window from now is of a clock that
    /// was set back: it begins now, and what was used of it stays used.  A little in the future is what somebody sees who looked
    /// at the time before another one began the window.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        if now >= self.window_start + self.window {
            Self { window_start: now, used: 0, ..self }
        } else if self.window_start > now + self.window {
            Self { window_start: now, ..self }
        } else {
            self
        }
    }

    /// How many more may be taken in hand under this limit.
    pub fn left(self, limit: u64) -> u64 {
        limit.saturating_sub(self.used)
    }

    /// When the window ends.
    pub fn end(self) -> Timestamp {
        self.window_start + self.window
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_window_of_a_clock_that_was_set_back_begins_now_and_what_is_used_stays_used() {
        let (window, now) = (Duration::from_secs(3_600), Timestamp::from_micros(1_000_000_000_000));
        let usage = |window_start| Usage { window_start, used: 3, window };
        let day = Duration::from_secs(86_400);
        assert_eq!(usage(now + day).at(now), usage(now));
        for start in [now, now + Duration::from_secs(1), now + window] {
            assert_eq!(usage(start).at(now), usage(start), "somebody else was a moment later");
        }
        assert_eq!(usage(now).at(now + window), Usage { used: 0, ..usage(now + window) });
    }

    proptest! {
        #[test]
        fn no_window_ever_lets_more_through_than_the_limit(
            limit in 1..50u64,
            wishes in prop::collection::vec((0..4_000u64, 0..40u64), 1..60),
        ) {
            let (mut now, mut usage) = (Timestamp::from_micros(1), Usage { window_start: Timestamp::from_micros(0), used: 0, window: Duration::from_secs(3_600) });
            let mut passed: Vec<(Timestamp, u64)> = Vec::new();
            for (seconds, wanted) in wishes {
                now = now + Duration::from_secs(seconds);
                usage = usage.at(now);
                let granted = wanted.min(usage.left(limit));
                usage.used += granted;
                passed.push((usage.window_start, granted));
            }
            for (window, _) in &passed {
                let sum: u64 = passed.iter().filter(|(start, _)| start == window).map(|(_, granted)| granted).sum();
                prop_assert!(sum <= limit);
            }
        }
    }
}
