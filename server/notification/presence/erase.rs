//! What is remembered of who was online, as it is erased with a user.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::store;
use crate::db::Conn;
use crate::error::Result;
use crate::event::{Belongings, Trace, topic};

/// What is remembered of a user, who is the subject `user:<id>`, or `<id>` as the events of presence have it.
///
/// Of somebody who is online at that moment the name goes; who they are goes two days after they have gone.
pub struct PresenceBelongings;

impl Belongings for PresenceBelongings {
    fn trace(&self) -> Trace {
        Trace::Presence
    }

    fn count<'a>(&'a self, conn: &'a mut Conn, subject: &'a str) -> BoxFuture<'a, Result<i64>> {
        store::count_of_user(conn, user_of(subject)).boxed()
    }

    fn erase<'a>(&'a self, conn: &'a mut Conn, subject: &'a str, _limit: i64) -> BoxFuture<'a, Result<i64>> {
        store::erase(conn, user_of(subject)).boxed()
    }
}

fn user_of(subject: &str) -> &str {
    topic::user(subject).unwrap_or(subject)
}
