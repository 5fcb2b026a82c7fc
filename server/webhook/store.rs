//! The queries of webhooks: endpoints, and the log of their deliveries.

use std::sync::Arc;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::health::{Record, store as health};
use super::model::Webhook;
use super::policy::limit_name;
use crate::clock::Timestamp;
use crate::db::schema::{
    delivery_attempts, events, send_limits, webhook_deliveries, webhook_stats, webhooks,
};
use crate::db::statement::{Bind, Statement};
use crate::db::types::StringList;
use crate::db::{Conn, PostgresWriter, QueryResult, SqliteWriter};
use crate::delivery::engine::FIRST_TOKEN;
use crate::delivery::{State, Table};
use crate::error::{Error, Result};
use crate::event::Fact;
use crate::on;

#[derive(Debug, Clone, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = webhooks, treat_none_as_null = true)]
struct WebhookRow {
    id: String,
    name: String,
    url: String,
    events: StringList,
    description: String,
    active: bool,
    headers: String,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
    options: String,
    public_key: String,
    previous_secret_expires_at: Option<Timestamp>,
    disabled_reason: String,
}

impl From<&Webhook> for WebhookRow {
    fn from(webhook: &Webhook) -> Self {
        let webhook = webhook.clone();
        Self {
            id: webhook.id,
            name: webhook.name,
            url: webhook.url,
            events: StringList(webhook.event_types),
            description: webhook.description,
            active: webhook.active,
            headers: serde_json::to_string(&webhook.headers).expect("headers are plain text"),
            version: webhook.version,
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
            options: serde_json::to_string(&webhook.options).expect("options are plain values"),
            public_key: webhook.public_key,
            previous_secret_expires_at: webhook.previous_secret_expires_at,
            disabled_reason: webhook.disabled_reason,
        }
    }
}

