//! What follows from how an endpoint fares.

use std::time::Duration;

use super::record::Record;
use crate::clock::Timestamp;

/// So many failures at least: one event that nobody takes says little.
const FEWEST: i64 = 3;
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// When something follows.  Zero means never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// After how long `webhook.failing` is published.
    pub failing_after: Duration,
    /// After how long the endpoint is disabled.
    pub disable_after: Duration,
}

impl Thresholds {
    /// From the settings' units.
    pub fn new(failing_after_hours: u32, disable_after_days: u32) -> Self {
        Self { failing_after: HOUR * failing_after_hours, disable_after: DAY * disable_after_days }
    }
}

/// What is to be done about an active endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is told that it fails.
    Failing,
    /// It is disabled, for this reason.
    Disable(String),
}

/// What is to be done about an active endpoint.
///
/// To be disabled it must have been seen failing for the time: that nothing was sent to it for days after a bad hour says
/// nothing.  To be told of costs nobody anything, so that there the time alone counts.
pub fn verdict(record: &Record, thresholds: &Thresholds, now: Timestamp) -> Option<Verdict> {
    let Thresholds { failing_after, disable_after } = *thresholds;
    let since = record.failing_since?;
    if record.gone {
        return Some(Verdict::Disable("it answered 410 Gone: it wants no more requests".into()));
    }
    if record.failures < FEWEST {
        return None;
    }
    let seen = record.last_failure_at.map_or(Duration::ZERO, |last| last.since(since));
    if !disable_after.is_zero() && seen >= disable_after {
        let (failures, error) = (record.failures, &record.last_error);
        return Some(Verdict::Disable(format!(
            "all of {failures} requests since {since} failed; the last one: {error}"
        )));
    }
    let due = !failing_after.is_zero() && now.since(since) >= failing_after;
    (due && !record.announced).then_some(Verdict::Failing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: Duration) -> Timestamp {
        Timestamp::default() + time
    }

    fn failing(failures: i64, last: Duration) -> Record {
        Record {
            failing_since: Some(at(Duration::ZERO)),
            failures,
            last_failure_at: Some(at(last)),
            last_error: "answered 503".into(),
            ..Record::default()
        }
    }

    fn of(record: &Record, now: Duration) -> Option<Verdict> {
        verdict(record, &Thresholds::new(1, 5), at(now))
    }

    #[test]
    fn an_endpoint_is_told_of_after_the_time_and_once() {
        assert_eq!(of(&Record::default(), HOUR), None);
        assert_eq!(of(&failing(3, Duration::ZERO), HOUR - Duration::from_secs(1)), None);
        assert_eq!(of(&failing(2, HOUR), HOUR), None, "too few");
        assert_eq!(of(&failing(3, Duration::ZERO), HOUR), Some(Verdict::Failing));
        assert_eq!(of(&Record { announced: true, ..failing(3, HOUR) }, HOUR), None);
    }

    #[test]
    fn an_endpoint_is_disabled_when_it_was_seen_failing_for_the_days() {
        let announced = |last| Record { announced: true, ..failing(9, last) };
        assert_eq!(of(&announced(HOUR), 10 * DAY), None, "nothing was sent to it since its first hour");
        assert!(
            matches!(of(&announced(5 * DAY), 5 * DAY), Some(Verdict::Disable(reason)) if reason.contains("503"))
        );
        let gone = Record { gone: true, ..failing(1, Duration::ZERO) };
        assert!(
            matches!(of(&gone, Duration::ZERO), Some(Verdict::Disable(reason)) if reason.contains("410"))
        );
    }

    #[test]
    fn zero_means_never_but_for_who_is_gone() {
        let never = |record: &Record| verdict(record, &Thresholds::new(0, 0), at(100 * DAY));
        assert_eq!(never(&failing(1_000, 100 * DAY)), None);
        assert!(never(&Record { gone: true, ..failing(1, DAY) }).is_some());
    }
}
