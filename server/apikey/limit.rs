//! Rate limits by the generic cell rate algorithm (GCRA): uses come back evenly, and all of them may be used at once.
//!
//! A limit of `n` uses in a period `p` is one number, the time at which all uses are back.  A use moves it `p / n` on, and is
//! refused when that would be more than `p` from now.  Times are counted in `n`ths of a microsecond, so that nothing is
//! rounded.  Over any time `t` at most `n + n t / p` uses are let through.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::HeaderValue;

use super::model::RateLimit;
use crate::clock::Timestamp;
use crate::rpc::admission::quota::{Standing, policy};

/// The limits of a key, with how far each is used up.  They live in the memory of one node.
#[derive(Debug)]
pub struct Limits {
    limits: Box<[RateLimit]>,
    /// For each, when all of it is back.
    back: Mutex<Box<[i128]>>,
    /// What answers tell of each, once it was needed: only keys that are used on this server have answers to tell it with.
    told: OnceLock<Box<[Told]>>,
}

/// A limit's name and, as a header, its policy.
type Told = (Arc<str>, Option<HeaderValue>);

/// How it stands with one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitState {
    /// Its name.
    pub name: String,
    /// How many uses there are in a period.
    pub limit: i64,
    /// In how much time.
    pub period: Duration,
    /// How many are left now.
    pub remaining: i64,
    /// When all are back.
    pub full_after: Duration,
    /// When what was asked for can be used; zero when it was, `None` when that is never.
    pub retry_after: Option<Duration>,
}

impl Limits {
    /// Limits of which nothing is used, but for those that `before` has in the same form.
    pub fn new(limits: &[RateLimit], before: Option<&Self>) -> Self {
        let found = |limit: &RateLimit| {
            let before = before?;
            let at = before.limits.iter().position(|other| other == limit)?;
            Some(before.back.lock().unwrap_or_else(PoisonError::into_inner)[at])
        };
        let back = limits.iter().map(|limit| found(limit).unwrap_or(i128::MIN)).collect();
        Self { limits: limits.into(), back: Mutex::new(back), told: OnceLock::new() }
    }

    /// Whether these are the limits.
    pub fn are(&self, limits: &[RateLimit]) -> bool {
        *self.limits == *limits
    }

    /// Uses every limit once, or none when one is used up; answers how it stands with the one that is used up the furthest, and
    /// `None` when nothing was used.
    pub fn take_once(&self, now: Timestamp) -> Option<Standing> {
        let mut back = self.back.lock().unwrap_or_else(PoisonError::into_inner);
        let cells = || self.limits.iter().map(|limit| Cell::of(limit, now));
        if !cells().zip(&**back).all(|(cell, back)| cell.next(*back, 1).is_ok()) {
            return None;
        }
        let mut tightest: Option<(usize, i64, Duration)> = None;
        for (at, (cell, back)) in cells().zip(&mut **back).enumerate() {
            *back = cell.next(*back, 1).unwrap_or(*back);
            let (remaining, full_after) = cell.left(*back);
            if tightest.is_none_or(|(_, least, _)| remaining < least) {
                tightest = Some((at, remaining, full_after));
            }
        }
        drop(back);
        let (at, remaining, after) = tightest?;
        let limit = &self.limits[at];
        let (name, policy) = self.told.get_or_init(|| self.limits.iter().map(told).collect())[at].clone();
        Some(Standing { name, uses: limit.limit, period: limit.period, remaining, policy, after })
    }

    /// Uses every limit that `names` has (all of them when it has none) `cost` times, or none of them; answers whether it did,
    /// and how it stands with them.
    pub fn take(&self, names: &[String], cost: i64, now: Timestamp) -> (bool, Vec<LimitState>) {
        let mut back = self.back.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |limit: &RateLimit| names.is_empty() || names.contains(&limit.name);
        let asked: Vec<usize> = (0..self.limits.len()).filter(|&at| wanted(&self.limits[at])).collect();
        let admitted = asked.iter().all(|&at| Cell::of(&self.limits[at], now).next(back[at], cost).is_ok());
        let mut states = Vec::with_capacity(asked.len());
        for at in asked {
            let (limit, cell) = (&self.limits[at], Cell::of(&self.limits[at], now));
            let next = cell.next(back[at], cost);
            if let (true, Ok(next)) = (admitted, next) {
                back[at] = next;
            }
            states.push(cell.state(limit, back[at], next.err()));
        }
        (admitted, states)
    }
}

fn told(limit: &RateLimit) -> Told {
    (limit.name.as_str().into(), policy(&limit.name, limit.limit, limit.period.as_secs()))
}

/// A limit at a time, in ticks: microseconds times the number of uses.
struct Cell {
    now: i128,
    /// What one use costs.
    step: i128,
    /// What all of them cost together.
    whole: i128,
    limit: i128,
}

impl Cell {
    fn of(limit: &RateLimit, now: Timestamp) -> Self {
        let (uses, period) = (i128::from(limit.limit), limit.period.as_micros() as i128);
        Self { now: i128::from(now.micros()) * uses, step: period, whole: period * uses, limit: uses }
    }

    /// When all would be back after `cost` uses, or how long to wait for them, in ticks.
    fn next(&self, back: i128, cost: i64) -> Result<i128, i128> {
        let next = back.max(self.now) + self.step * i128::from(cost);
        let over = next - (self.now + self.whole);
        if over <= 0 { Ok(next) } else { Err(over) }
    }

    fn used(&self, back: i128) -> i128 {
        back.saturating_sub(self.now).clamp(0, self.whole)
    }

