//! The queries of the history of settings.

use diesel::dsl::{max, min};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::schema::settings_revisions::{self as revisions, table};
use crate::error::Result;
use crate::on;

/// What one revision did to one setting.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = revisions)]
pub(super) struct Row {
    pub revision: i64,
    pub key: String,
    pub secret: bool,
    pub old_value: Option<String>,
    pub new_value: Option<String>,
    pub action: String,
    pub actor: String,
    pub reason: String,
    pub created_at: Timestamp,
}

/// Keeps what a revision did.
pub(super) async fn insert(conn: &mut Conn, rows: Vec<Row>) -> Result<()> {
    for row in rows {
        on!(conn, |c| diesel::insert_into(table).values(row).execute(c).await)?;
    }
    Ok(())
}

/// The oldest revision that is kept.
pub(super) async fn oldest(conn: &mut Conn) -> Result<Option<i64>> {
    Ok(on!(conn, |c| table.select(min(revisions::revision)).first(c).await)?)
}

/// The newest revision that is older than this.
pub(super) async fn newest_before(conn: &mut Conn, time: Timestamp) -> Result<Option<i64>> {
    let query = table.filter(revisions::created_at.lt(time)).select(max(revisions::revision));
    Ok(on!(conn, |c| query.first(c).await)?)
}

/// Removes this revision and all before it.
pub(super) async fn delete_until(conn: &mut Conn, revision: i64) -> Result<()> {
    let delete = diesel::delete(table.filter(revisions::revision.le(revision)));
    on!(conn, |c| delete.execute(c).await)?;
    Ok(())
}

/// What the revisions after this one did, in their order: all of them, or the first few.
pub(super) async fn after(conn: &mut Conn, revision: i64, limit: Option<i64>) -> Result<Vec<Row>> {
    let mut last = i64::MAX;
    if let Some(limit) = limit {
        let query = table.filter(revisions::revision.gt(revision)).select(revisions::revision).distinct();
        let numbers: Vec<i64> = on!(conn, |c| query.order(revisions::revision).limit(limit).load(c).await)?;
        let Some(&end) = numbers.last() else { return Ok(Vec::new()) };
        last = end;
    }
    let query = table.filter(revisions::revision.gt(revision)).filter(revisions::revision.le(last));
    let query = query.order((revisions::revision, revisions::key));
    Ok(on!(conn, |c| query.select(Row::as_select()).load(c).await)?)
}

/// What the newest revisions before this one did, the newest first, to one setting or to all.
pub(super) async fn before(
    conn: &mut Conn,
    revision: Option<i64>,
    key: Option<&str>,
    limit: i64,
) -> Result<Vec<Row>> {
    let until = revision.unwrap_or(i64::MAX);
    let numbers: Vec<i64> = on!(conn, |c| {
        let query = table.filter(revisions::revision.lt(until)).select(revisions::revision).distinct();
        let mut query = query.order(revisions::revision.desc()).limit(limit).into_boxed();
        if let Some(key) = key {
            query = query.filter(revisions::key.eq(key));
        }
        query.load(c).await
    })?;
    Ok(on!(conn, |c| {
        let query = table.filter(revisions::revision.eq_any(numbers)).select(Row::as_select());
        let mut query = query.order((revisions::revision.desc(), revisions::key)).into_boxed();
        if let Some(key) = key {
            query = query.filter(revisions::key.eq(key));
        }
        query.load(c).await
    })?)
}
