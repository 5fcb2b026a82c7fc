//! The breaker of one endpoint: after many failures in a row only a probe goes out now and then, so that a dead host costs
//! little.  A pure state machine; what it is asked and told has its time with it.

use std::time::Duration;

use crate::clock::Timestamp;

/// So many failures in a row open it,
const FAILURES: u32 = 10;
/// if they were spread over at least this time: one moment of trouble fails many requests at once.
const SPREAD: Duration = Duration::from_secs(5);
/// How long nothing goes out before the first probe.
pub const FIRST_WAIT: Duration = Duration::from_secs(10);
/// The waits double up to this.
pub const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);
/// A probe that says nothing for so long is lost: every request ends within 30 seconds.
const LOST: Duration = Duration::from_secs(60);

/// Whether a request may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It may.
    Free,
    /// It may, alone.
    Probe,
    /// It waits; this is when to ask again.
    Wait(Timestamp),
}

/// What one node knows of how an endpoint's last requests went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breaker {
    /// Every request goes out.
    Closed {
        /// Failures in a row.
        failures: u32,
        /// When the first of them was.
        since: Timestamp,
    },
    /// None goes out before `until`.
    Open {
        /// How long the next one waits that follows a failed probe.
        wait: Duration,
        /// When a probe may go out.
        until: Timestamp,
    },
    /// One is under way.
    Probing {
        /// As in `Open`.
        wait: Duration,
        /// When it counts as lost.
        lost: Timestamp,
    },
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Closed { failures: 0, since: Timestamp::default() }
    }
}

impl Breaker {
    /// Whether only probes go out.
    pub fn is_open(&self) -> bool {
        !matches!(self, Self::Closed { .. })
    }

    /// Whether nothing is wrong.
    pub fn is_quiet(&self) -> bool {
        matches!(self, Self::Closed { failures: 0, .. })
    }

    /// Whether a request may go out now.
    pub fn ask(&self, now: Timestamp) -> Leave {
        match *self {
            Self::Closed { .. } => Leave::Free,
            // A wait that is longer than any is of a clock that was set back since.
            Self::Open { until, .. } if until > now && until <= now + LONGEST_WAIT + LONGEST_WAIT / 10 => {
                Leave::Wait(until)
            }
            Self::Probing { lost, .. } if lost > now && lost <= now + LOST => {
                Leave::Wait((now + FIRST_WAIT).min(lost))
            }
            Self::Open { .. } | Self::Probing { .. } => Leave::Probe,
        }
    }

    /// The same, of one that goes out if it may.
    pub fn start(&mut self, now: Timestamp) -> Leave {
        let leave = self.ask(now);
        if let (Leave::Probe, Self::Open { wait, .. } | Self::Probing { wait, .. }) = (leave, *self) {
            *self = Self::Probing { wait, lost: now + LOST };
        }
        leave
    }

    /// The endpoint answered: everything goes out again.
    pub fn answered(&mut self) {
        *self = Self::default();
    }

    /// A request failed.  `jitter` in 0..=1 lengthens the wait by up to a tenth, so that nodes and endpoints that failed
    /// together do not probe together.
    pub fn failed(&mut self, now: Timestamp, jitter: f64) {
        let open = |wait: Duration| {
            let until = now + wait.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 10.0);
            Self::Open { wait: (wait * 2).min(LONGEST_WAIT), until }
        };
        *self = match *self {
            Self::Closed { failures, since } => {
                let since = if failures == 0 { now } else { since };
                let failures = failures.saturating_add(1);
                if failures >= FAILURES && now.since(since) >= SPREAD {
                    open(FIRST_WAIT)
                } else {
                    Self::Closed { failures, since }
                }
            }
            // It had started before this opened.
            Self::Open { .. } => return,
            Self::Probing { wait, .. } => open(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::default() + Duration::from_secs(seconds)
    }

    /// One that opened at second 10.
    fn open() -> Breaker {
        let mut breaker = Breaker::default();
        for second in 1..=10 {
            assert_eq!(breaker.start(at(second)), Leave::Free);
            breaker.failed(at(second), 0.0);
        }
        breaker
    }

    #[test]
    fn ten_failures_in_a_row_open_it_and_a_moment_of_trouble_does_not() {
        assert_eq!(open().ask(at(11)), Leave::Wait(at(20)));
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            breaker.failed(at(1), 0.0);
        }
        assert_eq!(breaker.ask(at(5)), Leave::Free);
        breaker.answered();
        for second in 6..15 {
            breaker.failed(at(second), 0.0);
        }
        assert_eq!(breaker.ask(at(15)), Leave::Free, "nine");
    }

    #[test]
    fn one_probe_at_a_time_goes_out_and_the_waits_double() {
        let mut breaker = open();
        let mut now = at(10);
        for wait in [10, 20, 40, 80, 160, 300, 300] {
            let due = now + Duration::from_secs(wait);
            assert_eq!(breaker.start(due - Duration::from_micros(1)), Leave::Wait(due));
            now = due;
            assert_eq!(breaker.start(now), Leave::Probe);
            assert!(matches!(breaker.start(now), Leave::Wait(_)), "one at a time");
            breaker.failed(now, 0.0);
        }
        let due = now + LONGEST_WAIT;
        assert_eq!(breaker.start(due), Leave::Probe);
        breaker.answered();
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn a_lost_probe_is_made_again() {
        let mut breaker = open();
        assert_eq!(breaker.start(at(20)), Leave::Probe);
        assert!(matches!(breaker.start(at(79)), Leave::Wait(_)));
        assert_eq!(breaker.start(at(80)), Leave::Probe);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Start,
        Answer,
        Fail,
    }

    proptest! {
        #[test]
        fn it_never_blocks_for_ever_and_probes_ever_more_rarely(
            steps in prop::collection::vec(
                (prop::sample::select(vec![Step::Start, Step::Answer, Step::Fail]), 0..100u64, 0.0..1.0f64), 0..200
            )
        ) {
            let (mut breaker, mut now) = (Breaker::default(), at(0));
            let (mut row, mut first) = (0, now);
            for (step, wait, jitter) in steps {
                now = now + Duration::from_secs(wait);
                match step {
                    Step::Start => {
                        let leave = breaker.start(now);
                        prop_assert_eq!(leave == Leave::Free, !breaker.is_open());
                        if leave == Leave::Probe {
                            prop_assert!(matches!(breaker.start(now), Leave::Wait(_)), "one at a time");
                        }
                    }
                    Step::Answer => {
                        breaker.answered();
                        row = 0;
                    }
                    Step::Fail => {
                        if row == 0 {
                            first = now;
                        }
                        row += 1;
                        breaker.failed(now, jitter);
                    }
                }
                // It opens for ten failures in a row with time between them, and for nothing else.
                if breaker.is_open() {
                    prop_assert!(row >= FAILURES && now.since(first) >= SPREAD);
                }
                if let Leave::Wait(until) = breaker.ask(now) {
                    prop_assert!(until > now && until <= now + LONGEST_WAIT.mul_f64(1.1));
                    prop_assert!(breaker.ask(now + LONGEST_WAIT.mul_f64(1.1)) == Leave::Probe);
                }
            }
        }
    }
}
