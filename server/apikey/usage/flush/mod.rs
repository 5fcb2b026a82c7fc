//! Writing what was counted and logged.

pub(super) mod store;

use std::sync::Arc;

use self::store::{ActivityRow, DurationRow, LogEntryRow, NetworkRow, UsageRow};
use super::store::SPANS;
use super::tally::Counts;
use super::{Entry, Usage};
use crate::clock::Timestamp;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::id::Kind as IdKind;

const MINUTE: i64 = 60_000_000;

/// What is written together: the rows are made one by one, so that they need no memory beside what was counted.
struct Flush {
    counts: Vec<Counts>,
    /// With their ids.
    log: Vec<(String, Entry)>,
}

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
        let log = log.into_iter().map(|entry| (self.ids.next(IdKind::ApiKeyLog), entry)).collect();
        let flush = Arc::new(Flush { counts, log });
        let rows = Arc::clone(&flush);
        let written =
            db.transaction(move |conn| Box::pin(async move { store::write(conn, rows).await })).await;
        if written.is_err() {
            // The transaction is over, and nobody else has it.
            let Flush { counts, log } =
                Arc::try_unwrap(flush).map_err(|_| Error::internal("a transaction outlived itself"))?;
            self.tally.give_back(counts);
            self.dropped.fetch_add(log.len() as u64, std::sync::atomic::Ordering::Relaxed);
        }
        written
    }
}

impl Counts {
    fn started_at(&self) -> Timestamp {
        Timestamp::from_micros(self.minute * MINUTE)
    }
}

impl Flush {
    fn usage(&self) -> impl Iterator<Item = UsageRow<'_>> + Send {
        let span = SPANS[0];
        self.counts.iter().flat_map(move |one| {
            one.endpoints.iter().flat_map(move |counted| {
                let calls = counted.calls.iter().enumerate().filter(|(_, calls)| **calls > 0);
                calls.map(move |(class, &calls)| UsageRow {
                    key_id: &one.key_id,
                    span,
                    started_at: one.started_at(),
                    method: &counted.method,
                    endpoint: &counted.endpoint,
                    status_class: class as i16,
                    calls: signed(calls),
                })
            })
        })
    }

    fn durations(&self) -> impl Iterator<Item = DurationRow<'_>> + Send {
        let span = SPANS[0];
        self.counts.iter().flat_map(move |one| {
            one.durations.iter().map(move |&(bucket, calls)| DurationRow {
                key_id: &one.key_id,
                span,
                started_at: one.started_at(),
                bucket,
                calls: signed(calls),
            })
        })
    }

    fn networks(&self) -> impl Iterator<Item = NetworkRow<'_>> + Send {
        self.counts.iter().flat_map(|one| {
            one.networks.iter().map(move |network| NetworkRow {
                key_id: &one.key_id,
                network: network.to_string(),
                first_used_at: one.started_at(),
            })
        })
    }

    /// To the minute, so that a key in steady use is not written each second.  One row a key, the last of its minutes: PostgreSQL
    /// takes the same row only once in a statement.
    fn activity(&self) -> impl Iterator<Item = ActivityRow<'_>> + Send {
        let last =
            |at: usize, one: &Counts| self.counts.get(at + 1).is_none_or(|next| next.key_id != one.key_id);
        self.counts
            .iter()
            .enumerate()
            .filter(move |(at, one)| last(*at, one))
            .map(|(_, one)| ActivityRow { key_id: &one.key_id, last_used_at: one.started_at() })
    }

    fn logs(&self) -> impl Iterator<Item = LogEntryRow<'_>> + Send {
        self.log.iter().map(|(id, entry)| LogEntryRow {
            id,
            key_id: &entry.key_id,
            method: &entry.method,
            endpoint: &entry.path,
            status: i16::try_from(entry.status).unwrap_or(i16::MAX),
            code: entry.code,
            ip_address: entry.address.map(|address| address.to_string()).unwrap_or_default(),
            duration_micros: i64::try_from(entry.duration.as_micros()).unwrap_or(i64::MAX),
            created_at: entry.at,
        })
    }
}

fn signed(calls: u64) -> i64 {
    i64::try_from(calls).unwrap_or(i64::MAX)
}
