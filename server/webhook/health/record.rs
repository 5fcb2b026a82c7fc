//! How an endpoint fares, and how what nodes noted on their own comes together.  Pure functions.

use crate::clock::Timestamp;

/// How an endpoint fares, as all nodes know it together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Since when every request failed; `None` when the last one did not.
    pub failing_since: Option<Timestamp>,
    /// How many failed since then.
    pub failures: i64,
    /// When one last succeeded, to the hour while all is well.
    pub last_success_at: Option<Timestamp>,
    /// When one last failed.
    pub last_failure_at: Option<Timestamp>,
    /// Why.
    pub last_error: String,
    /// Whether it answered 410 since then.
    pub gone: bool,
    /// Whether `webhook.failing` has been decided since then.
    pub announced: bool,
}

/// What one node noted for a while.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Noted {
    /// When a request last succeeded.
    pub success_at: Option<Timestamp>,
    /// Those that failed after it.
    pub failing: Option<Failing>,
    /// When one last failed, before the success or after it.
    pub failure_at: Option<Timestamp>,
    /// Why.
    pub error: String,
}

/// Failures in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failing {
    /// The first of them.
    pub since: Timestamp,
    /// How many.
    pub failures: i64,
    /// Whether one of them was a 410.
    pub gone: bool,
}

impl Noted {
    /// Whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.success_at.is_none() && self.failure_at.is_none()
    }

    /// Notes a success.
    pub fn success(&mut self, now: Timestamp) {
        self.success_at = self.success_at.max(Some(now));
        self.failing = None;
    }

    /// Notes a failure.
    pub fn failure(&mut self, now: Timestamp, error: &str, gone: bool) {
        let failing = self.failing.get_or_insert(Failing { since: now, failures: 0, gone: false });
        failing.failures += 1;
        failing.gone |= gone;
        self.failure_at = self.failure_at.max(Some(now));
        error.clone_into(&mut self.error);
    }

    /// What was noted for a while, and then for a while longer.
    #[must_use]
    pub fn then(self, later: Self) -> Self {
        let failing = match (self.failing, later.failing) {
            (Some(one), Some(other)) if later.success_at.is_none() => {
                Some(Failing { failures: one.failures + other.failures, gone: one.gone || other.gone, ..one })
            }
            (one, None) if later.success_at.is_none() => one,
            (_, other) => other,
        };
        Self {
            success_at: self.success_at.max(later.success_at),
            failing,
            error: if later.failure_at.is_some() { later.error } else { self.error },
            failure_at: self.failure_at.max(later.failure_at),
        }
    }
}

impl Record {
    /// Adds what a node noted.
    ///
    /// Nodes write in any order.  Whichever came last decides whether it fails; where a success of one node falls among the
    /// failures of another, it has failed at least since the last of them, and no failure before the success counts.
    pub fn add(&mut self, noted: &Noted) {
        if let Some(success) = noted.success_at
            && self.failing_since.is_some_and(|since| since <= success)
        {
            self.restart_after(success, self.last_failure_at);
        }
        if let Some(failing) = noted.failing {
            let after = self.last_success_at.is_none_or(|success| failing.since >= success);
            if after {
                self.failing_since =
                    Some(self.failing_since.map_or(failing.since, |since| since.min(failing.since)));
                self.failures += failing.failures;
                self.gone |= failing.gone;
            } else if self.failing_since.is_none()
                && let Some(success) = self.last_success_at
            {
                self.restart_after(success, noted.failure_at);
            }
        }
        if noted.failure_at.is_some() && noted.failure_at >= self.last_failure_at {
            self.last_failure_at = noted.failure_at;
            self.last_error.clone_from(&noted.error);
        }
        self.last_success_at = self.last_success_at.max(noted.success_at);
    }