impl From<WebhookRow> for Webhook {
    fn from(row: WebhookRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            url: row.url,
            event_types: row.events.0,
            description: row.description,
            active: row.active,
            headers: serde_json::from_str(&row.headers).unwrap_or_default(),
            options: serde_json::from_str(&row.options).unwrap_or_default(),
            public_key: row.public_key,
            previous_secret_expires_at: row.previous_secret_expires_at,
            disabled_reason: row.disabled_reason,
            health: Record::default(),
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// All endpoints with their sealed secrets, by age.
pub(super) async fn all(conn: &mut Conn) -> Result<Vec<(Webhook, Vec<u8>)>> {
    let rows: Vec<(WebhookRow, Vec<u8>)> = on!(conn, |c| webhooks::table
        .order(webhooks::id)
        .select((WebhookRow::as_select(), webhooks::secret))
        .load(c)
        .await)?;
    Ok(rows.into_iter().map(|(row, secret)| (row.into(), secret)).collect())
}

/// Endpoints after an id.
pub(super) async fn after(
    conn: &mut Conn,
    id: &str,
    active: Option<bool>,
    limit: i64,
) -> Result<Vec<Webhook>> {
    macro_rules! query {
        () => {{
            let query = webhooks::table.filter(webhooks::id.gt(id)).order(webhooks::id).limit(limit);
            let mut query = query.select(WebhookRow::as_select()).into_boxed();
            if let Some(active) = active {
                query = query.filter(webhooks::active.eq(active));
            }
            query
        }};
    }
    let rows: Vec<WebhookRow> = on!(conn, |c| query!().load(c).await)?;
    let mut webhooks: Vec<Webhook> = rows.into_iter().map(Webhook::from).collect();
    health::fill(conn, &mut webhooks).await?;
    Ok(webhooks)
}

/// One endpoint.
pub(super) async fn find(conn: &mut Conn, id: &str) -> Result<Webhook> {
    let row: Option<WebhookRow> =
        on!(conn, |c| webhooks::table.find(id).select(WebhookRow::as_select()).first(c).await.optional())?;
    let mut webhook = row.map(Webhook::from).ok_or_else(|| Error::not_found("webhook", id))?;
    health::fill(conn, std::slice::from_mut(&mut webhook)).await?;
    Ok(webhook)
}

/// Adds an endpoint.
pub(super) async fn insert(conn: &mut Conn, webhook: &Webhook, secret: Vec<u8>) -> Result<()> {
    let insert =
        diesel::insert_into(webhooks::table).values((WebhookRow::from(webhook), webhooks::secret.eq(secret)));
    on!(conn, |c| insert.execute(c).await)?;
    Ok(())
}

/// Writes a changed endpoint.
pub(super) async fn update(conn: &mut Conn, webhook: &Webhook) -> Result<()> {
    let update = diesel::update(webhooks::table.find(webhook.id.clone())).set(WebhookRow::from(webhook));
    on!(conn, |c| update.execute(c).await)?;
    Ok(())
}

/// Removes an endpoint with its history.
pub(super) async fn delete(conn: &mut Conn, id: &str) -> Result<()> {
    let deliveries = webhook_deliveries::table
        .filter(webhook_deliveries::webhook_id.eq(id))
        .select(webhook_deliveries::id);
    let attempts =
        diesel::delete(delivery_attempts::table.filter(delivery_attempts::delivery_id.eq_any(deliveries)));
    on!(conn, |c| attempts.execute(c).await)?;
    let stats = diesel::delete(webhook_stats::table.filter(webhook_stats::webhook_id.eq(id)));
    on!(conn, |c| stats.execute(c).await)?;
    let limit = diesel::delete(send_limits::table.find(limit_name(id)));
    on!(conn, |c| limit.execute(c).await)?;
    let delete = diesel::delete(webhooks::table.find(id));
    on!(conn, |c| delete.execute(c).await)?;
    Ok(())
}

/// A delivery to be made.
pub(super) struct NewDelivery {
    pub id: String,
    pub webhook_id: Arc<str>,
    pub fact: Arc<Fact>,
    /// The node that has it in hand from the start; `None` for one that waits.
    pub lease_owner: Option<i64>,
    pub now: Timestamp,
}

impl NewDelivery {
    fn status(&self) -> &'static str {
        let state = if self.lease_owner.is_some() { State::Sending } else { State::Pending };
        state.word(Table::WebhookDeliveries)
    }

    fn token(&self) -> i64 {
        if self.lease_owner.is_some() { FIRST_TOKEN } else { 0 }
    }
}

/// Makes deliveries, on SQLite.
pub(super) fn insert_deliveries_sqlite(conn: &mut SqliteWriter, rows: &[NewDelivery]) -> QueryResult<()> {
    use webhook_deliveries as d;
    for row in rows {
        let values = (
            d::id.eq(&row.id),
            d::webhook_id.eq(&*row.webhook_id),
            d::event_id.eq(&*row.fact.id),
            d::event_type.eq(&*row.fact.event_type),
            d::status.eq(row.status()),
            d::attempts.eq(0),
            d::next_attempt_at.eq(row.now),
            d::lease_owner.eq(row.lease_owner),
            d::lease_token.eq(row.token()),
            d::created_at.eq(row.now),
            d::updated_at.eq(row.now),
        );
        diesel::RunQueryDsl::execute(diesel::insert_into(d::table).values(values), conn)?;
    }
    Ok(())
}

/// Makes deliveries, on PostgreSQL.
pub(super) async fn insert_deliveries_postgres(
    conn: &mut PostgresWriter,
    rows: &[NewDelivery],
) -> QueryResult<()> {
    let sql = "INSERT INTO webhook_deliveries (id, webhook_id, event_id, event_type, status, next_attempt_at, lease_owner,
                                               lease_token, created_at, updated_at)
               SELECT id, webhook_id, event_id, event_type, status, now_at, lease_owner, lease_token, now_at, now_at
               FROM unnest(?, ?, ?, ?, ?, ?, ?, ?)
               AS d (id, webhook_id, event_id, event_type, status, now_at, lease_owner, lease_token)";
    let binds = vec![
        Bind::Texts(rows.iter().map(|row| row.id.as_str()).collect()),
        Bind::Texts(rows.iter().map(|row| &*row.webhook_id).collect()),
        Bind::Texts(rows.iter().map(|row| &*row.fact.id).collect()),
        Bind::Texts(rows.iter().map(|row| &*row.fact.event_type).collect()),
        Bind::Texts(rows.iter().map(NewDelivery::status).collect()),
        Bind::Instants(rows.iter().map(|row| row.now).collect()),
        Bind::NullableBigInts(rows.iter().map(|row| row.lease_owner).collect()),
        Bind::BigInts(rows.iter().map(NewDelivery::token).collect()),
    ];
    Statement::new(sql, binds).execute(conn).await.map(drop)
}

