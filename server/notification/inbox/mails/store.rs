//! The queries of mails for what was not seen.

use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;

use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::schema::{notification_mails as m, notifications as n};
use crate::db::statement::{Bind, Statement};
use crate::error::Result;
use crate::on;

/// A mail that is due.
#[derive(Debug, QueryableByName)]
pub(super) struct DueRow {
    #[diesel(sql_type = Text)]
    pub user_id: String,
    #[diesel(sql_type = Text)]
    pub notification_id: String,
    #[diesel(sql_type = Text)]
    pub email_address: String,
}

/// A notification that was not seen.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = n)]
pub(super) struct Unseen {
    pub event_id: String,
    pub category: String,
    pub title: String,
    pub message: String,
    pub priority: i16,
    pub action_url: String,
    pub created_at: Timestamp,
}

/// Whether a mail is due.
pub(super) async fn any_due(conn: &mut Conn, now: Timestamp) -> Result<bool> {
    let query = m::table.filter(m::due_at.le(now)).select(m::user_id).limit(1);
    Ok(on!(conn, |c| query.first::<String>(c).await.optional())?.is_some())
}

/// Takes up to `limit` that are due, and that no other node has in hand.
pub(super) async fn take_due(conn: &mut Conn, now: Timestamp, limit: i64) -> Result<Vec<DueRow>> {
    let skip = if matches!(conn, Conn::Postgres(_)) { "FOR UPDATE SKIP LOCKED" } else { "" };
    let sql = format!(
        "DELETE FROM notification_mails WHERE (user_id, notification_id) IN (
             SELECT user_id, notification_id FROM notification_mails WHERE due_at <= ?
             ORDER BY due_at LIMIT ? {skip})
         RETURNING user_id, notification_id, email_address"
    );
    let statement = Statement::new(&sql, vec![Bind::Instant(now), Bind::BigInt(limit)]);
    Ok(on!(conn, |c| statement.load(c).await)?)
}

/// A notification that is in the inbox and was not seen.
pub(super) async fn unseen(
    conn: &mut Conn,
    user_id: &str,
    id: &str,
    now: Timestamp,
) -> Result<Option<Unseen>> {
    Ok(on!(conn, |c| n::table
        .find((user_id, id))
        .filter(n::seen_at.is_null())
        .filter(n::archived_at.is_null())
        .filter(n::expires_at.is_null().or(n::expires_at.gt(now)))
        .select(Unseen::as_select())
        .first(c)
        .await
        .optional())?)
}
