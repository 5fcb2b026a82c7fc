//! Counters that say when what a node has in memory is out of date.
//!
//! A change to endpoints, routes or lists adds one to `subscriptions` in its own transaction; a publish compares it
//! inside its group's transaction.  On PostgreSQL a shared and an exclusive advisory lock keep the two apart until
//! they commit, so that a publish never fans out by endpoints that another node has just changed.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use futures_util::future::BoxFuture;

use super::schema::revisions;
use super::statement::{Bind, Statement};
use super::{Conn, Db, PostgresWriter, QueryResult, SqliteWriter, execute};
use crate::error::Result;
use crate::on;

/// Endpoints, routes and recipient lists: what decides who gets an event.
pub const SUBSCRIPTIONS: &str = "subscriptions";
/// Settings.
pub const SETTINGS: &str = "settings";
/// API keys.
pub const API_KEYS: &str = "api_keys";
/// Templates that are kept.
pub const TEMPLATES: &str = "templates";
/// Notifications that everybody has.
pub const BROADCASTS: &str = "broadcasts";
/// Subjects whose events were erased.
pub const ERASURES: &str = "erasures";

/// Users whose tokens were ended.
pub const TOKENS: &str = "tokens";

/// Keys that seal secrets.
pub const DATA_KEYS: &str = "data_keys";

/// The key of the advisory lock, any number that nothing else uses.
const LOCK: i64 = 0x7377_6272_6401;

/// The value now.
pub async fn current(conn: &mut Conn, name: &str) -> Result<i64> {
    let query = revisions::table.find(name).select(revisions::value);
    Ok(on!(conn, |c| query.first(c).await)?)
}

/// Keeps other changes and the publishes of all nodes out until the transaction ends; SQLite's one writer needs no lock.
pub async fn lock(conn: &mut Conn) -> Result<()> {
    match conn {
        Conn::Postgres(_) => execute(conn, &format!("SELECT pg_advisory_xact_lock({LOCK})")).await,
        Conn::Sqlite(_) => Ok(()),
    }
}

/// Adds one and answers the new value; the changes of other nodes wait until the transaction ends.
pub async fn bump(conn: &mut Conn, name: &str) -> Result<i64> {
    let update = diesel::update(revisions::table.find(name)).set(revisions::value.eq(revisions::value + 1));
    on!(conn, |c| update.execute(c).await)?;
    current(conn, name).await
}

/// Makes a change, and adds one in its transaction.
pub async fn change<R, F>(db: &Db, name: &'static str, work: F) -> Result<R>
where
    R: Send + 'static,
    F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R>> + Send + 'static,
{
    db.transaction(move |conn| {
        Box::pin(async move {
            // Before the work reads anything: two changes that compare the same version must not both write.
            lock(conn).await?;
            let done = work(conn).await?;
            bump(conn, name).await?;
            Ok(done)
        })
    })
    .await
}

/// Makes a change that may turn out to be none: the work is told the value, and says whether one is to be added.
pub async fn change_if<R, F>(db: &Db, name: &'static str, work: F) -> Result<R>
where
    R: Send + 'static,
    F: for<'c> FnOnce(&'c mut Conn, i64) -> BoxFuture<'c, Result<(R, bool)>> + Send + 'static,
{
    db.transaction(move |conn| {
        Box::pin(async move {
            lock(conn).await?;
            let value = current(conn, name).await?;
            let (done, changed) = work(conn, value).await?;
            if changed {
                bump(conn, name).await?;
            }
            Ok(done)
        })
    })
    .await
}

/// The value inside a grouped write on SQLite, whose one writer needs no lock.
pub fn current_sqlite(c: &mut SqliteWriter, name: &str) -> QueryResult<i64> {
    diesel::RunQueryDsl::first(revisions::table.find(name).select(revisions::value), c)
}

/// The value inside a grouped write on PostgreSQL, which no other node can change before the group's commit.
pub async fn hold_postgres(c: &mut PostgresWriter, name: &str) -> QueryResult<i64> {
    let lock = Statement::new("SELECT pg_advisory_xact_lock_shared(?)", vec![Bind::BigInt(LOCK)]);
    lock.execute(c).await?;
    revisions::table.find(name).select(revisions::value).first(c).await
}

/// Marks that something was done that is to be done once; answers whether this call is the one to do it.
pub async fn mark(conn: &mut Conn, name: &'static str) -> Result<bool> {
    let row = (revisions::name.eq(name), revisions::value.eq(1));
    let insert = diesel::insert_into(revisions::table).values(row).on_conflict_do_nothing();
    Ok(on!(conn, |c| insert.execute(c).await)? == 1)
}
