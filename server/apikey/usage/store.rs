//! The queries of usage.
//!
//! What is added to rows is in the [`flush`](super::flush).

use diesel::prelude::*;
use diesel::sql_types::{BigInt, SmallInt, Text};
use diesel_async::RunQueryDsl;

use super::flush::store::{merge_durations, merge_usage};
use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::schema::{api_key_durations as durations, api_key_logs as logs, api_key_usage as usage};
use crate::db::types::sql::Instant;
use crate::error::Result;
use crate::on;

/// Rows of minutes, of hours and of days, by how many minutes each has.
pub(super) const SPANS: [i16; 3] = [1, 60, 1_440];

/// The first time of rows of this span before a time.
pub(super) async fn first(conn: &mut Conn, span: i16, before: Timestamp) -> Result<Option<Timestamp>> {
    let counts = usage::table
        .filter(usage::span.eq(span))
        .filter(usage::started_at.lt(before))
        .order(usage::started_at)
        .select(usage::started_at);
    Ok(on!(conn, |c| counts.first(c).await.optional())?)
}

/// Makes rows of a longer span what the rows of a time have, which go.
pub(super) async fn merge(
    conn: &mut Conn,
    span: i16,
    at: Timestamp,
    into: i16,
    start: Timestamp,
) -> Result<()> {
    // The rows go first: of two nodes that do the same, one finds none.
    let rows = usage::table.filter(usage::span.eq(span)).filter(usage::started_at.eq(at));
    let columns = (usage::key_id, usage::method, usage::endpoint, usage::status_class, usage::calls);
    let taken: Vec<(String, String, String, i16, i64)> =
        on!(conn, |c| diesel::delete(rows).returning(columns).get_results(c).await)?;
    merge_usage(conn, into, start, taken).await?;
    let rows = durations::table.filter(durations::span.eq(span)).filter(durations::started_at.eq(at));
    let columns = (durations::key_id, durations::bucket, durations::calls);
    let taken: Vec<(String, i16, i64)> =
        on!(conn, |c| diesel::delete(rows).returning(columns).get_results(c).await)?;
    merge_durations(conn, into, start, taken).await
}

/// Forgets rows of days before a time, and log entries before an id.
pub(super) async fn forget(conn: &mut Conn, before: Timestamp, log_id: String) -> Result<()> {
    let old = usage::table.filter(usage::span.eq(SPANS[2])).filter(usage::started_at.lt(before));
    on!(conn, |c| diesel::delete(old).execute(c).await)?;
    let old = durations::table.filter(durations::span.eq(SPANS[2])).filter(durations::started_at.lt(before));
    on!(conn, |c| diesel::delete(old).execute(c).await)?;
    let old = logs::table.filter(logs::id.lt(log_id));
    on!(conn, |c| diesel::delete(old).execute(c).await)?;
    Ok(())
}

/// Calls of a time.
#[derive(Debug, QueryableByName)]
pub(super) struct Sum {
    #[diesel(sql_type = Text)]
    pub key_id: String,
    #[diesel(sql_type = Text)]
    pub method: String,
    #[diesel(sql_type = Text)]
    pub endpoint: String,
    #[diesel(sql_type = SmallInt)]
    pub status_class: i16,
    #[diesel(sql_type = BigInt)]
    pub calls: i64,
}

/// Calls by range of durations.
#[derive(Debug, QueryableByName)]
pub(super) struct Spread {
    #[diesel(sql_type = SmallInt)]
    pub bucket: i16,
    #[diesel(sql_type = BigInt)]
    pub calls: i64,
}

macro_rules! load {
    ($conn:expr, $sql:expr, $start:expr, $end:expr, $key:expr) => {
        match $conn {
            Conn::Postgres(c) => {
                diesel::sql_query($sql("$1", "$2", "$3"))
                    .bind::<Instant, _>($start)
                    .bind::<Instant, _>($end)
                    .bind::<Text, _>($key)
                    .load(&mut ***c)
                    .await?
            }
            Conn::Sqlite(c) => {
                diesel::sql_query($sql("?", "?", "?"))
                    .bind::<Instant, _>($start)
                    .bind::<Instant, _>($end)
                    .bind::<Text, _>($key)
                    .load(&mut ***c)
                    .await?
            }
        }
    };
}

