//! The mails that events caused, as they are erased with them.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::store;
use crate::db::Conn;
use crate::delivery::{Table, retention};
use crate::error::Result;
use crate::event::{Trace, Traces};

const TABLE: Table = Table::EmailQueue;

/// The mails of events, with everything that belongs to them.
#[derive(Debug, Clone, Copy)]
pub struct EmailTraces;

impl Traces for EmailTraces {
    fn trace(&self) -> Trace {
        Trace::Emails
    }

    fn count<'a>(&'a self, conn: &'a mut Conn, event_ids: &'a [String]) -> BoxFuture<'a, Result<i64>> {
        retention::count_of_events(conn, TABLE, event_ids).boxed()
    }

    fn erase<'a>(
        &'a self,
        conn: &'a mut Conn,
        event_ids: &'a [String],
        limit: i64,
    ) -> BoxFuture<'a, Result<i64>> {
        async move {
            let ids = retention::of_events(conn, TABLE, event_ids, limit).await?;
            let files = store::files(conn, &ids).await?;
            retention::erase(conn, TABLE, &ids).await?;
            store::remove_activities(conn, &ids).await?;
            store::remove_unused(conn, files).await?;
            Ok(ids.len() as i64)
        }
        .boxed()
    }
}
