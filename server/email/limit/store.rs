//! The queries of limits.  Each locks the limit's row until its transaction ends.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::Usage;
use crate::clock::Timestamp;
use crate::db::schema::send_limits as l;
use crate::db::{Conn, PostgresWriter, QueryResult, SqliteWriter};
use crate::error::Result;
use crate::on;

macro_rules! ensure {
    ($name:expr, $now:expr) => {
        diesel::insert_into(l::table)
            .values((l::name.eq($name), l::window_start.eq($now), l::used.eq(0)))
            .on_conflict_do_nothing()
    };
}

macro_rules! lock {
    ($name:expr) => {
        diesel::update(l::table.find($name))
            .set(l::used.eq(l::used + 0))
            .returning((l::window_start, l::used))
    };
}

macro_rules! put {
    ($name:expr, $usage:expr) => {
        diesel::update(l::table.find($name))
            .set((l::window_start.eq($usage.window_start), l::used.eq($usage.used as i64)))
    };
}

fn usage((window_start, used): (Timestamp, i64), now: Timestamp) -> Usage {
    Usage { window_start, used: used.unsigned_abs() }.at(now)
}

/// What is used of a limit now.
pub async fn usage_of(conn: &mut Conn, name: &str, now: Timestamp) -> Result<Usage> {
    on!(conn, |c| ensure!(name, now).execute(c).await)?;
    let row: (Timestamp, i64) = on!(conn, |c| lock!(name).get_result(c).await)?;
    Ok(usage(row, now))
}

/// What is used of a limit now, for reading only.
pub async fn look(conn: &mut Conn, name: &str, now: Timestamp) -> Result<Usage> {
    let query = l::table.find(name).select((l::window_start, l::used));
    let row: Option<(Timestamp, i64)> = on!(conn, |c| query.first(c).await.optional())?;
    Ok(usage(row.unwrap_or((now, 0)), now))
}

/// Writes what is used of a limit.
pub async fn put(conn: &mut Conn, name: &str, usage: Usage) -> Result<()> {
    on!(conn, |c| put!(name, usage).execute(c).await)?;
    Ok(())
}

/// Takes up to `wanted` of a limit, on SQLite; answers how many, and what is used then.
pub fn take_sqlite(
    c: &mut SqliteWriter,
    name: &str,
    limit: u64,
    wanted: u64,
    now: Timestamp,
) -> QueryResult<(u64, Usage)> {
    diesel::RunQueryDsl::execute(ensure!(name, now), c)?;
    let mut usage = usage(diesel::RunQueryDsl::get_result(lock!(name), c)?, now);
    let granted = wanted.min(usage.left(limit));
    usage.used += granted;
    diesel::RunQueryDsl::execute(put!(name, usage), c)?;
    Ok((granted, usage))
}

/// Takes up to `wanted` of a limit, on PostgreSQL; answers how many, and what is used then.
pub async fn take_postgres(
    c: &mut PostgresWriter,
    name: &str,
    limit: u64,
    wanted: u64,
    now: Timestamp,
) -> QueryResult<(u64, Usage)> {
    ensure!(name, now).execute(c).await?;
    let mut usage = usage(lock!(name).get_result(c).await?, now);
    let granted = wanted.min(usage.left(limit));
    usage.used += granted;
    put!(name, usage).execute(c).await?;
    Ok((granted, usage))
}
