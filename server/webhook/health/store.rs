//! The queries of health: records, and notices that are not published yet.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::notice::Notice;
use super::record::Record;
use crate::clock::Timestamp;
use crate::db::schema::{webhook_health as h, webhook_notices as n, webhooks};
use crate::db::statement::{Bind, Statement};
use crate::db::{Conn, PostgresWriter, QueryResult, SqliteWriter};
use crate::error::Result;
use crate::on;
use crate::webhook::model::Webhook;

/// Adds records of the endpoints that there are and that have none.
macro_rules! add_sql {
    ($which:literal) => {
        concat!(
            "INSERT INTO webhook_health (webhook_id) SELECT id FROM webhooks WHERE id ",
            $which,
            " ORDER BY id ON CONFLICT DO NOTHING"
        )
    };
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = h)]
struct RecordRow {
    failing_since: Option<Timestamp>,
    failures: i64,
    last_success_at: Option<Timestamp>,
    last_failure_at: Option<Timestamp>,
    last_error: String,
    gone: bool,
    announced: bool,
}

impl From<RecordRow> for Record {
    fn from(row: RecordRow) -> Self {
        let RecordRow {
            failing_since,
            failures,
            last_success_at,
            last_failure_at,
            last_error,
            gone,
            announced,
        } = row;
        Self { failing_since, failures, last_success_at, last_failure_at, last_error, gone, announced }
    }
}

/// Fills in how endpoints fare.
pub(in crate::webhook) async fn fill(conn: &mut Conn, webhooks: &mut [Webhook]) -> Result<()> {
    let ids: Vec<&str> = webhooks.iter().map(|webhook| webhook.id.as_str()).collect();
    let query = h::table.filter(h::webhook_id.eq_any(ids));
    let rows: Vec<(String, RecordRow)> =
        on!(conn, |c| query.select((h::webhook_id, RecordRow::as_select())).load(c).await)?;
    let mut records: HashMap<_, _> = rows.into_iter().collect();
    for webhook in webhooks {
        webhook.health = records.remove(&webhook.id).map(Record::from).unwrap_or_default();
    }
    Ok(())
}

/// The records of endpoints, in the order of their ids, kept from everybody else until the transaction ends; of those that are gone
/// there is none.
pub(super) async fn hold(conn: &mut Conn, ids: Vec<String>) -> Result<Vec<(String, Record)>> {
    let rows: Vec<(String, RecordRow)> = match conn {
        Conn::Postgres(c) => {
            let c = &mut ***c;
            let binds = vec![Bind::Texts(ids.iter().map(String::as_str).collect())];
            Statement::new(add_sql!("= ANY (?)"), binds).execute(c).await?;
            let query = h::table.filter(h::webhook_id.eq_any(&ids)).order(h::webhook_id);
            query.select((h::webhook_id, RecordRow::as_select())).for_update().load(c).await?
        }
        // Its one writer keeps everybody out.
        Conn::Sqlite(c) => c.spawn_blocking(move |c| hold_sqlite(c, ids)).await?,
    };
    Ok(rows.into_iter().map(|(id, row)| (id, row.into())).collect())
}

fn hold_sqlite(conn: &mut SqliteWriter, mut ids: Vec<String>) -> QueryResult<Vec<(String, RecordRow)>> {
    ids.sort_unstable();
    let mut rows = Vec::with_capacity(ids.len());
    for id in ids {
        let add = Statement::new(add_sql!("= ?"), vec![Bind::Text(&id)]);
        diesel::RunQueryDsl::execute(add, conn)?;
        let query = h::table.find(&id).select(RecordRow::as_select());
        let row = diesel::RunQueryDsl::first(query, conn).optional()?;
        rows.extend(row.map(|row| (id, row)));
    }
    Ok(rows)
}

/// Writes records that are held.
pub(super) async fn put(conn: &mut Conn, records: Vec<(String, Record)>) -> Result<()> {
    match conn {
        Conn::Postgres(c) => put_postgres(c, &records).await?,
        Conn::Sqlite(c) => c.spawn_blocking(move |c| put_sqlite(c, &records)).await?,
    }
    Ok(())
}

