//! Deliveries that have ended go when they are old, with their attempts.

mod store;

pub use store::{count_of_events, erase, of_events};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::model::{State, Table};
use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::partition::{Daily, Droppable, Partition, day_of, finds};
use crate::db::sweep::Swept;
use crate::error::Result;
use crate::id::{self, Kind};

/// Deliveries that were made, and have ended, before a time.
#[derive(Debug, Clone)]
pub struct Ended {
    table: Table,
    before: Timestamp,
    first_kept: String,
}

impl Ended {
    /// Those of this table, whose ids are of this kind.
    pub fn new(table: Table, kind: Kind, before: Timestamp) -> Self {
        Self { table, before, first_kept: id::lower_bound(kind, before) }
    }

    /// Whether one in this state, unchanged since then, may go.
    fn may_go(&self, status: &str, updated_at: Timestamp) -> bool {
        updated_at < self.before && State::of_word(status, self.table).is_some_and(State::is_final)
    }

    /// Up to `limit` old deliveries after the id `after`: each with whether it may go.
    pub async fn find(&self, conn: &mut Conn, after: &str, limit: i64) -> Result<Vec<(String, bool)>> {
        let rows = store::old(conn, self.table, after, &self.first_kept, limit).await?;
        Ok(rows.into_iter().map(|(id, status, at)| (id, self.may_go(&status, at))).collect())
    }

    /// Removes those of these deliveries that may still go, with their attempts, if those do not go by the day; answers
    /// their ids.
    pub async fn take(&self, conn: &mut Conn, ids: &[String]) -> Result<Vec<String>> {
        let removed = store::remove_ended(conn, self.table, ids, self.before).await?;
        let by_day = self.table == Table::WebhookDeliveries && matches!(conn, Conn::Postgres(_));
        if !by_day {
            store::remove_attempts(conn, &removed).await?;
        }
        Ok(removed)
    }
}

/// For tables to whose rows nothing else belongs.
impl Swept for Ended {
    fn read<'a>(
        &'a self,
        conn: &'a mut Conn,
        after: &'a str,
        limit: i64,
    ) -> BoxFuture<'a, Result<Vec<(String, bool)>>> {
        self.find(conn, after, limit).boxed()
    }

    fn remove<'a>(&'a self, conn: &'a mut Conn, ids: &'a [String]) -> BoxFuture<'a, Result<usize>> {
        async move { Ok(self.take(conn, ids).await?.len()) }.boxed()
    }
}

/// The attempts of webhook deliveries, on PostgreSQL.
pub const DAILY: Daily =
    Daily { table: "delivery_attempts", column: "delivery_id", kind: Kind::WebhookDelivery };

/// Attempts of webhook deliveries that are gone, on PostgreSQL: a day goes at once when none of its deliveries is left.
/// Of a day that has some left, and where there is no partition for the day, they go one by one.
#[derive(Debug, Clone)]
pub struct Orphans {
    first_kept: String,
}

impl Orphans {
    /// Those of the days before the day of this time.
    pub fn new(before: Timestamp) -> Self {
        Self { first_kept: id::lower_bound(Kind::WebhookDelivery, day_of(before)) }
    }
}

impl Droppable for Orphans {
    fn daily(&self) -> Daily {
        DAILY
    }

    fn first_kept(&self) -> &str {
        &self.first_kept
    }

    fn may_go<'a>(&'a self, conn: &'a mut Conn, partition: &'a Partition) -> BoxFuture<'a, Result<bool>> {
        async move {
            let Partition { from, to, .. } = partition;
            let left = format!("SELECT 1 FROM webhook_deliveries WHERE id >= '{from}' AND id < '{to}'");
            Ok(!finds(conn, &left).await?)
        }
        .boxed()
    }
}

impl Swept for Orphans {
    fn read<'a>(
        &'a self,
        conn: &'a mut Conn,
        after: &'a str,
        limit: i64,
    ) -> BoxFuture<'a, Result<Vec<(String, bool)>>> {
        store::attempted(conn, after, &self.first_kept, limit).boxed()
    }

    fn remove<'a>(&'a self, conn: &'a mut Conn, ids: &'a [String]) -> BoxFuture<'a, Result<usize>> {
        // Their deliveries are gone, and ids do not come back.
        async move { store::remove_attempts(conn, ids).await.map(|()| ids.len()) }.boxed()
    }
}
