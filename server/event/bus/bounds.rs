//! Where the log begins and ends, read once for all who ask at a time.
//!
//! Each who comes back has to know it as it is after they asked: a place that was good a moment ago may be gone.  Many come
//! back together, and one read that begins after all of them asked answers all of them.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::db::Db;
use crate::error::Result;
use crate::event::log;

/// Where the log begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Tells this database from every other.
    pub epoch: i64,
    /// What stands there or before it may have been removed for its age.
    pub start: i64,
    /// The position of the last event.
    pub head: i64,
}

/// Reads the bounds, never twice at a time.
pub(super) struct Shared {
    db: Db,
    /// How many reads have begun.
    begun: AtomicU64,
    /// What was read last, and the number of that read.
    last: Mutex<Option<(u64, Bounds)>>,
}

impl Shared {
    pub fn new(db: Db) -> Self {
        Self { db, begun: AtomicU64::new(0), last: Mutex::new(None) }
    }

    pub async fn read(&self) -> Result<Bounds> {
        let asked = self.begun.load(Ordering::SeqCst);
        // Held while it is read; whoever waits has asked before the next read begins.
        let mut last = self.last.lock().await;
        if let Some((number, bounds)) = *last
            && number >= asked
        {
            return Ok(bounds);
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst);
        let mut conn = self.db.reader().await?;
        // The beginning first: by the time of the end it may only have moved on, as it may right after.
        let start = log::start(&mut conn).await?;
        let (epoch, head) = log::head(&mut conn).await?;
        let bounds = Bounds { epoch, start, head };
        *last = Some((number, bounds));
        Ok(bounds)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::db::Target;

    #[tokio::test]
    async fn who_asks_at_a_time_shares_a_read_and_who_asks_later_gets_another() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&Target::Sqlite(folder.path().join("test.db"))).await.unwrap();
        db.migrate().await.unwrap();
        log::create(&db, 7).await.unwrap();
        let shared = Shared::new(db.clone());
        let first = shared.read().await.unwrap();
        assert_eq!(first, Bounds { epoch: 7, start: 0, head: 0 });
        // A read that is under way: it began before the hundred asked, and answers none of them.
        let under_way = shared.last.lock().await;
        let mut all = pin!(futures_util::future::join_all((0..100).map(|_| shared.read())));
        assert!(futures_util::poll!(&mut all).is_pending());
        drop(under_way);
        assert!(all.await.into_iter().all(|bounds| bounds.unwrap() == first));
        assert_eq!(shared.begun.load(Ordering::SeqCst), 2);
        db.transaction(|conn| Box::pin(async move { log::move_start(conn, 5).await })).await.unwrap();
        assert_eq!(shared.read().await.unwrap().start, 5);
    }
}
