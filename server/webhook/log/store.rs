//! The queries of the log.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::model::Webhook;
use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::schema::{webhook_deliveries, webhook_versions};
use crate::db::types::StringList;
use crate::db::types::sql::Instant;
use crate::delivery::{State, Table};
use crate::error::{Error, Result};
use crate::on;

/// A delivery in the log.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = webhook_deliveries)]
pub struct Delivery {
    pub id: String,
    pub webhook_id: String,
    pub event_id: String,
    pub event_type: String,
    pub status: String,
    pub attempts: i32,
    pub error_message: Option<String>,
    pub response_status: Option<i32>,
    pub next_attempt_at: Timestamp,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Which deliveries to list.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct DeliveryFilter {
    pub webhook_id: String,
    pub event_id: String,
    pub event_type: String,
    pub states: Vec<State>,
    pub created_after: Option<Timestamp>,
    pub created_before: Option<Timestamp>,
    /// Those made before this one.
    pub before: Option<String>,
}

/// Deliveries, newest first.
pub(in crate::webhook) async fn list(
    conn: &mut Conn,
    filter: &DeliveryFilter,
    limit: i64,
) -> Result<Vec<Delivery>> {
    use webhook_deliveries as d;
    let words: Vec<&str> = filter.states.iter().map(|state| state.word(Table::WebhookDeliveries)).collect();
    macro_rules! query {
        () => {{
            let mut query =
                d::table.order(d::id.desc()).limit(limit).select(Delivery::as_select()).into_boxed();
            if !filter.webhook_id.is_empty() {
                query = query.filter(d::webhook_id.eq(&filter.webhook_id));
            }
            if !filter.event_id.is_empty() {
                query = query.filter(d::event_id.eq(&filter.event_id));
            }
            if !filter.event_type.is_empty() {
                query = query.filter(d::event_type.eq(&filter.event_type));
            }
            if !words.is_empty() {
                query = query.filter(d::status.eq_any(words.clone()));
            }
            if let Some(after) = filter.created_after {
                query = query.filter(d::created_at.ge(after));
            }
            if let Some(before) = filter.created_before {
                query = query.filter(d::created_at.lt(before));
            }
            if let Some(before) = &filter.before {
                query = query.filter(d::id.lt(before));
            }
            query
        }};
    }
    Ok(on!(conn, |c| query!().load(c).await)?)
}

/// One delivery.
pub(in crate::webhook) async fn find(conn: &mut Conn, id: &str) -> Result<Delivery> {
    let row: Option<Delivery> = on!(conn, |c| webhook_deliveries::table
        .find(id)
        .select(Delivery::as_select())
        .first(c)
        .await
        .optional())?;
    row.ok_or_else(|| Error::not_found("webhook delivery", id))
}

/// What an endpoint was like.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = webhook_versions)]
pub struct Version {
    pub webhook_id: String,
    pub version: i64,
    pub url: String,
    pub header_names: StringList,
    pub created_at: Timestamp,
}

impl Version {
    /// That of an endpoint as it is now.
    pub fn of(webhook: &Webhook) -> Self {
        Self {
            webhook_id: webhook.id.clone(),
            version: webhook.version,
            url: webhook.url.clone(),
            header_names: StringList(webhook.headers.keys().cloned().collect()),
            created_at: webhook.updated_at,
        }
    }
}

/// Keeps what an endpoint is like now.
pub(in crate::webhook) async fn keep_version(conn: &mut Conn, webhook: &Webhook) -> Result<()> {
    let insert = diesel::insert_into(webhook_versions::table).values(Version::of(webhook));
    on!(conn, |c| insert.execute(c).await)?;
    Ok(())
}

/// Forgets what endpoints were like that were changed before this time: what was sent by it is forgotten too.
pub(in crate::webhook) async fn forget_versions(conn: &mut Conn, before: Timestamp) -> Result<()> {
    let sql = |b1: &str| {
        format!(
            "DELETE FROM webhook_versions WHERE EXISTS (
                 SELECT 1 FROM webhook_versions newer
                 WHERE newer.webhook_id = webhook_versions.webhook_id AND newer.version > webhook_versions.version
                   AND newer.created_at < {b1})"
        )
    };
    macro_rules! run {
        ($c:expr, $b1:literal) => {
            diesel::sql_query(sql($b1)).bind::<Instant, _>(before).execute(&mut ***$c).await?
        };
    }
    match conn {
        Conn::Postgres(c) => run!(c, "$1"),
        Conn::Sqlite(c) => run!(c, "?"),
    };
    Ok(())
}

/// Some of the versions of an endpoint.
pub(in crate::webhook) async fn versions(
    conn: &mut Conn,
    webhook_id: &str,
    numbers: Vec<i64>,
) -> Result<Vec<Version>> {
    Ok(on!(conn, |c| webhook_versions::table
        .filter(webhook_versions::webhook_id.eq(webhook_id))
        .filter(webhook_versions::version.eq_any(numbers))
        .select(Version::as_select())
        .load(c)
        .await)?)
}