    fn time(&self, ticks: i128) -> Duration {
        let micros = (ticks + self.limit - 1) / self.limit;
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// How many uses are left, and when all are back.
    fn left(&self, back: i128) -> (i64, Duration) {
        let used = self.used(back);
        (i64::try_from((self.whole - used) / self.step).unwrap_or(0), self.time(used))
    }

    fn state(&self, limit: &RateLimit, back: i128, over: Option<i128>) -> LimitState {
        let (used, (remaining, full_after)) = (self.used(back), self.left(back));
        let retry_after = match over {
            None => Some(Duration::ZERO),
            // More than all of it is never there.
            Some(over) if over > used => None,
            Some(over) => Some(self.time(over)),
        };
        LimitState {
            name: limit.name.clone(),
            limit: limit.limit,
            period: limit.period,
            remaining,
            full_after,
            retry_after,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(name: &str, limit: i64, period: Duration) -> RateLimit {
        RateLimit { name: name.into(), limit, period }
    }

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(1_700_000_000_000_000 + micros as i64)
    }

    #[test]
    fn all_uses_may_be_used_at_once_and_come_back_evenly() {
        let limits = Limits::new(&[limit("a", 3, Duration::from_secs(3))], None);
        for left in [2, 1, 0] {
            let (admitted, states) = limits.take(&[], 1, at(0));
            assert!(admitted && states[0].remaining == left, "{states:?}");
        }
        let (admitted, states) = limits.take(&[], 1, at(0));
        assert!(!admitted);
        assert_eq!(states[0].retry_after, Some(Duration::from_secs(1)));
        assert_eq!(states[0].full_after, Duration::from_secs(3));
        assert!(!limits.take(&[], 1, at(999_999)).0 && limits.take(&[], 1, at(1_000_000)).0);
        let (admitted, states) = limits.take(&[], 4, at(1_000_000_000));
        assert!(!admitted && states[0].retry_after.is_none() && states[0].remaining == 3, "{states:?}");
        assert!(limits.take(&[], 0, at(1_000_000_000)).0, "to ask costs nothing");
    }

    #[test]
    fn one_limit_that_is_used_up_leaves_the_others_as_they_are() {
        let limits = [limit("few", 1, Duration::from_secs(60)), limit("many", 9, Duration::from_secs(60))];
        let both = Limits::new(&limits, None);
        assert!(both.take(&[], 1, at(0)).0);
        for _ in 0..5 {
            assert!(!both.take(&[], 1, at(0)).0);
        }
        let (admitted, states) = both.take(&["many".into()], 1, at(0));
        assert!(admitted && states.len() == 1 && states[0].remaining == 7, "{states:?}");
        let changed =
            Limits::new(&[limits[1].clone(), limit("few", 2, Duration::from_secs(60))], Some(&both));
        let (_, states) = changed.take(&[], 1, at(0));
        assert_eq!(
            (states[0].remaining, states[1].remaining),
            (6, 1),
            "what did not change is used up as before"
        );
    }

    proptest! {
        #[test]
        fn to_use_all_limits_once_is_what_it_is_one_by_one(
            bounds in prop::collection::vec((1..20i64, 1_000..5_000_000u64), 1..4),
            waits in prop::collection::vec(0..1_000_000u64, 1..100)
        ) {
            let bounds: Vec<_> = bounds
                .iter()
                .enumerate()
                .map(|(number, (uses, period))| limit(&number.to_string(), *uses, Duration::from_micros(*period)))
                .collect();
            let (one, other, mut now) = (Limits::new(&bounds, None), Limits::new(&bounds, None), 0);
            for wait in waits {
                now += wait;
                let (admitted, states) = one.take(&[], 1, at(now));
                let standing = other.take_once(at(now));
                prop_assert_eq!(standing.is_some(), admitted);
                if let Some(standing) = standing {
                    let tightest = states.iter().min_by_key(|state| state.remaining).unwrap();
                    prop_assert_eq!(&*standing.name, tightest.name.as_str());
                    prop_assert_eq!((standing.remaining, standing.after), (tightest.remaining, tightest.full_after));
                }
            }
        }

        #[test]
        fn never_more_than_the_limit_and_what_came_back(
            uses in 1..50i64, period in 1_000..10_000_000u64,
            calls in prop::collection::vec((0..2_000_000u64, 0..4i64), 1..300)
        ) {
            let limits = Limits::new(&[limit("a", uses, Duration::from_micros(period))], None);
            let (mut now, mut taken) = (0, Vec::new());
            for (wait, cost) in calls {
                now += wait;
                let (admitted, states) = limits.take(&[], cost, at(now));
                if admitted {
                    taken.push((now, cost));
                } else if let Some(wait) = states[0].retry_after {
                    // Exactly then, and not a microsecond earlier.
                    let wait = wait.as_micros() as u64;
                    prop_assert!(wait > 0);
                    prop_assert!(Cell::of(&limits.limits[0], at(now + wait - 1)).next(limits.back.lock().unwrap()[0], cost).is_err());
                    prop_assert!(Cell::of(&limits.limits[0], at(now + wait)).next(limits.back.lock().unwrap()[0], cost).is_ok());
                }
            }
            for from in 0..taken.len() {
                let mut sum = 0;
                for &(time, cost) in &taken[from..] {
                    sum += i128::from(cost);
                    let since = i128::from(time - taken[from].0);
                    let most = i128::from(uses) + i128::from(uses) * since / i128::from(period);
                    prop_assert!(sum <= most, "{} uses in {} µs", sum, since);
                }
            }
        }
    }
}
