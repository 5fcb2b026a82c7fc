//! The queries of limits.  Each locks the limit's row until its transaction ends.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_async::RunQueryDsl;

use super::{Limit, Usage};
use crate::clock::Timestamp;
use crate::db::schema::send_limits as l;
use crate::db::statement::{Bind, Statement};
use crate::db::types::sql::Instant;
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

fn usage(limit: &Limit, (window_start, used): (Timestamp, i64), now: Timestamp) -> Usage {
    Usage { window_start, used: used.unsigned_abs(), window: limit.window }.at(now)
}

/// What is used of a limit now.
pub async fn usage_of(conn: &mut Conn, limit: &Limit, now: Timestamp) -> Result<Usage> {
    let name = limit.name.as_str();
    on!(conn, |c| ensure!(name, now).execute(c).await)?;
    let row: (Timestamp, i64) = on!(conn, |c| lock!(name).get_result(c).await)?;
    let usage = usage(limit, row, now);
    if usage.window_start < row.0 {
        // The clock was set back.  Written at once, or the window would begin anew with each look and never end.
        on!(conn, |c| put!(name, usage).execute(c).await)?;
    }
    Ok(usage)
}

/// What is used of a limit now, for reading only.
pub async fn look(conn: &mut Conn, limit: &Limit, now: Timestamp) -> Result<Usage> {
    let query = l::table.find(&limit.name).select((l::window_start, l::used));
    let row: Option<(Timestamp, i64)> = on!(conn, |c| query.first(c).await.optional())?;
    Ok(usage(limit, row.unwrap_or((now, 0)), now))
}

/// Writes what is used of a limit.
pub async fn put(conn: &mut Conn, limit: &Limit, usage: Usage) -> Result<()> {
    on!(conn, |c| put!(&limit.name, usage).execute(c).await)?;
    Ok(())
}

/// Takes up to `wanted` of a limit, on SQLite; answers how many, and what is used then.
pub fn take_sqlite(
    c: &mut SqliteWriter,
    limit: &Limit,
    wanted: u64,
    now: Timestamp,
) -> QueryResult<(u64, Usage)> {
    let name = limit.name.as_str();
    diesel::RunQueryDsl::execute(ensure!(name, now), c)?;
    let mut usage = usage(limit, diesel::RunQueryDsl::get_result(lock!(name), c)?, now);
    let granted = wanted.min(usage.left(limit.most));
    usage.used += granted;
    diesel::RunQueryDsl::execute(put!(name, usage), c)?;
    Ok((granted, usage))
}

/// Takes up to `wanted` of a limit, on PostgreSQL; answers how many, and what is used then.
pub async fn take_postgres(
    c: &mut PostgresWriter,
    limit: &Limit,
    wanted: u64,
    now: Timestamp,
) -> QueryResult<(u64, Usage)> {
    let name = limit.name.as_str();
    ensure!(name, now).execute(c).await?;
    let mut usage = usage(limit, lock!(name).get_result(c).await?, now);
    let granted = wanted.min(usage.left(limit.most));
    usage.used += granted;
    put!(name, usage).execute(c).await?;
    Ok((granted, usage))
}

/// What is wanted of a limit.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The limit.
    pub limit: Limit,
    /// How many.
    pub wanted: u64,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Instant)]
    window_start: Timestamp,
    #[diesel(sql_type = BigInt)]
    used: i64,
}

/// What each wish gets of what is left, and what is used of it then.
fn grant(wishes: &[Wish], rows: Vec<Row>, now: Timestamp) -> (Vec<u64>, Vec<Usage>) {
    let rows: HashMap<String, (Timestamp, i64)> =
        rows.into_iter().map(|row| (row.name, (row.window_start, row.used))).collect();
    let one = |wish: &Wish| {
        let row = rows.get(&wish.limit.name).copied().unwrap_or((now, 0));
        let mut usage = usage(&wish.limit, row, now);
        let granted = wish.wanted.min(usage.left(wish.limit.most));
        usage.used += granted;
        (granted, usage)
    };
    wishes.iter().map(one).unzip()
}

/// Takes of several limits, on SQLite; answers how many of each.
pub fn take_each_sqlite(c: &mut SqliteWriter, wishes: &[Wish], now: Timestamp) -> QueryResult<Vec<u64>> {
    let mut rows = Vec::with_capacity(wishes.len());
    for wish in wishes {
        let sql = "SELECT name, window_start, used FROM send_limits WHERE name = ?";
        let query = Statement::new(sql, vec![Bind::Text(&wish.limit.name)]);
        rows.extend(diesel::RunQueryDsl::load::<Row>(query, c)?);
    }
    let (granted, usages) = grant(wishes, rows, now);
    for (wish, usage) in wishes.iter().zip(usages) {
        let sql = "INSERT INTO send_limits (name, window_start, used) VALUES (?, ?, ?)
                   ON CONFLICT (name) DO UPDATE SET window_start = excluded.window_start, used = excluded.used";
        let binds = vec![
            Bind::Text(&wish.limit.name),
            Bind::Instant(usage.window_start),
            Bind::BigInt(usage.used as i64),
        ];
        diesel::RunQueryDsl::execute(Statement::new(sql, binds), c)?;
    }
    Ok(granted)
}

/// Takes of several limits, on PostgreSQL, in three round trips at the most; answers how many of each.
///
/// The wishes are in the order of their names, so that no two transactions wait for each other.
pub async fn take_each_postgres(
    c: &mut PostgresWriter,
    wishes: &[Wish],
    now: Timestamp,
) -> QueryResult<Vec<u64>> {
    let names = || Bind::Texts(wishes.iter().map(|wish| wish.limit.name.as_str()).collect());
    let mut rows = lock_each(c, names()).await?;
    if rows.len() < wishes.len() {
        let sql =
            "INSERT INTO send_limits (name, window_start, used) SELECT name, ?, 0 FROM unnest(?) AS w (name)
                   ON CONFLICT DO NOTHING";
        Statement::new(sql, vec![Bind::Instant(now), names()]).execute(c).await?;
        rows = lock_each(c, names()).await?;
    }
    let (granted, usages) = grant(wishes, rows, now);
    let sql = "UPDATE send_limits l SET window_start = w.window_start, used = w.used
               FROM unnest(?, ?, ?) AS w (name, window_start, used) WHERE l.name = w.name";
    let binds = vec![
        names(),
        Bind::Instants(usages.iter().map(|usage| usage.window_start).collect()),
        Bind::BigInts(usages.iter().map(|usage| usage.used as i64).collect()),
    ];
    Statement::new(sql, binds).execute(c).await?;
    Ok(granted)
}

async fn lock_each(c: &mut PostgresWriter, names: Bind<'_>) -> QueryResult<Vec<Row>> {
    let sql = "SELECT name, window_start, used FROM send_limits WHERE name = ANY(?) ORDER BY name FOR UPDATE";
    Statement::new(sql, vec![names]).load(c).await
}
