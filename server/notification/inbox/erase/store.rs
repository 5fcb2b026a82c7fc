//! The queries of what is erased.

use std::collections::BTreeMap;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::db::schema::{broadcast_states as s, broadcasts as b, events as e, notifications as n};
use crate::db::{Conn, revision};
use crate::error::Result;
use crate::on;

/// How many notifications these events brought.
pub(super) async fn count_of_events(conn: &mut Conn, event_ids: &[String]) -> Result<i64> {
    let own = n::table.filter(n::event_id.eq_any(event_ids)).count();
    let own: i64 = on!(conn, |c| own.get_result(c).await)?;
    let broadcasts = b::table.filter(b::event_id.eq_any(event_ids)).count();
    let broadcasts: i64 = on!(conn, |c| broadcasts.get_result(c).await)?;
    Ok(own + broadcasts)
}

/// Up to `limit` notifications that these events brought: user and id.
pub(super) async fn of_events(
    conn: &mut Conn,
    event_ids: &[String],
    limit: i64,
) -> Result<Vec<(String, String)>> {
    let query = n::table.filter(n::event_id.eq_any(event_ids)).limit(limit).select((n::user_id, n::id));
    Ok(on!(conn, |c| query.load(c).await)?)
}

/// The ids of each user, in the order of the users.
pub(super) fn by_user(rows: &[(String, String)]) -> BTreeMap<&str, Vec<&str>> {
    let mut of_users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (user_id, id) in rows {
        of_users.entry(user_id).or_default().push(id);
    }
    of_users
}

/// Removes up to `limit` broadcasts of these events, with what users did with them; answers how many there were.
pub(super) async fn remove_broadcasts(conn: &mut Conn, event_ids: &[String], limit: i64) -> Result<i64> {
    let query = b::table.filter(b::event_id.eq_any(event_ids)).limit(limit).select(b::id);
    let ids: Vec<String> = on!(conn, |c| query.load(c).await)?;
    if ids.is_empty() {
        return Ok(0);
    }
    let states = diesel::delete(s::table.filter(s::broadcast_id.eq_any(&ids)));
    on!(conn, |c| states.execute(c).await)?;
    let delete = diesel::delete(b::table.filter(b::id.eq_any(&ids)));
    let removed = on!(conn, |c| delete.execute(c).await)?;
    revision::bump(conn, revision::BROADCASTS).await?;
    Ok(removed as i64)
}

/// How many notifications a user has that no event of this subject brought.
pub(super) async fn count_of_user(conn: &mut Conn, user_id: &str, subject: &str) -> Result<i64> {
    let of_subject = diesel::dsl::exists(
        e::table.filter(e::id.eq(n::event_id)).filter(e::subject.eq(subject)).filter(e::subject.ne("")),
    );
    let query = n::table.filter(n::user_id.eq(user_id)).filter(diesel::dsl::not(of_subject)).count();
    Ok(on!(conn, |c| query.get_result(c).await)?)
}
