//! The queries of activities.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{Activity, ActivityKind, NewActivity};
use crate::clock::Timestamp;
use crate::db::schema::email_activities;
use crate::db::statement::{Bind, Statement};
use crate::db::{Conn, PostgresWriter, QueryResult, SqliteWriter};
use crate::error::Result;
use crate::on;

/// Records an activity of a mail that exists, unless it is the same as one before or there are too many.
const RECORD: &str =
    "INSERT INTO email_activities (id, email_id, address, kind, detail, automated, created_at)
     SELECT ?, ?, ?, ?, ?, ? = 1, ?
     WHERE EXISTS (SELECT 1 FROM email_queue WHERE id = ?)
         AND NOT EXISTS (SELECT 1 FROM email_activities
                         WHERE email_id = ? AND kind = ? AND detail = ? AND address = ? AND created_at > ?)
         AND (SELECT count(*) FROM (SELECT 1 FROM email_activities WHERE email_id = ? LIMIT ?) AS kept) < ?";

fn statement(new: &NewActivity) -> Statement<'_> {
    let kind = new.kind.word();
    let binds = vec![
        Bind::Text(&new.id),
        Bind::Text(&new.email_id),
        Bind::Text(&new.address),
        Bind::Text(kind),
        Bind::Text(&new.detail),
        Bind::Integer(new.automated.into()),
        Bind::Instant(new.at),
        Bind::Text(&new.email_id),
        Bind::Text(&new.email_id),
        Bind::Text(kind),
        Bind::Text(&new.detail),
        Bind::Text(&new.address),
        Bind::Instant(new.kind.same_since(new.at)),
        Bind::Text(&new.email_id),
        Bind::BigInt(new.kind.limit()),
        Bind::BigInt(new.kind.limit()),
    ];
    Statement::new(RECORD, binds)
}

/// Records an activity, on SQLite.
pub(super) fn record_sqlite(conn: &mut SqliteWriter, new: &NewActivity) -> QueryResult<()> {
    diesel::RunQueryDsl::execute(statement(new), conn).map(drop)
}

/// Records an activity, on PostgreSQL.
pub(super) async fn record_postgres(conn: &mut PostgresWriter, new: &NewActivity) -> QueryResult<()> {
    statement(new).execute(conn).await.map(drop)
}

/// Records an activity, in a plain transaction.
pub(in crate::email) async fn record(conn: &mut Conn, new: &NewActivity) -> Result<()> {
    on!(conn, |c| statement(new).execute(c).await)?;
    Ok(())
}

/// What happened to a mail, oldest first.
pub async fn activities(conn: &mut Conn, email_id: &str) -> Result<Vec<Activity>> {
    use email_activities as a;
    let rows: Vec<(String, String, String, bool, Timestamp)> = on!(conn, |c| a::table
        .filter(a::email_id.eq(email_id))
        .order(a::id)
        .select((a::address, a::kind, a::detail, a::automated, a::created_at))
        .load(c)
        .await)?;
    let activity = |(address, kind, detail, automated, created_at): (_, String, _, _, _)| Activity {
        address,
        kind: ActivityKind::of_word(&kind),
        detail,
        automated,
        created_at,
    };
    Ok(rows.into_iter().map(activity).collect())
}
