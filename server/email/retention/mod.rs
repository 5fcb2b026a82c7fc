//! Mails that have ended go when they are old, with everything that belongs to them: texts, files, recipients, what was
//! captured, attempts, activities.
//!
//! A file is kept once for all mails that have it, and goes with the last of them.

mod erase;
mod store;

pub use erase::EmailTraces;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::sweep::Swept;
use crate::delivery::Table;
use crate::delivery::retention::Ended;
use crate::error::Result;
use crate::id::Kind;

/// Mails that were queued, and have ended, before a time.
#[derive(Debug, Clone)]
pub struct Old(Ended);

impl Old {
    /// Those before this time.
    pub fn new(before: Timestamp) -> Self {
        Self(Ended::new(Table::EmailQueue, Kind::Email, before))
    }
}

impl Swept for Old {
    fn read<'a>(
        &'a self,
        conn: &'a mut Conn,
        after: &'a str,
        limit: i64,
    ) -> BoxFuture<'a, Result<Vec<(String, bool)>>> {
        self.0.find(conn, after, limit).boxed()
    }

    fn remove<'a>(&'a self, conn: &'a mut Conn, ids: &'a [String]) -> BoxFuture<'a, Result<usize>> {
        async move {
            let files = store::files(conn, ids).await?;
            let removed = self.0.take(conn, ids).await?;
            store::remove_activities(conn, &removed).await?;
            store::remove_unused(conn, files).await?;
            Ok(removed.len())
        }
        .boxed()
    }
}
