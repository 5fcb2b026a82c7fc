//! Statistics: how many requests went to an endpoint, how they ended and how long they took, without reading the log.
//!
//! The channel counts each request in memory ([`Tally`]); once a second what was counted is added to `webhook_stats` in one
//! transaction, so that a request costs no write of its own.  A crash may lose the counts of its last second; the log has
//! every attempt all the same.  Rows of minutes become rows of hours after a day ([`tidy`]), and end after 400 days.
//!
//! Durations are counted in ranges, each a tenth wider than the one before: a quantile is the end of the range that it
//! falls into.

mod store;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::service::WebhookService;
use crate::clock::Timestamp;
use crate::db::Db;
use crate::error::{Error, Result};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const KEPT: Duration = Duration::from_secs(400 * 24 * 60 * 60);
/// The end of the first range, in microseconds.
const SHORTEST: f64 = 100.0;
/// Each range ends so much later than the one before.
const WIDTH: f64 = 1.1;
/// The last range has no end; the one before it ends beyond the longest timeout.
const LAST_BUCKET: i16 = 140;
/// How many endpoints are answered.
const ENDPOINT_LIMIT: usize = 1_000;

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Cell {
    webhook_id: Arc<str>,
    started_at: Timestamp,
    succeeded: bool,
    bucket: i16,
}

/// How many, and how long together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    attempts: i64,
    micros: i64,
}

/// What was counted and is not written yet.
#[derive(Default)]
pub struct Tally(Mutex<HashMap<Cell, Count>>);

impl Tally {
    /// Counts a request that ended now.
    pub fn note(&self, webhook_id: &Arc<str>, succeeded: bool, duration: Duration, now: Timestamp) {
        let cell = Cell {
            webhook_id: Arc::clone(webhook_id),
            started_at: floor(now, MINUTE),
            succeeded,
            bucket: bucket(duration),
        };
        self.add(cell, Count { attempts: 1, micros: micros(duration) });
    }

    fn add(&self, cell: Cell, more: Count) {
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = cells.entry(cell).or_default();
        count.attempts += more.attempts;
        count.micros = count.micros.saturating_add(more.micros);
    }

    /// Writes what was counted.  What can not be written now is kept for the next time.
    ///
    /// # Errors
    /// When the database refuses it.
    pub async fn flush(&self, db: &Db) -> Result<()> {
        let taken = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if taken.is_empty() {
            return Ok(());
        }
        // In one order on every node, so that no two wait for each other.
        let mut rows: Vec<_> = taken.into_iter().collect();
        rows.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        let rows = Arc::new(rows);
        let written = Arc::clone(&rows);
        let done =
            db.transaction(move |conn| Box::pin(async move { store::add(conn, written, false).await })).await;
        if done.is_err() {
            for (cell, count) in rows.iter() {
                self.add(cell.clone(), *count);
            }
        }
        done
    }
}

/// Makes rows of hours of the minutes that are a day ago, and forgets what is too old.
pub async fn tidy(db: &Db, now: Timestamp) -> Result<()> {
    let cutoff = floor(before(now, DAY), HOUR);
    // A minute at a time: each is a short transaction.
    while let Some(minute) = store::first_minute(&mut db.reader().await?, cutoff).await? {
        db.transaction(move |conn| {
            Box::pin(async move { store::merge(conn, minute, floor(minute, HOUR)).await })
        })
        .await?;
    }
    let oldest = floor(before(now, KEPT), HOUR);
    db.transaction(move |conn| Box::pin(async move { store::forget(conn, oldest).await })).await
}

/// Requests over a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// The endpoint; empty for the sum of all.
    pub webhook_id: String,
    /// Those answered with 2xx.
    pub succeeded: i64,
    /// Those that failed.
    pub failed: i64,
    micros: i64,
    /// Requests by their range of durations.
    buckets: Vec<i64>,
}

impl Stats {
    fn add(&mut self, succeeded: bool, bucket: i16, count: Count) {
        *if succeeded { &mut self.succeeded } else { &mut self.failed } += count.attempts;
        self.micros = self.micros.saturating_add(count.micros);
        self.buckets.resize(LAST_BUCKET as usize + 1, 0);
        self.buckets[bucket.clamp(0, LAST_BUCKET) as usize] += count.attempts;
    }

