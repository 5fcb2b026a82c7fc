//! The rows that are added to: counts, log entries and when and where keys were used.
//!
//! On PostgreSQL they go a thousand at a time, as one JSON text; on SQLite, where there is no way to go, one by one to a prepared
//! statement.

use std::sync::Arc;

use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;
use serde::Serialize;

use super::Flush;
use crate::clock::Timestamp;
use crate::db::statement::{Bind, Statement};
use crate::db::{Conn, PostgresWriter, QueryResult, SqliteWriter};
use crate::error::{Error, Result};

/// How many rows a text has at most: PostgreSQL needs a multiple of its length to take it apart.
const ROWS: usize = 1_000;

/// Calls of an endpoint.  Like all of these, a row with the columns of its table.
#[derive(Debug, Serialize)]
pub(super) struct UsageRow<'a> {
    pub key_id: &'a str,
    pub span: i16,
    #[serde(serialize_with = "micros")]
    pub started_at: Timestamp,
    pub method: &'a str,
    pub endpoint: &'a str,
    pub status_class: i16,
    pub calls: i64,
}

/// Calls of a range of durations.
#[derive(Debug, Serialize)]
pub(super) struct DurationRow<'a> {
    pub key_id: &'a str,
    pub span: i16,
    #[serde(serialize_with = "micros")]
    pub started_at: Timestamp,
    pub bucket: i16,
    pub calls: i64,
}

/// When a key was used last.
#[derive(Debug, Serialize)]
pub(super) struct ActivityRow<'a> {
    pub key_id: &'a str,
    #[serde(serialize_with = "micros")]
    pub last_used_at: Timestamp,
}

/// Where a key was used from.
#[derive(Debug, Serialize)]
pub(super) struct NetworkRow<'a> {
    pub key_id: &'a str,
    pub network: String,
    #[serde(serialize_with = "micros")]
    pub first_used_at: Timestamp,
}

/// A use of a key.
#[derive(Debug, Serialize)]
pub(super) struct LogEntryRow<'a> {
    pub id: &'a str,
    pub key_id: &'a str,
    pub method: &'a str,
    pub endpoint: &'a str,
    pub status: i16,
    pub code: &'a str,
    pub ip_address: String,
    pub duration_micros: i64,
    #[serde(serialize_with = "micros")]
    pub created_at: Timestamp,
}

fn micros<S: serde::Serializer>(time: &Timestamp, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_i64(time.micros())
}

/// How rows become those of a table.
trait Upsert: Serialize + Sized {
    const TABLE: &'static str;
    /// The columns, each with its type in PostgreSQL; `instant` is microseconds in the text.
    const COLUMNS: &'static [(&'static str, &'static str)];
    const CONFLICT: &'static str;

    /// The values of the columns.
    fn binds(&self) -> Vec<Bind<'_>>;
}

impl Upsert for UsageRow<'_> {
    const TABLE: &'static str = "api_key_usage";
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("key_id", "text"),
        ("span", "smallint"),
        ("started_at", "instant"),
        ("method", "text"),
        ("endpoint", "text"),
        ("status_class", "smallint"),
        ("calls", "bigint"),
    ];
    const CONFLICT: &'static str = "(key_id, span, started_at, method, endpoint, status_class)
        DO UPDATE SET calls = api_key_usage.calls + excluded.calls";

    fn binds(&self) -> Vec<Bind<'_>> {
        vec![
            Bind::Text(self.key_id),
            Bind::SmallInt(self.span),
            Bind::Instant(self.started_at),
            Bind::Text(self.method),
            Bind::Text(self.endpoint),
            Bind::SmallInt(self.status_class),
            Bind::BigInt(self.calls),
        ]
    }
}