async fn put_postgres(conn: &mut PostgresWriter, records: &[(String, Record)]) -> QueryResult<()> {
    let sql = "UPDATE webhook_health h SET failing_since = r.failing_since, failures = r.failures,
                   last_success_at = r.last_success_at, last_failure_at = r.last_failure_at,
                   last_error = r.last_error, gone = r.gone, announced = r.announced
               FROM unnest(?, ?, ?, ?, ?, ?, ?, ?)
                   AS r (webhook_id, failing_since, failures, last_success_at, last_failure_at, last_error, gone, announced)
               WHERE h.webhook_id = r.webhook_id";
    let all = || records.iter().map(|(_, record)| record);
    let binds = vec![
        Bind::Texts(records.iter().map(|(id, _)| id.as_str()).collect()),
        Bind::NullableInstants(all().map(|record| record.failing_since).collect()),
        Bind::BigInts(all().map(|record| record.failures).collect()),
        Bind::NullableInstants(all().map(|record| record.last_success_at).collect()),
        Bind::NullableInstants(all().map(|record| record.last_failure_at).collect()),
        Bind::Texts(all().map(|record| record.last_error.as_str()).collect()),
        Bind::Bools(all().map(|record| record.gone).collect()),
        Bind::Bools(all().map(|record| record.announced).collect()),
    ];
    Statement::new(sql, binds).execute(conn).await.map(drop)
}

fn put_sqlite(conn: &mut SqliteWriter, records: &[(String, Record)]) -> QueryResult<()> {
    let sql =
        "UPDATE webhook_health SET failing_since = ?, failures = ?, last_success_at = ?, last_failure_at = ?,
                   last_error = ?, gone = ?, announced = ?
               WHERE webhook_id = ?";
    for (id, record) in records {
        let binds = vec![
            Bind::NullableInstant(record.failing_since),
            Bind::BigInt(record.failures),
            Bind::NullableInstant(record.last_success_at),
            Bind::NullableInstant(record.last_failure_at),
            Bind::Text(&record.last_error),
            Bind::Bool(record.gone),
            Bind::Bool(record.announced),
            Bind::Text(id),
        ];
        diesel::RunQueryDsl::execute(Statement::new(sql, binds), conn)?;
    }
    Ok(())
}

/// Forgets how an endpoint fared.
pub(super) async fn reset(conn: &mut Conn, webhook_id: &str) -> Result<()> {
    let delete = diesel::delete(h::table.find(webhook_id));
    on!(conn, |c| delete.execute(c).await)?;
    Ok(())
}

/// The endpoints that fail, and whether they are active.
pub(super) async fn failing(conn: &mut Conn) -> Result<HashMap<String, (bool, Record)>> {
    let query = h::table.inner_join(webhooks::table).filter(h::failing_since.is_not_null());
    let rows: Vec<(String, bool, RecordRow)> =
        on!(conn, |c| query.select((h::webhook_id, webhooks::active, RecordRow::as_select())).load(c).await)?;
    Ok(rows.into_iter().map(|(id, active, row)| (id, (active, row.into()))).collect())
}

/// Keeps an event that was decided.
pub(super) async fn keep_notice(conn: &mut Conn, notice: &Notice) -> Result<()> {
    let Notice { id, webhook_id, event_type, data } = notice;
    let row = (n::id.eq(id), n::webhook_id.eq(webhook_id), n::event_type.eq(event_type), n::data.eq(data));
    let insert = diesel::insert_into(n::table).values(row).on_conflict_do_nothing();
    on!(conn, |c| insert.execute(c).await)?;
    Ok(())
}

/// The events that were decided and are not known to be published.
pub(super) async fn notices(conn: &mut Conn) -> Result<Vec<Notice>> {
    let query = n::table.order(n::id).select((n::id, n::webhook_id, n::event_type, n::data));
    let rows: Vec<(String, String, String, String)> = on!(conn, |c| query.load(c).await)?;
    let notice = |(id, webhook_id, event_type, data)| Notice { id, webhook_id, event_type, data };
    Ok(rows.into_iter().map(notice).collect())
}

/// Forgets an event that is published.
pub(super) async fn forget_notice(conn: &mut Conn, id: &str) -> Result<()> {
    let delete = diesel::delete(n::table.find(id));
    on!(conn, |c| delete.execute(c).await)?;
    Ok(())
}