    /// All of them.
    pub fn attempts(&self) -> i64 {
        self.succeeded + self.failed
    }

    /// The mean duration; zero when there were none.
    pub fn average(&self) -> Duration {
        let mean = self.micros.checked_div(self.attempts()).unwrap_or_default();
        Duration::from_micros(mean.unsigned_abs())
    }

    /// The duration within which this part of them was over; zero when there were none.
    pub fn quantile(&self, part: f64) -> Duration {
        let rank = (self.attempts() as f64 * part).ceil().max(1.0) as i64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros((SHORTEST * WIDTH.powi(bucket as i32)).ceil() as u64);
            }
        }
        Duration::ZERO
    }
}

impl WebhookService {
    /// The statistics of a time: of all endpoints together and, those with the most requests first, of each.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when the time ends before it starts, `NOT_FOUND` when there is no such endpoint.
    pub async fn stats(
        &self,
        webhook_id: &str,
        start: Option<Timestamp>,
        end: Option<Timestamp>,
    ) -> Result<(Stats, Vec<Stats>)> {
        let now = self.clock.now();
        let (start, end) = (start.unwrap_or(before(now, DAY)), end.unwrap_or(now));
        if start >= end {
            return Err(Error::field("end_time", "must be after start_time"));
        }
        let step = if start < before(now, DAY) { HOUR } else { MINUTE };
        if !webhook_id.is_empty() {
            self.get(webhook_id).await?;
        }
        // What this node counted a moment ago belongs to it.
        self.tally.flush(&self.db).await?;
        let rows = store::read(&mut self.db.reader().await?, webhook_id, floor(start, step), end).await?;
        let (mut total, mut by_endpoint) = (Stats::default(), HashMap::<String, Stats>::new());
        for row in rows {
            let count = Count { attempts: row.attempts, micros: row.duration_micros };
            total.add(row.succeeded, row.bucket, count);
            let one = by_endpoint.entry(row.webhook_id).or_default();
            one.add(row.succeeded, row.bucket, count);
        }
        let mut each: Vec<_> =
            by_endpoint.into_iter().map(|(webhook_id, stats)| Stats { webhook_id, ..stats }).collect();
        each.sort_by(|one, other| {
            other.attempts().cmp(&one.attempts()).then_with(|| one.webhook_id.cmp(&other.webhook_id))
        });
        each.truncate(ENDPOINT_LIMIT);
        Ok((total, each))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn bucket(duration: Duration) -> i16 {
    let steps = (duration.as_micros() as f64 / SHORTEST).log(WIDTH).ceil();
    steps.clamp(0.0, f64::from(LAST_BUCKET)) as i16
}

fn before(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_micros(time.micros().saturating_sub(micros(by)))
}

fn floor(time: Timestamp, step: Duration) -> Timestamp {
    let micros = time.micros();
    Timestamp::from_micros(micros - micros.rem_euclid(self::micros(step)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(durations: &[u64]) -> Stats {
        let mut stats = Stats::default();
        for &duration in durations {
            let duration = Duration::from_micros(duration);
            stats.add(true, bucket(duration), Count { attempts: 1, micros: micros(duration) });
        }
        stats
    }

    #[test]
    fn nothing_has_no_duration() {
        assert_eq!((of(&[]).average(), of(&[]).quantile(0.5)), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn the_longest_timeout_falls_into_a_range_with_an_end() {
        assert!(bucket(Duration::from_secs(30)) < LAST_BUCKET);
        assert_eq!(bucket(Duration::MAX), LAST_BUCKET);
        assert_eq!(bucket(Duration::ZERO), 0);
    }

    proptest! {
        #[test]
        fn a_quantile_is_at_most_a_tenth_above_the_true_value(
            mut durations in prop::collection::vec(100..30_000_000u64, 1..200), part in 0.01..1.0f64
        ) {
            let found = of(&durations).quantile(part).as_micros() as f64;
            durations.sort_unstable();
            let rank = (durations.len() as f64 * part).ceil().max(1.0) as usize;
            let exact = durations[rank - 1] as f64;
            prop_assert!(found >= exact && found <= exact * WIDTH + 1.0, "{found} for {exact}");
        }
    }
}
