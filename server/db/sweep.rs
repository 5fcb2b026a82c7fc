//! Goes through a table from its oldest row on, and removes what may go, a little at a time.
//!
//! # How it stays cheap
//! * Rows are found by a range of the ids, in which the time stands in front: nothing is scanned but what is old.
//! * It remembers where it was.  Rows that must stay, a million of them, are looked at once a day and not in every round.
//! * One transaction takes a few milliseconds, whatever the machine: the number of rows follows how long the last one
//!   took.  Between two of them it rests, longer than it worked.
//! * On PostgreSQL one node at a time removes; the others find out and leave it to that one.

use std::time::Duration;

use diesel::sql_types::Bool;
use diesel::{QueryableByName, sql_query};
use diesel_async::RunQueryDsl;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{Conn, Db};
use crate::clock::{Stopwatch, Timestamp};
use crate::error::Result;

/// How many rows are looked at in one query.
const READ: i64 = 1_000;
/// How many such queries a round makes before others have their turn.
const READS: usize = 200;
/// The fewest and the most rows of one transaction.
const FEWEST: usize = 25;
const MOST: usize = 1_000;
/// A transaction that takes less than this has room for more rows, and one that takes more than the other had too many.
const SHORT: Duration = Duration::from_millis(3);
const LONG: Duration = Duration::from_millis(6);
/// How much longer than it worked it rests.
const REST: u32 = 2;
/// When it begins anew: what had to stay may have ended.
const ANEW: Duration = Duration::from_secs(24 * 60 * 60);
/// The key of the advisory lock, any number that nothing else uses.
const LOCK: i64 = 0x7377_6272_6403;

/// Rows that go when they are old enough.
pub trait Swept: Clone + Send + Sync + 'static {
    /// Up to `limit` old rows after the id `after`, in the order of their ids: each with whether it may go.
    fn read<'a>(
        &'a self,
        conn: &'a mut Conn,
        after: &'a str,
        limit: i64,
    ) -> BoxFuture<'a, Result<Vec<(String, bool)>>>;

    /// Removes those of these rows that may still go, with all that belongs to them; answers how many.
    fn remove<'a>(&'a self, conn: &'a mut Conn, ids: &'a [String]) -> BoxFuture<'a, Result<usize>>;
}

/// What came of a round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    /// How many rows were removed.
    pub removed: usize,
    /// Whether there is more to look at now.
    pub more: bool,
}

/// How far a table was gone through.
#[derive(Debug)]
pub struct Sweep {
    after: String,
    begun: Option<Timestamp>,
    batch: usize,
}

impl Default for Sweep {
    fn default() -> Self {
        Self { after: String::new(), begun: None, batch: 4 * FEWEST }
    }
}

impl Sweep {
    /// Goes on from where it was, until nothing old is left, or it is time for others.
    ///
    /// # Errors
    /// When the database refuses; the next round goes on from the same place.
    pub async fn round<W: Swept>(
        &mut self,
        db: &Db,
        what: &W,
        now: Timestamp,
        stop: &CancellationToken,
    ) -> Result<Round> {
        if self.begun.is_none_or(|begun| now.since(begun) >= ANEW) {
            (self.begun, self.after) = (Some(now), String::new());
        }
        let mut removed = 0;
        for _ in 0..READS {
            let rows = what.read(&mut db.reader().await?, &self.after, READ).await?;
            let Some((last, _)) = rows.last().cloned() else { return Ok(Round { removed, more: false }) };
            let full = rows.len() as i64 == READ;
            let mut ids: Vec<String> =
                rows.into_iter().filter(|(_, may_go)| *may_go).map(|(id, _)| id).collect();
            while !ids.is_empty() {
                let rest = ids.split_off(self.batch.min(ids.len()));
                let Some((count, took)) = remove(db, what.clone(), ids).await? else {
                    // Another node is at it.
                    return Ok(Round { removed, more: false });
                };
                removed += count;
                self.fit(took);
                ids = rest;
                if tokio::time::timeout(REST * took, stop.cancelled()).await.is_ok() {
                    return Ok(Round { removed, more: false });
                }
            }
            self.after = last;
            if !full {
                return Ok(Round { removed, more: false });
            }
        }
        Ok(Round { removed, more: true })
    }

    /// Fits the number of rows to how long they took.
    fn fit(&mut self, took: Duration) {
        if took < SHORT {
            self.batch = (self.batch * 2).min(MOST);
        } else if took > LONG {
            self.batch = (self.batch / 2).max(FEWEST);
        }
    }
}

/// Removes rows; answers how many, and how long the database was kept busy.  `None` when another node is at it.
async fn remove<W: Swept>(db: &Db, what: W, ids: Vec<String>) -> Result<Option<(usize, Duration)>> {
    db.transaction(move |conn| {
        Box::pin(async move {
            if !only_one(conn).await? {
                return Ok(None);
            }
            let stopwatch = Stopwatch::start();
            let count = what.remove(conn, &ids).await?;
            Ok(Some((count, stopwatch.elapsed())))
        })
    })
    .await
}

#[derive(QueryableByName)]
struct Granted {
    #[diesel(sql_type = Bool)]
    granted: bool,
}

/// Whether no other node removes anything, until the transaction ends.  SQLite has one node.
pub(super) async fn only_one(conn: &mut Conn) -> Result<bool> {
    let Conn::Postgres(c) = conn else { return Ok(true) };
    let lock = sql_query(format!("SELECT pg_try_advisory_xact_lock({LOCK}) AS granted"));
    let row: Granted = lock.get_result(&mut ***c).await?;
    Ok(row.granted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_rows_follows_the_time_that_they_take() {
        let mut sweep = Sweep::default();
        for _ in 0..20 {
            sweep.fit(Duration::from_millis(1));
        }
        assert_eq!(sweep.batch, MOST);
        sweep.fit(Duration::from_millis(4));
        assert_eq!(sweep.batch, MOST, "neither short nor long");
        for _ in 0..20 {
            sweep.fit(Duration::from_millis(100));
        }
        assert_eq!(sweep.batch, FEWEST);
    }
}
