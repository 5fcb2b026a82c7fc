//! Writing what was counted and logged.

use serde_json::json;

use super::store::{self, Rows, SPANS};
use super::tally::{Cell, Counts};
use super::{Call, Usage};
use crate::db::Db;
use crate::error::Result;
use crate::id::Kind as IdKind;

const MINUTE: i64 = 60_000_000;

impl Usage {
    /// Writes what was counted and logged, in one transaction.  Counts that can not be written now are kept for the next time;
    /// log entries are not, so that the log takes no memory when the database is away.
    ///
    /// # Errors
    /// When the database refuses it.
    pub async fn flush(&self, db: &Db) -> Result<()> {
        let _flushing = self.flushing.lock().await;
        let (counts, log) = self.tally.take();
        if counts.is_empty() && log.is_empty() {
            return Ok(());
        }
        let mut rows = rows(&counts);
        rows.logs = log.iter().map(|call| self.entry(call)).collect();
        let written =
            db.transaction(move |conn| Box::pin(async move { store::write(conn, rows).await })).await;
        if written.is_err() {
            self.tally.give_back(counts);
            self.dropped.fetch_add(log.len() as u64, std::sync::atomic::Ordering::Relaxed);
        }
        written
    }

    fn entry(&self, call: &Call) -> serde_json::Value {
        json!({
            "id": self.ids.next(IdKind::ApiKeyLog),
            "key_id": &*call.key_id,
            "method": call.method,
            "endpoint": super::endpoint::without_query(&call.path),
            "status": call.status,
            "code": call.code,
            "ip_address": call.address.map(|address| address.to_string()).unwrap_or_default(),
            "duration_micros": i64::try_from(call.duration.as_micros()).unwrap_or(i64::MAX),
            "created_at": call.at.micros(),
        })
    }
}

fn rows(counts: &[(Cell, Counts)]) -> Rows {
    let mut rows = Rows::default();
    for ((key_id, minute), counts) in counts {
        let started_at = minute * MINUTE;
        for ((method, endpoint), calls) in &counts.endpoints {
            for (class, calls) in calls.iter().enumerate().filter(|(_, calls)| **calls > 0) {
                rows.usage.push(json!({
                    "key_id": &**key_id, "span": SPANS[0], "started_at": started_at, "method": method,
                    "endpoint": endpoint, "status_class": class, "calls": calls,
                }));
            }
        }
        for (bucket, calls) in &counts.durations {
            rows.durations.push(json!({
                "key_id": &**key_id, "span": SPANS[0], "started_at": started_at, "bucket": bucket, "calls": calls,
            }));
        }
        for network in &counts.networks {
            // The same minute on every node, and the same row only once in a statement.
            rows.networks
                .push(json!({ "key_id": &**key_id, "network": network, "first_used_at": started_at }));
        }
        // To the minute, so that a key in steady use is not written each second.  One row a key: the last of its minutes.
        let used = json!({ "key_id": &**key_id, "last_used_at": started_at });
        match rows.activity.last_mut() {
            Some(before) if before["key_id"] == **key_id => *before = used,
            _ => rows.activity.push(used),
        }
    }
    rows
}
