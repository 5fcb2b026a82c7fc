//! The queries of health: records, and notices that are not published yet.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;

use super::notice::Notice;
use super::record::Record;
use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::schema::{webhook_health as h, webhook_notices as n, webhooks};
use crate::error::Result;
use crate::on;
use crate::webhook::model::Webhook;

/// Adds a record of an endpoint, if there is such an endpoint and no such record.
const ADD: &str = "INSERT INTO webhook_health (webhook_id) SELECT id FROM webhooks WHERE id =";
const IF_NEW: &str = "ON CONFLICT DO NOTHING";

#[derive(Queryable, Selectable, AsChangeset)]
#[diesel(table_name = h, treat_none_as_null = true)]
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

impl From<Record> for RecordRow {
    fn from(record: Record) -> Self {
        let Record { failing_since, failures, last_success_at, last_failure_at, last_error, gone, announced } =
            record;
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

/// The record of an endpoint, kept from everybody else until the transaction ends; `None` when the endpoint is gone.
pub(super) async fn hold(conn: &mut Conn, webhook_id: &str) -> Result<Option<Record>> {
    let query = h::table.find(webhook_id);
    let row: Option<RecordRow> = match conn {
        Conn::Postgres(c) => {
            diesel::sql_query(format!("{ADD} $1 {IF_NEW}"))
                .bind::<Text, _>(webhook_id)
                .execute(&mut ***c)
                .await?;
            query.select(RecordRow::as_select()).for_update().first(&mut ***c).await.optional()?
        }
        // Its one writer keeps everybody out.
        Conn::Sqlite(c) => {
            diesel::sql_query(format!("{ADD} ? {IF_NEW}"))
                .bind::<Text, _>(webhook_id)
                .execute(&mut ***c)
                .await?;
            query.select(RecordRow::as_select()).first(&mut ***c).await.optional()?
        }
    };
    Ok(row.map(Record::from))
}

/// Writes a record that is held.
pub(super) async fn put(conn: &mut Conn, webhook_id: &str, record: Record) -> Result<()> {
    let update = diesel::update(h::table.find(webhook_id)).set(RecordRow::from(record));
    on!(conn, |c| update.execute(c).await)?;
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