    /// Forgets the failures up to a success, given when the last one was.
    fn restart_after(&mut self, success: Timestamp, last_failure: Option<Timestamp>) {
        self.failing_since = last_failure.filter(|failure| *failure > success);
        self.failures = i64::from(self.failing_since.is_some());
        (self.gone, self.announced) = (false, false);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    /// What happened, in the order of time: at each moment a request to one of three nodes succeeded or failed, or a node
    /// wrote what it had noted.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Success(usize),
        Failure(usize),
        Write(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            2 => (0..3usize).prop_map(Step::Success),
            5 => (0..3usize).prop_map(Step::Failure),
            3 => (0..3usize).prop_map(Step::Write),
        ];
        prop::collection::vec(step, 0..60)
    }

    #[test]
    fn a_success_ends_a_row_of_failures() {
        let mut record = Record::default();
        let mut noted = Noted::default();
        for time in 1..=3 {
            noted.failure(at(time), "answered 503", time == 2);
        }
        record.add(&noted);
        assert_eq!((record.failing_since, record.failures, record.gone), (Some(at(1)), 3, true));
        record.announced = true;
        let mut noted = Noted::default();
        noted.success(at(4));
        record.add(&noted);
        let healthy = Record {
            last_success_at: Some(at(4)),
            last_failure_at: Some(at(3)),
            last_error: "answered 503".into(),
            ..Record::default()
        };
        assert_eq!(record, healthy);
    }

    #[test]
    fn a_success_of_another_node_among_failures_leaves_those_after_it() {
        let (mut failures, mut success) = (Noted::default(), Noted::default());
        failures.failure(at(1), "x", false);
        failures.failure(at(3), "x", false);
        success.success(at(2));
        for order in [[&failures, &success], [&success, &failures]] {
            let mut record = Record::default();
            order.into_iter().for_each(|noted| record.add(noted));
            assert_eq!((record.failing_since, record.failures), (Some(at(3)), 1));
        }
    }

    proptest! {
        #[test]
        fn whatever_node_writes_first_what_came_last_decides(steps in steps()) {
            let (mut nodes, mut record) = (vec![Noted::default(); 3], Record::default());
            let (mut row, mut last_success) = (Vec::new(), None);
            for (time, step) in (1..).zip(steps) {
                match step {
                    Step::Success(node) => {
                        nodes[node].success(at(time));
                        row.clear();
                        last_success = Some(at(time));
                    }
                    Step::Failure(node) => {
                        nodes[node].failure(at(time), "x", false);
                        row.push(at(time));
                    }
                    Step::Write(node) => record.add(&std::mem::take(&mut nodes[node])),
                }
            }
            nodes.iter().for_each(|noted| record.add(noted));
            prop_assert_eq!(record.failing_since.is_some(), !row.is_empty());
            prop_assert_eq!(record.failures > 0, !row.is_empty());
            prop_assert_eq!(record.last_success_at, last_success);
            // Never earlier than it was, and never more failures than there were: nobody is disabled too early.
            if let Some(since) = record.failing_since {
                prop_assert!(since >= row[0] && Some(since) <= record.last_failure_at);
                prop_assert!(record.failures <= row.len() as i64);
            }
        }

        #[test]
        fn what_one_node_noted_is_the_same_in_one_piece_or_in_two(steps in steps(), cut in 0..60usize) {
            let (mut whole, mut halves) = (Noted::default(), [Noted::default(), Noted::default()]);
            for (place, (time, step)) in (1..).zip(steps).enumerate() {
                let half = &mut halves[usize::from(place >= cut)];
                match step {
                    Step::Success(_) => {
                        whole.success(at(time));
                        half.success(at(time));
                    }
                    Step::Failure(_) => {
                        whole.failure(at(time), "x", time % 7 == 0);
                        half.failure(at(time), "x", time % 7 == 0);
                    }
                    Step::Write(_) => {}
                }
            }
            let [first, second] = halves;
            let mut in_two = Record::default();
            in_two.add(&first);
            in_two.add(&second);
            let mut in_one = Record::default();
            in_one.add(&whole);
            prop_assert_eq!(in_one, in_two);
            prop_assert_eq!(first.then(second), whole);
        }
    }
}
