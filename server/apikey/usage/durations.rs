//! Durations, counted in ranges, each a tenth wider than the one before: a quantile is the end of the range that it falls into.

use std::sync::LazyLock;
use std::time::Duration;

/// The end of the first range, in microseconds.
const SHORTEST: f64 = 10.0;
const WIDTH: f64 = 1.1;
/// The last range has no end; the one before it ends beyond ten minutes.
pub(super) const LAST: i16 = 190;

/// Calls by how long they took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Durations(Vec<i64>);

impl Durations {
    /// Adds calls of a range.
    pub(super) fn add(&mut self, bucket: i16, calls: i64) {
        self.0.resize(LAST as usize + 1, 0);
        self.0[bucket.clamp(0, LAST) as usize] += calls;
    }

    /// The time within which this part of the calls was over; zero when there were none.
    pub fn quantile(&self, part: f64) -> Duration {
        let all: i64 = self.0.iter().sum();
        let rank = (all as f64 * part).ceil().max(1.0) as i64;
        let mut seen = 0;
        for (bucket, calls) in self.0.iter().enumerate() {
            seen += calls;
            if seen >= rank {
                return Duration::from_micros((SHORTEST * WIDTH.powi(bucket as i32)).ceil() as u64);
            }
        }
        Duration::ZERO
    }
}

/// The ends of all ranges but the last, in microseconds.
static ENDS: LazyLock<[u64; LAST as usize]> =
    LazyLock::new(|| std::array::from_fn(|range| (SHORTEST * WIDTH.powi(range as i32)) as u64));

/// The range of a duration.
pub(super) fn bucket(duration: Duration) -> i16 {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    ENDS.partition_point(|end| *end < micros) as i16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_has_no_duration_and_ten_minutes_have_a_range() {
        assert_eq!(Durations::default().quantile(0.5), Duration::ZERO);
        assert!(bucket(Duration::from_secs(600)) < LAST && bucket(Duration::MAX) == LAST);
        assert_eq!(bucket(Duration::ZERO), 0);
    }

    proptest! {
        #[test]
        fn a_quantile_is_at_most_a_tenth_above_the_true_value(
            mut times in prop::collection::vec(10..600_000_000u64, 1..200), part in 0.01..1.0f64
        ) {
            let mut durations = Durations::default();
            for &time in &times {
                durations.add(bucket(Duration::from_micros(time)), 1);
            }
            let found = durations.quantile(part).as_micros() as f64;
            times.sort_unstable();
            let exact = times[(times.len() as f64 * part).ceil().max(1.0) as usize - 1] as f64;
            prop_assert!(found >= exact && found <= exact * WIDTH + 1.0, "{} for {}", found, exact);
        }
    }
}
