//! The queries that take what is old, and count again.

use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use diesel_async::RunQueryDsl;

use super::super::preferences::hold;
use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::revision;
use crate::db::schema::{
    broadcast_states as s, broadcasts as b, inboxes, notification_addresses, notification_mails,
    notification_preferences, notifications as n,
};
use crate::db::statement::{Bind, Statement};
use crate::error::Result;
use crate::on;

/// Up to `limit` notifications that came before a time, the oldest first: user and id.
pub(super) async fn old(conn: &mut Conn, before: Timestamp, limit: i64) -> Result<Vec<(String, String)>> {
    let query = n::table
        .filter(n::created_at.lt(before))
        .order(n::created_at)
        .limit(limit)
        .select((n::user_id, n::id));
    Ok(on!(conn, |c| query.load(c).await)?)
}

/// What the counts of an inbox are when they are counted.
macro_rules! counted {
    () => {
        "unread = (SELECT count(*) FROM notifications n WHERE n.user_id = inboxes.user_id
                AND n.read_at IS NULL AND n.archived_at IS NULL),
         unseen = (SELECT count(*) FROM notifications n WHERE n.user_id = inboxes.user_id
                AND n.seen_at IS NULL AND n.archived_at IS NULL),
         total = (SELECT count(*) FROM notifications n WHERE n.user_id = inboxes.user_id)"
    };
}

/// Removes notifications of one inbox; answers how many there were.
pub(in crate::notification::inbox) async fn remove_rows(
    conn: &mut Conn,
    user_id: &str,
    ids: &[&str],
) -> Result<usize> {
    hold(conn, user_id).await?;
    let delete = diesel::delete(n::table.filter(n::user_id.eq(user_id)).filter(n::id.eq_any(ids)));
    let removed = on!(conn, |c| delete.execute(c).await)?;
    count(conn, user_id).await?;
    Ok(removed)
}

async fn count(conn: &mut Conn, user_id: &str) -> Result<()> {
    let sql = concat!("UPDATE inboxes SET ", counted!(), ", version = version + 1 WHERE user_id = ?");
    let statement = Statement::new(sql, vec![Bind::Text(user_id)]);
    on!(conn, |c| statement.execute(c).await)?;
    Ok(())
}

#[derive(QueryableByName)]
struct Checked {
    #[diesel(sql_type = Text)]
    user_id: String,
    #[diesel(sql_type = Bool)]
    wrong: bool,
}

/// Up to `limit` inboxes after a user, each with whether its counts are not those of its rows.
pub(super) async fn wrong(conn: &mut Conn, after: &str, limit: i64) -> Result<Vec<(String, bool)>> {
    let sql = "SELECT i.user_id, NOT (
            i.unread = (SELECT count(*) FROM notifications n WHERE n.user_id = i.user_id
                AND n.read_at IS NULL AND n.archived_at IS NULL)
            AND i.unseen = (SELECT count(*) FROM notifications n WHERE n.user_id = i.user_id
                AND n.seen_at IS NULL AND n.archived_at IS NULL)
            AND i.total = (SELECT count(*) FROM notifications n WHERE n.user_id = i.user_id)) AS wrong
        FROM inboxes i WHERE i.user_id > ? ORDER BY i.user_id LIMIT ?";
    let statement = Statement::new(sql, vec![Bind::Text(after), Bind::BigInt(limit)]);
    let rows: Vec<Checked> = on!(conn, |c| statement.load(c).await)?;
    Ok(rows.into_iter().map(|row| (row.user_id, row.wrong)).collect())
}

/// Counts an inbox again.
pub(super) async fn recount(conn: &mut Conn, user_id: &str) -> Result<usize> {
    hold(conn, user_id).await?;
    count(conn, user_id).await?;
    Ok(1)
}

/// Up to `limit` broadcasts that came before a time or are in no inbox any more.
pub(super) async fn old_broadcasts(conn: &mut Conn, before: Timestamp, limit: i64) -> Result<Vec<String>> {
    let query = b::table
        .filter(b::created_at.lt(before).or(b::withdrawn_at.is_not_null()))
        .order(b::position)
        .limit(limit)
        .select(b::id);
    Ok(on!(conn, |c| query.load(c).await)?)
}