impl Upsert for DurationRow<'_> {
    const TABLE: &'static str = "api_key_durations";
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("key_id", "text"),
        ("span", "smallint"),
        ("started_at", "instant"),
        ("bucket", "smallint"),
        ("calls", "bigint"),
    ];
    const CONFLICT: &'static str =
        "(key_id, span, started_at, bucket) DO UPDATE SET calls = api_key_durations.calls + excluded.calls";

    fn binds(&self) -> Vec<Bind<'_>> {
        vec![
            Bind::Text(self.key_id),
            Bind::SmallInt(self.span),
            Bind::Instant(self.started_at),
            Bind::SmallInt(self.bucket),
            Bind::BigInt(self.calls),
        ]
    }
}

impl Upsert for ActivityRow<'_> {
    const TABLE: &'static str = "api_key_activity";
    const COLUMNS: &'static [(&'static str, &'static str)] =
        &[("key_id", "text"), ("last_used_at", "instant")];
    // Forward only: a node whose clock is behind takes nothing back.
    const CONFLICT: &'static str = "(key_id) DO UPDATE SET last_used_at = excluded.last_used_at
        WHERE excluded.last_used_at > api_key_activity.last_used_at";

    fn binds(&self) -> Vec<Bind<'_>> {
        vec![Bind::Text(self.key_id), Bind::Instant(self.last_used_at)]
    }
}

impl Upsert for NetworkRow<'_> {
    const TABLE: &'static str = "api_key_networks";
    const COLUMNS: &'static [(&'static str, &'static str)] =
        &[("key_id", "text"), ("network", "text"), ("first_used_at", "instant")];
    const CONFLICT: &'static str = "(key_id, network) DO NOTHING";

    fn binds(&self) -> Vec<Bind<'_>> {
        vec![Bind::Text(self.key_id), Bind::Text(&self.network), Bind::Instant(self.first_used_at)]
    }
}

impl Upsert for LogEntryRow<'_> {
    const TABLE: &'static str = "api_key_logs";
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("id", "text"),
        ("key_id", "text"),
        ("method", "text"),
        ("endpoint", "text"),
        ("status", "smallint"),
        ("code", "text"),
        ("ip_address", "text"),
        ("duration_micros", "bigint"),
        ("created_at", "instant"),
    ];
    const CONFLICT: &'static str = "(id) DO NOTHING";

    fn binds(&self) -> Vec<Bind<'_>> {
        vec![
            Bind::Text(self.id),
            Bind::Text(self.key_id),
            Bind::Text(self.method),
            Bind::Text(self.endpoint),
            Bind::SmallInt(self.status),
            Bind::Text(self.code),
            Bind::Text(&self.ip_address),
            Bind::BigInt(self.duration_micros),
            Bind::Instant(self.created_at),
        ]
    }
}

/// Takes the rows of a JSON text, in their order.
fn postgres<R: Upsert>() -> String {
    let columns =
        |of: &dyn Fn(&(&str, &str)) -> String| R::COLUMNS.iter().map(of).collect::<Vec<_>>().join(", ");
    let kind = |kind: &str| if kind == "instant" { "bigint".to_owned() } else { kind.to_owned() };
    let value = |name: &str, kind: &str| match kind {
        "instant" => format!("TIMESTAMPTZ 'epoch' + {name} * INTERVAL '1 microsecond'"),
        _ => name.to_owned(),
    };
    format!(
        "INSERT INTO {} ({}) SELECT {} FROM json_to_recordset(CAST($1 AS json)) AS r ({}) ON CONFLICT {}",
        R::TABLE,
        columns(&|(name, _)| (*name).to_owned()),
        columns(&|(name, kind)| value(name, kind)),
        columns(&|(name, of)| format!("{name} {}", kind(of))),
        R::CONFLICT
    )
}

async fn put_postgres<R: Upsert>(
    c: &mut PostgresWriter,
    mut rows: impl Iterator<Item = R> + Send,
) -> Result<()> {
    let sql = postgres::<R>();
    loop {
        let text = {
            let some: Vec<R> = rows.by_ref().take(ROWS).collect();
            if some.is_empty() {
                return Ok(());
            }
            serde_json::to_string(&some).map_err(Error::internal)?
        };
        diesel::sql_query(&sql).bind::<Text, _>(text).execute(c).await?;
    }
}

