//! Quantiles of many observations, and the middle of a few.

use std::time::Duration;

/// The time in milliseconds that this share of the observations did not exceed, by the nearest rank; 0 without any.
/// Exact: nothing is put into buckets.
pub fn quantile(times: &mut [Duration], share: f64) -> f64 {
    if times.is_empty() {
        return 0.0;
    }
    let rank = (share * times.len() as f64).ceil() as usize;
    let (_, at, _) = times.select_nth_unstable(rank.clamp(1, times.len()) - 1);
    at.as_secs_f64() * 1_000.0
}

/// The median, the least and the greatest of some values; zeros without any.
pub fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(&least), Some(&greatest)) = (sorted.first(), sorted.last()) else {
        return (0.0, 0.0, 0.0);
    };
    let half = sorted.len() / 2;
    let median =
        if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) };
    (median, least, greatest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_nearest_rank() {
        let mut times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile(&mut times, 0.5), 50.0);
        assert_eq!(quantile(&mut times, 0.99), 99.0);
        assert_eq!(quantile(&mut times[..1], 0.99), times[0].as_secs_f64() * 1_000.0);
        assert_eq!(quantile(&mut [], 0.5), 0.0);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), (2.0, 1.0, 3.0));
        assert_eq!(spread(&[4.0, 1.0]), (2.5, 1.0, 4.0));
    }
}
