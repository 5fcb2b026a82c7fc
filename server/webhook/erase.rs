//! What endpoints were sent of events, as it is erased with them.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::db::Conn;
use crate::delivery::{Table, retention};
use crate::error::Result;
use crate::event::{Trace, Traces};

const TABLE: Table = Table::WebhookDeliveries;

/// The deliveries of events, with their attempts.
#[derive(Debug, Clone, Copy)]
pub struct WebhookTraces;

impl Traces for WebhookTraces {
    fn trace(&self) -> Trace {
        Trace::Deliveries
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
            retention::erase(conn, TABLE, &ids).await?;
            Ok(ids.len() as i64)
        }
        .boxed()
    }
}
