//! A number of requests in a time, by the generic cell rate algorithm (GCRA): uses come back evenly, and all of them may be
//! used at once.
//!
//! What is used up is one number, the time at which all uses are back.  A use moves it a step on, and is refused when that
//! would be more than the whole period from now.  Times are nanoseconds; a step is rounded up, so that there are never more uses
//! than the quota has.

use std::borrow::Cow;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::clock::Timestamp;
use crate::error::{Error, Kind};

/// `ratelimit-policy`, `ratelimit`: draft-ietf-httpapi-ratelimit-headers.  `retry-after`: RFC 9110, 10.2.3.
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");
const RETRY_AFTER: HeaderName = HeaderName::from_static("retry-after");
/// More than a name, two numbers and what stands around them.
const STATE_LIMIT: usize = 160;
/// The reason of what is over a limit.
pub const REASON: &str = "RATE_LIMITED";

/// How many requests there are in a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    name: Arc<str>,
    uses: i64,
    period: Duration,
    /// What one use costs, in nanoseconds.
    step: i64,
    /// What `ratelimit-policy` says of it.
    policy: HeaderValue,
}

/// How it stands with a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The limit's name.
    pub name: Arc<str>,
    /// How many uses there are in a period.
    pub uses: i64,
    /// In how much time.
    pub period: Duration,
    /// How many are left now.
    pub remaining: i64,
    /// What `ratelimit-policy` says of it, where it was made before.
    pub policy: Option<HeaderValue>,
    /// When all are back; for a request that was refused, when it may come again.
    pub after: Duration,
}

impl Quota {
    /// So many uses in a period; `None` for no limit, when there are none.
    pub fn new(name: &'static str, uses: i64, period: Duration) -> Option<Self> {
        let nanos = i64::try_from(period.as_nanos()).ok()?;
        let step = (uses > 0).then(|| nanos / uses + i64::from(nanos % uses > 0))?;
        let policy = policy(name, uses, period.as_secs())?;
        Some(Self { name: name.into(), uses, period, step, policy })
    }

    /// Uses it once.
    ///
    /// # Errors
    /// How it stands when it is used up.
    pub fn take(&self, back: &AtomicI64, now: Timestamp) -> Result<Standing, Standing> {
        let now = nanos(now);
        let next = |back| self.next(back, now).ok();
        match back.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) {
            Ok(before) => Ok(self.standing(before.max(now) + self.step, now)),
            Err(before) => Err(self.refused(before, now)),
        }
    }

    /// Uses it once, for a number that one alone has in hand.
    ///
    /// # Errors
    /// As [`Quota::take`].
    pub(super) fn take_mut(&self, back: &mut i64, now: Timestamp) -> Result<(), Standing> {
        let now = nanos(now);
        match self.next(*back, now) {
            Ok(next) => *back = next,
            Err(_) => return Err(self.refused(*back, now)),
        }
        Ok(())
    }

    /// Whether it is used up.
    ///
    /// # Errors
    /// As [`Quota::take`].
    pub(super) fn ask(&self, back: i64, now: Timestamp) -> Result<(), Standing> {
        let now = nanos(now);
        self.next(back, now).map(drop).map_err(|_| self.refused(back, now))
    }

    /// When all would be back after one more use, or how long to wait for it.
    fn next(&self, back: i64, now: i64) -> Result<i64, i64> {
        // A clock that was set back, or a smaller limit than before, must not make anybody wait for longer than a period.
        let next = back.clamp(now, now.saturating_add(self.whole())).saturating_add(self.step);
        let over = next - now.saturating_add(self.whole());
        if over <= 0 { Ok(next) } else { Err(over) }
    }

    fn whole(&self) -> i64 {
        self.step.saturating_mul(self.uses)
    }

    fn standing(&self, back: i64, now: i64) -> Standing {
        let used = back.saturating_sub(now).clamp(0, self.whole());
        Standing {
            name: Arc::clone(&self.name),
            uses: self.uses,
            period: self.period,
            policy: Some(self.policy.clone()),
            remaining: (self.whole() - used) / self.step,
            after: duration(used),
        }
    }

    fn refused(&self, back: i64, now: i64) -> Standing {
        let wait = self.next(back, now).err().unwrap_or(0);
        Standing { remaining: 0, after: duration(wait), ..self.standing(back, now) }
    }
}

impl Standing {
    /// The error of a request that was refused.
    pub fn into_error(self, message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::ResourceExhausted, REASON, message)
            .with("rate_limit", &*self.name)
            .with("limit", self.uses.to_string())
            .with("period_seconds", self.period.as_secs().to_string())
            .retry_after(self.after)
    }

    /// Tells it with an answer.
    pub fn tell(&self, headers: &mut HeaderMap) {
        let policy = self.policy.clone().or_else(|| policy(&self.name, self.uses, self.period.as_secs()));
        tell(headers, policy, &self.name, self.remaining, self.after);
    }
}

