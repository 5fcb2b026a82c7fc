//! Rows of longer spans in place of those of shorter ones, and the end of what is kept for a limited time.

use std::time::Duration;

use super::store::{self, SPANS};
use crate::clock::Timestamp;
use crate::db::Db;
use crate::error::Result;
use crate::id::{Kind as IdKind, lower_bound};

pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long rows of minutes are kept, and rows of hours.
pub(super) const MINUTES_KEPT: Duration = DAY;
pub(super) const HOURS_KEPT: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// How long usage is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Counts.
    pub counts: Duration,
    /// The log.
    pub log: Duration,
}

/// Makes rows of hours of the minutes that are a day ago, and of days of the hours that are a month ago, and forgets what is too
/// old.
pub(super) async fn tidy(db: &Db, now: Timestamp, kept: Kept) -> Result<()> {
    for (index, age, step) in [(0, MINUTES_KEPT, HOUR), (1, HOURS_KEPT, DAY)] {
        let cutoff = floor(now - age, step);
        // One time after the other: each is a short transaction.
        while let Some(at) = store::first(&mut db.reader().await?, SPANS[index], cutoff).await? {
            let start = floor(at, step);
            db.transaction(move |conn| {
                Box::pin(async move { store::merge(conn, SPANS[index], at, SPANS[index + 1], start).await })
            })
            .await?;
        }
    }
    let (counts, log) = (floor(now - kept.counts, DAY), lower_bound(IdKind::ApiKeyLog, now - kept.log));
    db.transaction(move |conn| Box::pin(async move { store::forget(conn, counts, log).await })).await
}

/// The beginning of the span that a time is in.
pub(super) fn floor(time: Timestamp, step: Duration) -> Timestamp {
    let (micros, step) = (time.micros(), i64::try_from(step.as_micros()).unwrap_or(i64::MAX));
    Timestamp::from_micros(micros - micros.rem_euclid(step))
}
