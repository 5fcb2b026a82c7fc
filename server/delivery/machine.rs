//! The one state machine: a pure function from where a delivery stands and what happened to where it stands next.

use std::time::Duration;

use super::model::State;
use crate::clock::Timestamp;

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Its state.
    pub state: State,
    /// Attempts made.
    pub attempts: u32,
    /// How many of them were made before somebody asked for another try: the schedule begins anew after them.
    pub attempts_before: u32,
    /// When it is due; kept as it was in a final state.
    pub due: Timestamp,
}

/// What happened to a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Its time came and a node took it.
    Claimed,
    /// An attempt was made.
    Attempted(Outcome),
    /// The node that had it died or gave it back before an attempt ended.
    LeaseLost,
    /// Somebody withdrew it.
    Cancelled,
    /// Somebody asked for another try of what had ended.
    Replayed,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The destination accepted it.
    Succeeded,
    /// It failed in a way that may pass.
    Retry {
        /// When the destination asked to be tried again.
        after: Option<Duration>,
    },
    /// It failed for good.
    Refused,
    /// It is not wanted any more: the destination was switched off, or its time is over.
    Withdrawn,
    /// Nothing was tried, and nothing is to be before this time: a limit is used up, or nobody can take it now.
    Held {
        /// When to look again.
        until: Timestamp,
    },
    /// It may or may not have been accepted, and must not be repeated by itself.
    Unknown,
}

/// When to try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The waits before the second, third, … attempt; after the last of them it has failed.
    pub schedule: Vec<Duration>,
    /// The most that a destination's own wish can put off the next attempt.
    pub longest_wait: Duration,
}

/// A step that the state machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Illegal;

/// Where a delivery stands after `input`.
///
/// `jitter` in 0..=1 lengthens the wait by up to a tenth, so that what failed together does not come back together.
///
/// # Errors
/// [`Illegal`] when the state has no such step, such as an attempt of a delivery that nobody has in hand.
pub fn next(
    status: Status,
    input: &Input,
    policy: &Policy,
    now: Timestamp,
    jitter: f64,
) -> Result<Status, Illegal> {
    let Status { state, attempts, due, .. } = status;
    match input {
        Input::Claimed if state.is_waiting() && due <= now => Ok(Status { state: State::Sending, ..status }),
        Input::Attempted(outcome) if state == State::Sending => {
            Ok(attempted(status, outcome, policy, now, jitter))
        }
        Input::LeaseLost if state == State::Sending => {
            let state = if attempts == 0 { State::Pending } else { State::Retrying };
            Ok(Status { state, ..status })
        }
        Input::Cancelled if state.is_waiting() => Ok(Status { state: State::Cancelled, ..status }),
        Input::Replayed if state.is_final() => {
            Ok(Status { state: State::Pending, attempts_before: attempts, due: now, ..status })
        }
        _ => Err(Illegal),
    }
}

