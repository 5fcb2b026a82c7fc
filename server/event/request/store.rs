//! The queries of request ids.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{Earlier, KEPT, RequestKey};
use crate::clock::Timestamp;
use crate::db::schema::requests;
use crate::db::{Db, PostgresWriter, QueryResult, SqliteWriter};
use crate::error::Result;
use crate::on;

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = requests)]
struct RequestRow {
    principal: String,
    request_id: String,
    fingerprint: Vec<u8>,
    result: String,
    created_at: Timestamp,
}

fn row(key: &RequestKey, result: &str, now: Timestamp) -> RequestRow {
    RequestRow {
        principal: key.principal.clone(),
        request_id: key.request_id.clone(),
        fingerprint: key.fingerprint.clone(),
        result: result.to_owned(),
        created_at: now,
    }
}

fn earlier(row: RequestRow) -> Earlier {
    Earlier { fingerprint: row.fingerprint, result: row.result }
}

/// The answer of an earlier request with this key, on SQLite.
pub fn find_sqlite(conn: &mut SqliteWriter, key: &RequestKey) -> QueryResult<Result<Option<String>>> {
    let query = requests::table.find((&key.principal, &key.request_id)).select(RequestRow::as_select());
    Ok(key.compare(diesel::RunQueryDsl::first(query, conn).optional()?.map(earlier)))
}

/// Keeps the answer, on SQLite.
pub fn keep_sqlite(
    conn: &mut SqliteWriter,
    key: &RequestKey,
    result: &str,
    now: Timestamp,
) -> QueryResult<()> {
    let insert = diesel::insert_into(requests::table).values(row(key, result, now));
    diesel::RunQueryDsl::execute(insert, conn).map(drop)
}

/// The answer of an earlier request with this key, on PostgreSQL.
pub async fn find_postgres(
    conn: &mut PostgresWriter,
    key: &RequestKey,
) -> QueryResult<Result<Option<String>>> {
    let query = requests::table.find((&key.principal, &key.request_id)).select(RequestRow::as_select());
    Ok(key.compare(query.first(conn).await.optional()?.map(earlier)))
}

/// Keeps the answer, on PostgreSQL; `false` when another node has just kept one, and the group must start over.
pub async fn keep_postgres(
    conn: &mut PostgresWriter,
    key: &RequestKey,
    result: &str,
    now: Timestamp,
) -> QueryResult<bool> {
    let insert = diesel::insert_into(requests::table).values(row(key, result, now)).on_conflict_do_nothing();
    Ok(insert.execute(conn).await? == 1)
}

/// Forgets the answers that are older than [`KEPT`].
pub async fn forget_old(db: &Db, now: Timestamp) -> Result<usize> {
    db.transaction(move |conn| {
        Box::pin(async move {
            let old = diesel::delete(requests::table.filter(requests::created_at.lt(now - KEPT)));
            Ok(on!(conn, |c| old.execute(c).await)?)
        })
    })
    .await
}
