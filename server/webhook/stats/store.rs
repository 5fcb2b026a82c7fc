//! The queries of statistics.

use std::sync::Arc;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, SmallInt, Text};
use diesel_async::RunQueryDsl;

use super::{Cell, Count};
use crate::clock::Timestamp;
use crate::db::schema::webhook_stats as s;
use crate::db::statement::{Bind, Statement};
use crate::db::types::sql::Instant;
use crate::db::{Conn, PostgresWriter, QueryResult, SqliteWriter};
use crate::error::Result;
use crate::on;

/// How many rows one statement writes.
const ROWS: usize = 1_000;

/// An upsert of what `$rows` gives; it reads the same on both databases.
macro_rules! add_sql {
    ($rows:literal) => {
        concat!(
            "INSERT INTO webhook_stats AS s
                 (hourly, webhook_id, started_at, succeeded, bucket, attempts, duration_micros) ",
            $rows,
            " ON CONFLICT (webhook_id, started_at, hourly, succeeded, bucket) DO UPDATE SET
                 attempts = s.attempts + excluded.attempts,
                 duration_micros = s.duration_micros + excluded.duration_micros"
        )
    };
}

/// Adds counts to their rows, of minutes or of hours; each cell is there once.
///
/// A hundred busy endpoints may have a thousand cells a second, which are too many to be statements of their own.
pub(super) async fn add(conn: &mut Conn, rows: Arc<Vec<(Cell, Count)>>, hourly: bool) -> Result<()> {
    match conn {
        Conn::Postgres(handle) => {
            for rows in rows.chunks(ROWS) {
                add_postgres(handle, rows, hourly).await?;
            }
        }
        Conn::Sqlite(handle) => {
            handle.spawn_blocking(move |c| add_sqlite(c, &rows, hourly)).await?;
        }
    }
    Ok(())
}

async fn add_postgres(conn: &mut PostgresWriter, rows: &[(Cell, Count)], hourly: bool) -> QueryResult<()> {
    let binds = vec![
        Bind::Bool(hourly),
        Bind::Texts(rows.iter().map(|(cell, _)| &*cell.webhook_id).collect()),
        Bind::Instants(rows.iter().map(|(cell, _)| cell.started_at).collect()),
        Bind::Bools(rows.iter().map(|(cell, _)| cell.succeeded).collect()),
        Bind::SmallInts(rows.iter().map(|(cell, _)| cell.bucket).collect()),
        Bind::BigInts(rows.iter().map(|(_, count)| count.attempts).collect()),
        Bind::BigInts(rows.iter().map(|(_, count)| count.micros).collect()),
    ];
    let sql = add_sql!("SELECT ?, * FROM unnest(?, ?, ?, ?, ?, ?)");
    Statement::new(sql, binds).execute(conn).await.map(drop)
}

fn add_sqlite(conn: &mut SqliteWriter, rows: &[(Cell, Count)], hourly: bool) -> QueryResult<()> {
    for (cell, count) in rows {
        let binds = vec![
            Bind::Bool(hourly),
            Bind::Text(&cell.webhook_id),
            Bind::Instant(cell.started_at),
            Bind::Bool(cell.succeeded),
            Bind::SmallInt(cell.bucket),
            Bind::BigInt(count.attempts),
            Bind::BigInt(count.micros),
        ];
        let sql = add_sql!("VALUES (?, ?, ?, ?, ?, ?, ?)");
        diesel::RunQueryDsl::execute(Statement::new(sql, binds), conn)?;
    }
    Ok(())
}

/// Counts of a time.
#[derive(QueryableByName)]
pub(super) struct Sum {
    #[diesel(sql_type = Text)]
    pub webhook_id: String,
    #[diesel(sql_type = Bool)]
    pub succeeded: bool,
    #[diesel(sql_type = SmallInt)]
    pub bucket: i16,
    #[diesel(sql_type = BigInt)]
    pub attempts: i64,
    #[diesel(sql_type = BigInt)]
    pub duration_micros: i64,
}

/// The counts of a time, of one endpoint or of all.
pub(super) async fn read(
    conn: &mut Conn,
    webhook_id: &str,
    start: Timestamp,
    end: Timestamp,
) -> Result<Vec<Sum>> {
    let sql = |b: [&str; 3]| {
        let [b1, b2, b3] = b;
        let one = if webhook_id.is_empty() { "'' =" } else { "webhook_id =" };
        format!(
            "SELECT webhook_id, succeeded, bucket, CAST(SUM(attempts) AS BIGINT) AS attempts,
                    CAST(SUM(duration_micros) AS BIGINT) AS duration_micros
             FROM webhook_stats WHERE started_at >= {b1} AND started_at < {b2} AND {one} {b3}
             GROUP BY webhook_id, succeeded, bucket"
        )
    };
    macro_rules! run {
        ($c:expr, $placeholders:expr) => {
            diesel::sql_query(sql($placeholders))
                .bind::<Instant, _>(start)
                .bind::<Instant, _>(end)
                .bind::<Text, _>(webhook_id)
                .load(&mut ***$c)
                .await?
        };
    }
    Ok(match conn {
        Conn::Postgres(c) => run!(c, ["$1", "$2", "$3"]),
        Conn::Sqlite(c) => run!(c, ["?"; 3]),
    })
}

/// The first row of a minute before this time.
pub(super) async fn first_minute(conn: &mut Conn, before: Timestamp) -> Result<Option<Timestamp>> {
    let query = s::table
        .filter(s::hourly.eq(false))
        .filter(s::started_at.lt(before))
        .order(s::started_at)
        .select(s::started_at);
    Ok(on!(conn, |c| query.first(c).await.optional())?)
}

/// Makes part of the rows of an hour what a minute of it has.
///
/// The rows of the minute go first: of two nodes that do the same, one finds none.
pub(super) async fn merge(conn: &mut Conn, minute: Timestamp, hour: Timestamp) -> Result<()> {
    let rows = s::table.filter(s::hourly.eq(false)).filter(s::started_at.eq(minute));
    let columns = (s::webhook_id, s::succeeded, s::bucket, s::attempts, s::duration_micros);
    let taken: Vec<(String, bool, i16, i64, i64)> =
        on!(conn, |c| diesel::delete(rows).returning(columns).get_results(c).await)?;
    let mut taken: Vec<_> = taken
        .into_iter()
        .map(|(webhook_id, succeeded, bucket, attempts, micros)| {
            let cell = Cell { webhook_id: webhook_id.into(), started_at: hour, succeeded, bucket };
            (cell, Count { attempts, micros })
        })
        .collect();
    taken.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    add(conn, Arc::new(taken), true).await
}

/// Forgets the rows before this time.
pub(super) async fn forget(conn: &mut Conn, before: Timestamp) -> Result<()> {
    let old = s::table.filter(s::hourly.eq(true)).filter(s::started_at.lt(before));
    on!(conn, |c| diesel::delete(old).execute(c).await)?;
    Ok(())
}