/// Takes one row: there a statement that is prepared once costs less than to take a text apart.
fn sqlite<R: Upsert>() -> String {
    let names = R::COLUMNS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let values = vec!["?"; R::COLUMNS.len()].join(", ");
    format!("INSERT INTO {} ({names}) VALUES ({values}) ON CONFLICT {}", R::TABLE, R::CONFLICT)
}

fn put_sqlite<R: Upsert>(c: &mut SqliteWriter, mut rows: impl Iterator<Item = R>) -> QueryResult<()> {
    let sql = sqlite::<R>();
    rows.try_for_each(|row| diesel::RunQueryDsl::execute(Statement::new(&sql, row.binds()), c).map(drop))
}

/// Adds counts to their rows, and what else was noted.  The rows come in the same order on every node, so that no two wait for
/// each other.
pub(super) async fn write(conn: &mut Conn, flush: Arc<Flush>) -> Result<()> {
    match conn {
        Conn::Postgres(c) => {
            let c = &mut ***c;
            put_postgres(c, flush.usage()).await?;
            put_postgres(c, flush.durations()).await?;
            put_postgres(c, flush.activity()).await?;
            put_postgres(c, flush.networks()).await?;
            put_postgres(c, flush.logs()).await
        }
        Conn::Sqlite(handle) => {
            let write = move |c: &mut SqliteWriter| {
                put_sqlite(c, flush.usage())?;
                put_sqlite(c, flush.durations())?;
                put_sqlite(c, flush.activity())?;
                put_sqlite(c, flush.networks())?;
                put_sqlite(c, flush.logs())
            };
            Ok(handle.spawn_blocking(write).await?)
        }
    }
}

/// Adds calls of endpoints to rows of a span.
pub(in crate::apikey::usage) async fn merge_usage(
    conn: &mut Conn,
    span: i16,
    started_at: Timestamp,
    taken: Vec<(String, String, String, i16, i64)>,
) -> Result<()> {
    fn row(
        (key_id, method, endpoint, status_class, calls): &(String, String, String, i16, i64),
        span: i16,
        started_at: Timestamp,
    ) -> UsageRow<'_> {
        let (status_class, calls) = (*status_class, *calls);
        UsageRow { key_id, span, started_at, method, endpoint, status_class, calls }
    }
    match conn {
        Conn::Postgres(c) => put_postgres(c, taken.iter().map(|taken| row(taken, span, started_at))).await,
        Conn::Sqlite(handle) => {
            let write = move |c: &mut SqliteWriter| {
                put_sqlite(c, taken.iter().map(|taken| row(taken, span, started_at)))
            };
            Ok(handle.spawn_blocking(write).await?)
        }
    }
}

/// Adds calls of ranges of durations to rows of a span.
pub(in crate::apikey::usage) async fn merge_durations(
    conn: &mut Conn,
    span: i16,
    started_at: Timestamp,
    taken: Vec<(String, i16, i64)>,
) -> Result<()> {
    fn row(
        (key_id, bucket, calls): &(String, i16, i64),
        span: i16,
        started_at: Timestamp,
    ) -> DurationRow<'_> {
        DurationRow { key_id, span, started_at, bucket: *bucket, calls: *calls }
    }
    match conn {
        Conn::Postgres(c) => put_postgres(c, taken.iter().map(|taken| row(taken, span, started_at))).await,
        Conn::Sqlite(handle) => {
            let write = move |c: &mut SqliteWriter| {
                put_sqlite(c, taken.iter().map(|taken| row(taken, span, started_at)))
            };
            Ok(handle.spawn_blocking(write).await?)
        }
    }
}