fn attempted(status: Status, outcome: &Outcome, policy: &Policy, now: Timestamp, jitter: f64) -> Status {
    let attempts = status.attempts.saturating_add(1);
    let ended = |state| Status { state, attempts, ..status };
    let retries = attempts.saturating_sub(status.attempts_before.saturating_add(1));
    match outcome {
        Outcome::Succeeded => ended(State::Succeeded),
        Outcome::Refused => ended(State::Failed),
        Outcome::Unknown => ended(State::Unknown),
        // Nothing was tried, so that nothing is counted.
        Outcome::Withdrawn => Status { state: State::Cancelled, ..status },
        Outcome::Held { until } => Status { state: State::Held, due: (*until).max(now), ..status },
        Outcome::Retry { after } => match policy.schedule.get(retries as usize) {
            None => ended(State::Failed),
            Some(wait) => {
                let wait = wait.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 10.0);
                let asked = after.map_or(Duration::ZERO, |after| after.min(policy.longest_wait));
                Status { state: State::Retrying, attempts, due: now + wait.max(asked), ..status }
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> Policy {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Policy { schedule: vec![minutes(1), minutes(5), minutes(15)], longest_wait: minutes(60) }
    }

    fn sending(attempts: u32) -> Status {
        Status { state: State::Sending, attempts, attempts_before: 0, due: Timestamp::from_micros(0) }
    }

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

    #[test]
    fn a_failing_delivery_follows_the_schedule_and_ends() {
        let retry = Input::Attempted(Outcome::Retry { after: None });
        let mut status = sending(0);
        for minutes in [1, 5, 15] {
            status = next(status, &retry, &policy(), NOW, 0.0).unwrap();
            assert_eq!(status.state, State::Retrying);
            assert_eq!(status.due, NOW + Duration::from_secs(60 * minutes));
            status = next(status, &Input::Claimed, &policy(), status.due, 0.0).unwrap();
        }
        status = next(status, &retry, &policy(), NOW, 0.0).unwrap();
        assert_eq!((status.state, status.attempts), (State::Failed, 4));
    }

    #[test]
    fn what_is_tried_once_more_has_all_its_retries_again() {
        let retry = Input::Attempted(Outcome::Retry { after: None });
        let failed = Status { state: State::Failed, ..sending(4) };
        let mut status = next(failed, &Input::Replayed, &policy(), NOW, 0.0).unwrap();
        for minutes in [1, 5, 15] {
            status = next(status, &Input::Claimed, &policy(), status.due, 0.0).unwrap();
            status = next(status, &retry, &policy(), NOW, 0.0).unwrap();
            assert_eq!(status.due, NOW + Duration::from_secs(60 * minutes));
        }
        status = next(status, &Input::Claimed, &policy(), status.due, 0.0).unwrap();
        status = next(status, &retry, &policy(), NOW, 0.0).unwrap();
        assert_eq!((status.state, status.attempts), (State::Failed, 8));
    }

    #[test]
    fn a_destination_may_ask_for_more_time_but_not_for_less_and_not_for_ever() {
        let due = |after| {
            let input = Input::Attempted(Outcome::Retry { after: Some(Duration::from_secs(after)) });
            next(sending(0), &input, &policy(), NOW, 0.0).unwrap().due.since(NOW).as_secs()
        };
        assert_eq!(due(10), 60);
        assert_eq!(due(600), 600);
        assert_eq!(due(1_000_000), 3_600);
    }

    #[test]
    fn a_delivery_can_not_be_claimed_before_its_time() {
        let due = NOW + Duration::from_secs(1);
        let early = Status { state: State::Retrying, attempts: 1, attempts_before: 0, due };
        assert_eq!(next(early, &Input::Claimed, &policy(), NOW, 0.0), Err(Illegal));
    }

    fn any_state() -> impl Strategy<Value = State> {
        prop::sample::select(&State::ALL[..])
    }

    fn any_input() -> impl Strategy<Value = Input> {
        let after = prop::option::of((0..100_000u64).prop_map(Duration::from_secs));
        prop_oneof![
            Just(Input::Claimed),
            Just(Input::LeaseLost),
            Just(Input::Cancelled),
            Just(Input::Replayed),
            Just(Input::Attempted(Outcome::Succeeded)),
            Just(Input::Attempted(Outcome::Refused)),
            Just(Input::Attempted(Outcome::Withdrawn)),
            Just(Input::Attempted(Outcome::Unknown)),
            (0..2_000_000_000i64)
                .prop_map(|at| { Input::Attempted(Outcome::Held { until: Timestamp::from_micros(at) }) }),
            after.prop_map(|after| Input::Attempted(Outcome::Retry { after })),
        ]
    }

    proptest! {
        #[test]
        fn only_a_replay_leaves_a_final_state(state in any_state(), input in any_input(), attempts in 0..20u32) {
            let status = Status { state, attempts, attempts_before: 0, due: Timestamp::from_micros(0) };
            let result = next(status, &input, &policy(), NOW, 0.5);
            if state.is_final() {
                prop_assert_eq!(result.is_ok(), input == Input::Replayed);
            }
        }

        #[test]
        fn attempts_never_fall_and_a_retry_is_always_later(
            state in any_state(), input in any_input(), attempts in 0..20u32, jitter in 0.0..1.0f64
        ) {
            let status = Status { state, attempts, attempts_before: 0, due: NOW };
            if let Ok(after) = next(status, &input, &policy(), NOW, jitter) {
                prop_assert!(after.attempts >= attempts);
                if after.state == State::Retrying && input != Input::LeaseLost {
                    prop_assert!(after.due > NOW);
                    prop_assert!(after.due <= NOW + Duration::from_secs(3_600));
                }
            }
        }

        #[test]
        fn every_delivery_ends_whatever_happens_to_it(outcomes in prop::collection::vec(any_input(), 0..60)) {
            let mut status = Status { state: State::Pending, attempts: 0, attempts_before: 0, due: NOW };
            for input in outcomes.iter().filter(|input| **input != Input::Replayed) {
                if let Ok(after) = next(status, input, &policy(), status.due, 0.0) {
                    status = after;
                }
            }
            for _ in 0..10 {
                if status.state.is_waiting() {
                    status = next(status, &Input::Claimed, &policy(), status.due, 0.0).unwrap();
                }
                let retry = Input::Attempted(Outcome::Retry { after: None });
                status = next(status, &retry, &policy(), NOW, 0.0).unwrap_or(status);
            }
            prop_assert!(status.state.is_final());
        }
    }
}