/// Removes up to `limit` states of a broadcast; answers how many there were.
pub(super) async fn remove_states(conn: &mut Conn, id: &str, limit: i64) -> Result<i64> {
    let some = s::table.filter(s::broadcast_id.eq(id)).order(s::user_id).limit(limit).select(s::user_id);
    let users: Vec<String> = on!(conn, |c| some.load(c).await)?;
    let delete = diesel::delete(s::table.filter(s::broadcast_id.eq(id)).filter(s::user_id.eq_any(users)));
    Ok(on!(conn, |c| delete.execute(c).await)? as i64)
}

/// Takes a broadcast out of the inboxes, if it is in them still.
pub(super) async fn hide_broadcast(conn: &mut Conn, id: &str, at: Timestamp) -> Result<()> {
    let update =
        diesel::update(b::table.find(id)).filter(b::withdrawn_at.is_null()).set(b::withdrawn_at.eq(at));
    if on!(conn, |c| update.execute(c).await)? > 0 {
        revision::bump(conn, revision::BROADCASTS).await?;
    }
    Ok(())
}

/// Removes a broadcast that is in no inbox; answers how many there were.
pub(super) async fn remove_broadcast(conn: &mut Conn, id: &str) -> Result<i64> {
    Ok(on!(conn, |c| diesel::delete(b::table.find(id)).execute(c).await)? as i64)
}

/// Up to `limit` notifications that have expired: whose, which, and when; those of nobody are broadcasts.
pub(super) async fn expired(
    conn: &mut Conn,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<(Option<String>, String, Timestamp)>> {
    let query = n::table.filter(n::expires_at.le(now)).order(n::expires_at).limit(limit).select((
        n::user_id,
        n::id,
        n::expires_at,
    ));
    let own: Vec<(String, String, Option<Timestamp>)> = on!(conn, |c| query.load(c).await)?;
    let query = b::table
        .filter(b::expires_at.le(now))
        .filter(b::withdrawn_at.is_null())
        .order(b::expires_at)
        .limit(limit - own.len() as i64)
        .select((b::id, b::expires_at));
    let broadcasts: Vec<(String, Option<Timestamp>)> = on!(conn, |c| query.load(c).await)?;
    let own = own.into_iter().filter_map(|(user_id, id, at)| Some((Some(user_id), id, at?)));
    Ok(own.chain(broadcasts.into_iter().filter_map(|(id, at)| Some((None, id, at?)))).collect())
}

/// Removes up to `limit` of what is kept for a user's inbox; answers how many notifications there were, or fewer than
/// `limit` when nothing of anything is left.
pub(in crate::notification::inbox) async fn remove_of_user(
    conn: &mut Conn,
    user_id: &str,
    limit: i64,
) -> Result<i64> {
    let some = n::table.filter(n::user_id.eq(user_id)).limit(limit).select(n::id);
    let ids: Vec<String> = on!(conn, |c| some.load(c).await)?;
    if !ids.is_empty() {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        return Ok(remove_rows(conn, user_id, &ids).await? as i64);
    }
    // The rest is bounded by what one user can have.
    let states = diesel::delete(s::table.filter(s::user_id.eq(user_id)));
    on!(conn, |c| states.execute(c).await)?;
    let mails = diesel::delete(notification_mails::table.filter(notification_mails::user_id.eq(user_id)));
    on!(conn, |c| mails.execute(c).await)?;
    let wishes = notification_preferences::table.filter(notification_preferences::user_id.eq(user_id));
    on!(conn, |c| diesel::delete(wishes).execute(c).await)?;
    on!(conn, |c| diesel::delete(notification_addresses::table.find(user_id)).execute(c).await)?;
    on!(conn, |c| diesel::delete(inboxes::table.find(user_id)).execute(c).await)?;
    Ok(0)
}
