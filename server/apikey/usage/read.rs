//! Reading usage.

use std::collections::{BTreeMap, HashMap};

use super::durations::Durations;
use super::rollup::{DAY, HOUR, HOURS_KEPT, Kept, MINUTE, MINUTES_KEPT, floor, tidy};
pub use super::store::LogFilter;
use super::store::{self, LogRow};
use crate::apikey::service::ApiKeyService;
use crate::clock::Timestamp;
use crate::error::{Error, Result};

const ENDPOINTS: usize = 100;
const TOP_KEYS: usize = 20;

/// Which usage to read.
#[derive(Debug, Clone, Default)]
pub struct UsageWindow {
    /// Of this key; empty means of all.
    pub key_id: String,
    /// From; a day ago when unset.
    pub start: Option<Timestamp>,
    /// To; now when unset.
    pub end: Option<Timestamp>,
}

/// Calls, and how many of them failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyUsage {
    /// All of them.
    pub calls: i64,
    /// Those whose status was 400 or above.
    pub errors: i64,
}

impl KeyUsage {
    fn add(&mut self, class: i16, calls: i64) {
        self.calls += calls;
        self.errors += if class >= 4 { calls } else { 0 };
    }

    /// The part of the calls that failed; 0 when there were none.
    pub fn error_rate(&self) -> f64 {
        if self.calls == 0 { 0.0 } else { self.errors as f64 / self.calls as f64 }
    }
}

/// Calls of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointUsage {
    /// The method.
    pub method: String,
    /// The endpoint.
    pub endpoint: String,
    /// Its calls.
    pub usage: KeyUsage,
}

/// Calls with a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusUsage {
    /// The first digit of the HTTP status.
    pub class: i16,
    /// How many.
    pub calls: i64,
}

/// Calls of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopKey {
    /// The key.
    pub key_id: String,
    /// Its calls.
    pub usage: KeyUsage,
}

/// Usage over a time.
#[derive(Debug, Clone, Default)]
pub struct UsageReport {
    /// All together.
    pub total: KeyUsage,
    /// By endpoint, the most used first.
    pub endpoints: Vec<EndpointUsage>,
    /// By status.
    pub statuses: Vec<StatusUsage>,
    /// How long the calls took.
    pub durations: Durations,
    /// When the key was last used; unset for all keys.
    pub last_used_at: Option<Timestamp>,
    /// The keys with the most calls, when all were asked for.
    pub top_keys: Vec<TopKey>,
}

impl ApiKeyService {
    /// Usage over a time, of one key or of all.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when the time ends before it starts, `NOT_FOUND` when there is no such key.
    pub async fn usage_report(&self, window: &UsageWindow) -> Result<UsageReport> {
        let now = self.clock.now();
        let (start, end) = (window.start.unwrap_or(now - DAY), window.end.unwrap_or(now + MINUTE));
        if start >= end {
            return Err(Error::field("end_time", "must be after start_time"));
        }
        let key = if window.key_id.is_empty() { None } else { Some(self.get(&window.key_id).await?) };
        // What this node counted a moment ago belongs to it.
        self.usage.flush(&self.db).await?;
        let step = match () {
            () if start < now - HOURS_KEPT => DAY,
            () if start < now - MINUTES_KEPT => HOUR,
            () => MINUTE,
        };
        let start = floor(start, step);
        let mut conn = self.db.reader().await?;
        let mut report = UsageReport::default();
        let mut endpoints = BTreeMap::<(String, String), KeyUsage>::new();
        let mut statuses = BTreeMap::<i16, i64>::new();
        for sum in store::by_endpoint(&mut conn, &window.key_id, start, end).await? {
            report.total.add(sum.status_class, sum.calls);
            endpoints.entry((sum.method, sum.endpoint)).or_default().add(sum.status_class, sum.calls);
            *statuses.entry(sum.status_class).or_default() += sum.calls;
        }
        let one = |((method, endpoint), usage)| EndpointUsage { method, endpoint, usage };
        report.endpoints = endpoints.into_iter().map(one).collect();
        report.endpoints.sort_by_key(|endpoint| std::cmp::Reverse(endpoint.usage.calls));
        report.endpoints.truncate(ENDPOINTS);
        report.statuses = statuses.into_iter().map(|(class, calls)| StatusUsage { class, calls }).collect();
        for spread in store::spread(&mut conn, &window.key_id, start, end).await? {
            report.durations.add(spread.bucket, spread.calls);
        }
        match key {
            Some(key) => {
                drop(conn);
                let mut remarks = self.remarks(&[key]).await?;
                report.last_used_at = remarks.remove(&window.key_id).and_then(|remarks| remarks.last_used_at);
            }
            None => {
                let mut keys = HashMap::<String, KeyUsage>::new();
                for sum in store::by_key(&mut conn, TOP_KEYS, start, end).await? {
                    keys.entry(sum.key_id).or_default().add(sum.status_class, sum.calls);
                }
                report.top_keys = keys.into_iter().map(|(key_id, usage)| TopKey { key_id, usage }).collect();
                report.top_keys.sort_by(|one, other| {
                    (other.usage.calls, &one.key_id).cmp(&(one.usage.calls, &other.key_id))
                });
            }
        }
        Ok(report)
    }

    /// Puts old counts together, and forgets what is too old.
    ///
    /// # Errors
    /// When the database refuses it.
    pub async fn tidy_usage(&self) -> Result<()> {
        let policy = **self.policy.load();
        let kept = Kept { counts: DAY * policy.usage_days, log: DAY * policy.log_days };
        tidy(&self.db, self.clock.now(), kept).await
    }

    /// Uses before an id, newest first.
    pub async fn usage_log(
        &self,
        before: Option<&str>,
        filter: LogFilter<'_>,
        limit: i64,
    ) -> Result<Vec<LogRow>> {
        if !filter.key_id.is_empty() {
            self.get(filter.key_id).await?;
        }
        self.usage.flush(&self.db).await?;
        store::log(&mut self.db.reader().await?, before, filter, limit).await
    }
}
