//! Events go when they are old.
//!
//! An event stays while something needs it: a webhook delivery that has not ended, whose payload it is, or a mail that it
//! caused, which could not be found any more when its subject is to be erased.

mod store;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::partition::{Daily, Droppable, Partition, day_of};
use crate::db::sweep::Swept;
use crate::error::Result;
use crate::id::{self, Kind};

/// Events that were published before a time.
#[derive(Debug, Clone)]
pub struct Old {
    first_kept: String,
}

impl Old {
    /// Those before this time.
    pub fn new(before: Timestamp) -> Self {
        Self { first_kept: id::lower_bound(Kind::Event, before) }
    }

    /// Those of the days before the day of this time: what would go today would be missing in the partition that goes
    /// tomorrow.
    pub fn of_days(before: Timestamp) -> Self {
        Self::new(day_of(before))
    }
}

/// The events on PostgreSQL.
pub const DAILY: Daily = Daily { table: "events", column: "id", kind: Kind::Event };

impl Droppable for Old {
    fn daily(&self) -> Daily {
        DAILY
    }

    fn first_kept(&self) -> &str {
        &self.first_kept
    }

    fn may_go<'a>(&'a self, conn: &'a mut Conn, partition: &'a Partition) -> BoxFuture<'a, Result<bool>> {
        async move {
            if store::any_needed(conn, &partition.from, &partition.to).await? {
                return Ok(false);
            }
            if let Some(last) = store::last_position(conn, &partition.from, &partition.to).await? {
                super::log::move_start(conn, last).await?;
            }
            Ok(true)
        }
        .boxed()
    }
}

impl Swept for Old {
    fn read<'a>(
        &'a self,
        conn: &'a mut Conn,
        after: &'a str,
        limit: i64,
    ) -> BoxFuture<'a, Result<Vec<(String, bool)>>> {
        store::old(conn, after, &self.first_kept, limit).boxed()
    }

    fn remove<'a>(&'a self, conn: &'a mut Conn, ids: &'a [String]) -> BoxFuture<'a, Result<usize>> {
        async move {
            let positions = store::remove(conn, ids).await?;
            if let Some(last) = positions.iter().max() {
                super::log::move_start(conn, *last).await?;
            }
            Ok(positions.len())
        }
        .boxed()
    }
}