/// Tells with an answer which limit refused the request and when it may come again.
pub fn tell_refusal(error: &Error, headers: &mut HeaderMap) {
    let Some(wait) = error.retry_delay() else { return };
    headers.insert(RETRY_AFTER, HeaderValue::from(seconds(wait)));
    if error.reason() != REASON {
        return;
    }
    let of = |key| error.metadata().iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str());
    let numbers = (of("limit").map(str::parse), of("period_seconds").map(str::parse));
    if let (Some(name), (Some(Ok(uses)), Some(Ok(period)))) = (of("rate_limit"), numbers) {
        tell(headers, policy(name, uses, period), name, 0, wait);
    }
}

fn tell(headers: &mut HeaderMap, policy: Option<HeaderValue>, name: &str, remaining: i64, after: Duration) {
    // On the stack: every answer to a caller with a limit has it.
    let mut text = [0; STATE_LIMIT];
    let mut rest = &mut text[..];
    let fits = write!(rest, "\"{name}\";r={remaining};t={}", seconds(after)).is_ok();
    let length = STATE_LIMIT - rest.len();
    if let (Some(policy), true, Ok(state)) = (policy, fits, HeaderValue::from_bytes(&text[..length])) {
        headers.insert(POLICY, policy);
        headers.insert(STATE, state);
    }
}

/// What `ratelimit-policy` says of a limit; `period` is in seconds.
pub fn policy(name: &str, uses: i64, period: u64) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("\"{name}\";q={uses};w={period}")).ok()
}

/// Whole seconds, rounded up: who waits as long is not refused again.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn nanos(time: Timestamp) -> i64 {
    time.micros().saturating_mul(1_000)
}

/// Rounded up to microseconds, which is what clocks here count.
fn duration(nanos: i64) -> Duration {
    Duration::from_micros(u64::try_from(nanos).unwrap_or(0).div_ceil(1_000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(1_700_000_000_000_000 + i64::try_from(micros).unwrap())
    }

    #[test]
    fn all_uses_may_be_used_at_once_and_come_back_evenly() {
        let (quota, back) = (Quota::new("a", 3, Duration::from_secs(3)).unwrap(), AtomicI64::new(0));
        for left in [2, 1, 0] {
            assert_eq!(quota.take(&back, at(0)).unwrap().remaining, left);
        }
        let refused = quota.take(&back, at(0)).unwrap_err();
        assert_eq!((refused.remaining, refused.after), (0, Duration::from_secs(1)));
        assert!(quota.take(&back, at(999_999)).is_err() && quota.take(&back, at(1_000_000)).is_ok());
        assert!(Quota::new("a", 0, Duration::from_secs(3)).is_none());
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out_for_longer_than_a_period() {
        let (quota, back) = (Quota::new("a", 2, Duration::from_secs(60)).unwrap(), AtomicI64::new(i64::MAX));
        let refused = quota.take(&back, at(0)).unwrap_err();
        assert_eq!(refused.after, Duration::from_secs(30));
    }

    #[test]
    fn answers_tell_how_it_stands() {
        let mut headers = HeaderMap::new();
        let quota = Quota::new("default", 10, Duration::from_secs(60)).unwrap();
        quota.take(&AtomicI64::new(0), at(0)).unwrap().tell(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"default\";q=10;w=60");
        assert_eq!(headers["ratelimit"], "\"default\";r=9;t=6");
        let mut headers = HeaderMap::new();
        let full = AtomicI64::new(i64::MAX);
        let error = quota.take(&full, at(0)).unwrap_err().into_error("too many");
        tell_refusal(&error, &mut headers);
        assert_eq!(headers["ratelimit"], "\"default\";r=0;t=6");
        assert_eq!(headers["retry-after"], "6");
    }

    proptest! {
        #[test]
        fn never_more_than_the_quota_and_what_came_back_and_the_wait_is_true(
            uses in 1..50i64, period in 1_000..10_000_000u64,
            waits in prop::collection::vec(0..2_000_000u64, 1..200)
        ) {
            let quota = Quota::new("a", uses, Duration::from_micros(period)).unwrap();
            let (back, mut now, mut taken) = (AtomicI64::new(0), 0, Vec::new());
            for wait in waits {
                now += wait;
                match quota.take(&back, at(now)) {
                    Ok(_) => taken.push(now),
                    Err(refused) => {
                        let wait = refused.after.as_micros() as u64;
                        let back = back.load(Ordering::Acquire);
                        prop_assert!(wait > 0 && quota.ask(back, at(now + wait)).is_ok());
                        prop_assert!(quota.ask(back, at(now + wait - 1)).is_err());
                    }
                }
            }
            for (index, from) in taken.iter().enumerate() {
                for (count, time) in taken[index..].iter().enumerate() {
                    let most = i128::from(uses) + i128::from(uses) * i128::from(time - from) / i128::from(period);
                    prop_assert!((count as i128) < most);
                }
            }
        }
    }
}
