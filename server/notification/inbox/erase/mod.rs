//! What inboxes hold of events and of users, as it is erased with them.

mod store;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::sync::Arc;

use super::herald::{Changed, Herald};
use super::retention::{remove_of_user, remove_rows};
use crate::db::Conn;
use crate::error::Result;
use crate::event::{Belongings, Trace, Traces, topic};

/// The notifications that events brought.
pub struct InboxTraces {
    /// Whose counts change.
    pub changed: Changed,
}

impl Traces for InboxTraces {
    fn trace(&self) -> Trace {
        Trace::Notifications
    }

    fn count<'a>(&'a self, conn: &'a mut Conn, event_ids: &'a [String]) -> BoxFuture<'a, Result<i64>> {
        store::count_of_events(conn, event_ids).boxed()
    }

    fn erase<'a>(
        &'a self,
        conn: &'a mut Conn,
        event_ids: &'a [String],
        limit: i64,
    ) -> BoxFuture<'a, Result<i64>> {
        async move {
            let rows = store::of_events(conn, event_ids, limit).await?;
            let mut erased = 0;
            for (user_id, ids) in store::by_user(&rows) {
                erased += remove_rows(conn, user_id, &ids).await? as i64;
                self.changed.note([user_id.to_owned()]);
            }
            if erased < limit {
                erased += store::remove_broadcasts(conn, event_ids, limit - erased).await?;
            }
            Ok(erased)
        }
        .boxed()
    }
}

/// All that is kept for the inbox of a user, who is the subject `user:<id>`.
pub struct UserBelongings {
    /// Whose counts change, by this and by [`InboxTraces`].
    pub changed: Changed,
    /// Tells them.
    pub herald: Arc<Herald>,
}

impl Belongings for UserBelongings {
    fn trace(&self) -> Trace {
        Trace::Notifications
    }

    fn count<'a>(&'a self, conn: &'a mut Conn, subject: &'a str) -> BoxFuture<'a, Result<i64>> {
        async move {
            match topic::user(subject) {
                Some(user_id) => store::count_of_user(conn, user_id, subject).await,
                None => Ok(0),
            }
        }
        .boxed()
    }

    fn erase<'a>(&'a self, conn: &'a mut Conn, subject: &'a str, limit: i64) -> BoxFuture<'a, Result<i64>> {
        async move {
            let Some(user_id) = topic::user(subject) else { return Ok(0) };
            let mut erased = remove_of_user(conn, user_id, limit).await?;
            if erased < limit {
                // The notifications are gone: the rest goes now.
                erased += remove_of_user(conn, user_id, limit).await?;
            }
            if erased > 0 {
                self.changed.note([user_id.to_owned()]);
            }
            Ok(erased)
        }
        .boxed()
    }

    fn erased(&self) {
        self.changed.tell(&self.herald);
    }
}
