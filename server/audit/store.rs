//! The queries of the audit log.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::read::Filter;
use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::schema::{audit_base, audit_head, audit_log};
use crate::error::Result;
use crate::on;

/// What was changed, by whom and why.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = audit_log)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Entry {
    pub seq: i64,
    pub created_at: Timestamp,
    pub actor: String,
    pub action: String,
    pub resource_type: String,
    pub resource_id: String,
    pub before: String,
    pub after: String,
    pub reason: String,
    pub request_id: String,
    pub address: String,
    pub prev_hash: String,
    pub hash: String,
}

/// Where the log ends.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = audit_head)]
pub(super) struct Head {
    pub id: i64,
    pub seq: i64,
    pub hash: String,
    pub mac: String,
}

/// Where the log begins: the last entry that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = audit_base)]
pub(super) struct Base {
    pub id: i64,
    pub seq: i64,
    pub hash: String,
    pub mac: String,
}

/// Where the log begins, if anything was removed.
pub(super) async fn base(conn: &mut Conn) -> Result<Option<Base>> {
    Ok(on!(conn, |c| audit_base::table.find(1).select(Base::as_select()).first(c).await.optional())?)
}

/// Removes the entries up to the one that a base is of, and keeps that.
pub(super) async fn cut(conn: &mut Conn, base: Base) -> Result<()> {
    let old = diesel::delete(audit_log::table.filter(audit_log::seq.le(base.seq)));
    on!(conn, |c| old.execute(c).await)?;
    let put = diesel::insert_into(audit_base::table)
        .values(base.clone())
        .on_conflict(audit_base::id)
        .do_update()
        .set(base);
    on!(conn, |c| put.execute(c).await)?;
    Ok(())
}

/// Gives the log its head.
pub(super) async fn insert_head(conn: &mut Conn, head: Head) -> Result<()> {
    let insert = diesel::insert_into(audit_head::table).values(head).on_conflict_do_nothing();
    on!(conn, |c| insert.execute(c).await)?;
    Ok(())
}

/// Where the log ends.
pub(super) async fn head(conn: &mut Conn) -> Result<Option<Head>> {
    let query = audit_head::table.find(1);
    Ok(on!(conn, |c| query.select(Head::as_select()).first(c).await.optional())?)
}

/// Where the log ends, and goes on nowhere else until the transaction ends; SQLite's one writer needs no lock.
pub(super) async fn hold_head(conn: &mut Conn) -> Result<Option<Head>> {
    let query = audit_head::table.find(1);
    match conn {
        Conn::Postgres(handle) => {
            let query = query.select(Head::as_select()).for_update();
            Ok(query.first(&mut ***handle).await.optional()?)
        }
        Conn::Sqlite(_) => head(conn).await,
    }
}

/// Moves the end.
pub(super) async fn set_head(conn: &mut Conn, head: Head) -> Result<()> {
    let values = (audit_head::seq.eq(head.seq), audit_head::hash.eq(head.hash), audit_head::mac.eq(head.mac));
    let update = diesel::update(audit_head::table.find(1)).set(values);
    on!(conn, |c| update.execute(c).await)?;
    Ok(())
}

/// Adds an entry.
pub(super) async fn insert(conn: &mut Conn, entry: Entry) -> Result<()> {
    on!(conn, |c| diesel::insert_into(audit_log::table).values(entry).execute(c).await)?;
    Ok(())
}

/// Entries after a number, the oldest first.
pub(super) async fn after(conn: &mut Conn, seq: i64, limit: i64) -> Result<Vec<Entry>> {
    Ok(on!(conn, |c| audit_log::table
        .filter(audit_log::seq.gt(seq))
        .order(audit_log::seq)
        .limit(limit)
        .select(Entry::as_select())
        .load(c)
        .await)?)
}

/// Entries before a number, the newest first.
pub(super) async fn before(conn: &mut Conn, seq: i64, filter: &Filter, limit: i64) -> Result<Vec<Entry>> {
    let prefix = format!("{}%", filter.action_prefix.replace('_', "\\_"));
    macro_rules! query {
        () => {{
            let query =
                audit_log::table.filter(audit_log::seq.lt(seq)).order(audit_log::seq.desc()).limit(limit);
            let mut query = query.select(Entry::as_select()).into_boxed();
            if !filter.actor.is_empty() {
                query = query.filter(audit_log::actor.eq(&filter.actor));
            }
            if !filter.action_prefix.is_empty() {
                query = query.filter(audit_log::action.like(&prefix).escape('\\'));
            }
            if !filter.resource_type.is_empty() {
                query = query.filter(audit_log::resource_type.eq(&filter.resource_type));
            }
            if !filter.resource_id.is_empty() {
                query = query.filter(audit_log::resource_id.eq(&filter.resource_id));
            }
            if let Some(start) = filter.start {
                query = query.filter(audit_log::created_at.ge(start));
            }
            if let Some(end) = filter.end {
                query = query.filter(audit_log::created_at.lt(end));
            }
            query
        }};
    }
    Ok(on!(conn, |c| query!().load(c).await)?)
}
