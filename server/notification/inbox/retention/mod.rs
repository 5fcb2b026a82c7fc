//! What goes from inboxes by itself: what is old, what has expired; and the recount that holds the counts to the rows.

mod store;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;

use super::herald::Changed;
use super::service::{InboxService, fact};
use super::word;
use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::sweep::Swept;
use crate::error::Result;
use crate::event::request::RequestKey;
use crate::event::{PublishWrite, topic};
use crate::id::Kind as IdKind;
pub(super) use store::{remove_of_user, remove_rows};

/// How many expired ones are taken out in one commit.
const BATCH: i64 = 500;
/// How many states of one broadcast go in one transaction.
const STATES: i64 = 1_000;

/// Notifications that came before a time.
#[derive(Clone)]
pub struct Old {
    /// The time.
    pub before: Timestamp,
    /// Whose counts change.
    pub changed: Changed,
}

impl Swept for Old {
    fn read<'a>(
        &'a self,
        conn: &'a mut Conn,
        _after: &'a str,
        limit: i64,
    ) -> BoxFuture<'a, Result<Vec<(String, bool)>>> {
        async move {
            // All of them may go, so that the oldest are always the next.
            let rows = store::old(conn, self.before, limit).await?;
            Ok(rows.into_iter().map(|row| (key(&row), true)).collect())
        }
        .boxed()
    }

    fn remove<'a>(&'a self, conn: &'a mut Conn, ids: &'a [String]) -> BoxFuture<'a, Result<usize>> {
        async move {
            let mut of_users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for (user_id, id) in ids.iter().filter_map(|key| key.split_once(' ')) {
                of_users.entry(user_id).or_default().push(id);
            }
            let mut removed = 0;
            for (user_id, ids) in &of_users {
                removed += remove_rows(conn, user_id, ids).await?;
            }
            self.changed.note(of_users.into_keys().map(str::to_owned));
            Ok(removed)
        }
        .boxed()
    }
}

/// A row, as the sweep knows it; ids of users have no spaces.
fn key((user_id, id): &(String, String)) -> String {
    format!("{user_id} {id}")
}

/// Broadcasts that came before a time, or were withdrawn, with what users did with them.
#[derive(Debug, Clone)]
pub struct OldBroadcasts {
    /// The time.
    pub before: Timestamp,
}

impl Swept for OldBroadcasts {
    fn read<'a>(
        &'a self,
        conn: &'a mut Conn,
        _after: &'a str,
        limit: i64,
    ) -> BoxFuture<'a, Result<Vec<(String, bool)>>> {
        async move {
            let ids = store::old_broadcasts(conn, self.before, limit).await?;
            Ok(ids.into_iter().map(|id| (id, true)).collect())
        }
        .boxed()
    }

    fn remove<'a>(&'a self, conn: &'a mut Conn, ids: &'a [String]) -> BoxFuture<'a, Result<usize>> {
        async move {
            let mut left = STATES;
            for id in ids {
                // What users did with it goes a part at a time: nobody is to see it as new meanwhile.
                store::hide_broadcast(conn, id, self.before).await?;
                left -= store::remove_states(conn, id, left).await?;
                if left <= 0 {
                    break;
                }
                left -= store::remove_broadcast(conn, id).await?;
            }
            // As long as anything was removed there may be more.
            Ok(usize::try_from(STATES - left).unwrap_or_default())
        }
        .boxed()
    }
}

/// All inboxes, to be counted again.
#[derive(Clone)]
pub struct Recount {
    /// Whose counts change.
    pub changed: Changed,
}

impl Swept for Recount {
    fn read<'a>(
        &'a self,
        conn: &'a mut Conn,
        after: &'a str,
        limit: i64,
    ) -> BoxFuture<'a, Result<Vec<(String, bool)>>> {
        async move {
            let users = store::wrong(conn, after, limit).await?;
            Ok(users)
        }
        .boxed()
    }

    fn remove<'a>(&'a self, conn: &'a mut Conn, ids: &'a [String]) -> BoxFuture<'a, Result<usize>> {
        async move {
            let mut users = ids.to_vec();
            users.sort_unstable();
            let mut corrected = 0;
            for user_id in &users {
                corrected += store::recount(conn, user_id).await?;
            }
            self.changed.note(users);
            Ok(corrected)
        }
        .boxed()
    }
}

impl InboxService {
    /// Takes out of the inboxes what has expired, with an event, so that devices take it out too; answers how many were
    /// found.  Nobody was shown it since.
    ///
    /// # Errors
    /// When the database refuses it.
    pub async fn expire(&self) -> Result<usize> {
        let now = self.clock.now();
        let mut conn = self.db.reader().await?;
        let expired = store::expired(&mut conn, now, BATCH).await?;
        drop(conn);
        if expired.is_empty() {
            return Ok(0);
        }
        let (mut facts, mut keys) = (Vec::new(), Vec::new());
        for (user_id, id, expires_at) in &expired {
            let subject = user_id.as_ref().map(|user_id| topic::of_user(user_id)).unwrap_or_default();
            let topic = if subject.is_empty() { topic::BROADCAST.to_owned() } else { subject.clone() };
            // All nodes look; one publishes.
            let what = format!("{id} of {topic} expired at {}", expires_at.micros());
            keys.push(RequestKey::new("server", &what, "expire", &[]));
            let data = word::withdrawn(id, "expired");
            facts.push(fact(self.ids.next(IdKind::Event), word::WITHDRAWN, topic, subject, data, now));
        }
        self.publishes.write(PublishWrite { facts, keys }).await??;
        Ok(expired.len())
    }
}