/// The calls of a key in a time, or of all keys, by endpoint and status.
pub(super) async fn by_endpoint(
    conn: &mut Conn,
    key: &str,
    start: Timestamp,
    end: Timestamp,
) -> Result<Vec<Sum>> {
    let sql = |from: &str, to: &str, id: &str| {
        let one = if key.is_empty() { "'' =" } else { "key_id =" };
        format!(
            "SELECT '' AS key_id, method, endpoint, status_class, CAST(SUM(calls) AS BIGINT) AS calls FROM api_key_usage
             WHERE started_at >= {from} AND started_at < {to} AND {one} {id}
             GROUP BY method, endpoint, status_class"
        )
    };
    Ok(load!(conn, sql, start, end, key))
}

/// The calls of a time by status, of the keys with the most.
pub(super) async fn by_key(
    conn: &mut Conn,
    limit: usize,
    start: Timestamp,
    end: Timestamp,
) -> Result<Vec<Sum>> {
    let sql = |from: &str, to: &str, nothing: &str| {
        format!(
            "SELECT key_id, '' AS method, '' AS endpoint, status_class, CAST(SUM(calls) AS BIGINT) AS calls
             FROM api_key_usage WHERE started_at >= {from} AND started_at < {to} AND '' = {nothing}
             AND key_id IN (SELECT key_id FROM api_key_usage
                 WHERE started_at >= {from} AND started_at < {to}
                 GROUP BY key_id ORDER BY SUM(calls) DESC, key_id LIMIT {limit})
             GROUP BY key_id, status_class"
        )
    };
    // SQLite counts each question mark, so that a time that stands twice is written into the text.
    Ok(match conn {
        Conn::Postgres(_) => load!(conn, sql, start, end, ""),
        Conn::Sqlite(c) => {
            let text = sql(&start.micros().to_string(), &end.micros().to_string(), "''");
            diesel::sql_query(text).load(&mut ***c).await?
        }
    })
}

/// The calls of a time by range of durations, of one key or of all.
pub(super) async fn spread(
    conn: &mut Conn,
    key: &str,
    start: Timestamp,
    end: Timestamp,
) -> Result<Vec<Spread>> {
    let sql = |from: &str, to: &str, id: &str| {
        let one = if key.is_empty() { "'' =" } else { "key_id =" };
        format!(
            "SELECT bucket, CAST(SUM(calls) AS BIGINT) AS calls FROM api_key_durations
             WHERE started_at >= {from} AND started_at < {to} AND {one} {id} GROUP BY bucket"
        )
    };
    Ok(load!(conn, sql, start, end, key))
}

/// A use in the log.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = logs)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct LogRow {
    pub id: String,
    pub key_id: String,
    pub method: String,
    pub endpoint: String,
    pub status: i16,
    pub code: String,
    pub ip_address: String,
    pub duration_micros: i64,
    pub created_at: Timestamp,
}

/// Which uses to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogFilter<'a> {
    /// Only those of this key; empty means all.
    pub key_id: &'a str,
    /// Only those whose status is an error.
    pub errors_only: bool,
}

/// Uses before an id, newest first.
pub(super) async fn log(
    conn: &mut Conn,
    before: Option<&str>,
    filter: LogFilter<'_>,
    limit: i64,
) -> Result<Vec<LogRow>> {
    macro_rules! query {
        () => {{
            let mut query =
                logs::table.order(logs::id.desc()).limit(limit).select(LogRow::as_select()).into_boxed();
            if let Some(before) = before {
                query = query.filter(logs::id.lt(before));
            }
            if !filter.key_id.is_empty() {
                query = query.filter(logs::key_id.eq(filter.key_id));
            }
            if filter.errors_only {
                query = query.filter(logs::status.ge(400));
            }
            query
        }};
    }
    Ok(on!(conn, |c| query!().load(c).await)?)
}