type FactRow = (String, String, String, String, String, String, Timestamp);

/// The events of deliveries.
pub(super) async fn load_facts(conn: &mut Conn, ids: Vec<String>) -> Result<Vec<(String, Arc<Fact>)>> {
    let query = webhook_deliveries::table
        .inner_join(events::table.on(events::id.eq(webhook_deliveries::event_id)))
        .filter(webhook_deliveries::id.eq_any(ids))
        .select((
            webhook_deliveries::id,
            events::id,
            events::event_type,
            events::data,
            events::actor,
            events::subject,
            events::created_at,
        ));
    let rows: Vec<FactRow> = on!(conn, |c| query.load(c).await)?;
    let fact = |(delivery, id, event_type, data, actor, subject, created_at): FactRow| {
        let (id, event_type) = (id.into(), event_type.into());
        (delivery, Arc::new(Fact { id, event_type, data, actor, subject, created_at }))
    };
    Ok(rows.into_iter().map(fact).collect())
}

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
pub(super) async fn list_deliveries(
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
pub(super) async fn find_delivery(conn: &mut Conn, id: &str) -> Result<Delivery> {
    let row: Option<Delivery> = on!(conn, |c| webhook_deliveries::table
        .find(id)
        .select(Delivery::as_select())
        .first(c)
        .await
        .optional())?;
    row.ok_or_else(|| Error::not_found("webhook delivery", id))
}

/// Which failed deliveries to send once more.
#[derive(Debug, Clone)]
pub struct RetryFilter {
    /// Those to this endpoint; empty means all.
    pub webhook_id: String,
    /// Those made at or after this time.
    pub created_after: Timestamp,
    /// Those made before this time.
    pub created_before: Timestamp,
}

/// Up to `limit` failed deliveries after the id `after`.
pub(super) async fn failed(
    conn: &mut Conn,
    filter: &RetryFilter,
    after: &str,
    limit: i64,
) -> Result<Vec<String>> {
    use webhook_deliveries as d;
    macro_rules! query {
        () => {{
            let mut query = d::table
                // In the words of the index, which the databases use only for this very condition.
                .filter(diesel::dsl::sql::<diesel::sql_types::Bool>("status = 'failed'"))
                .filter(d::created_at.ge(filter.created_after))
                .filter(d::created_at.lt(filter.created_before))
                .filter(d::id.gt(after))
                .order(d::id)
                .limit(limit)
                .select(d::id)
                .into_boxed();
            if !filter.webhook_id.is_empty() {
                query = query.filter(d::webhook_id.eq(&filter.webhook_id));
            }
            query
        }};
    }
    Ok(on!(conn, |c| query!().load(c).await)?)
}

/// Puts deliveries in one of these states back into the queue; answers how many were.
pub(super) async fn requeue(
    conn: &mut Conn,
    ids: &[String],
    from: &[State],
    now: Timestamp,
) -> Result<usize> {
    use webhook_deliveries as d;
    let word = |state: State| state.word(Table::WebhookDeliveries);
    let from: Vec<&str> = from.iter().map(|state| word(*state)).collect();
    let update = diesel::update(d::table.filter(d::id.eq_any(ids)).filter(d::status.eq_any(from))).set((
        d::status.eq(word(State::Pending)),
        d::attempts_before.eq(d::attempts),
        d::error_message.eq(None::<String>),
        d::response_status.eq(None::<i32>),
        d::next_attempt_at.eq(now),
        d::updated_at.eq(now),
    ));
    Ok(on!(conn, |c| update.execute(c).await)?)
}
