//! The queries of webhooks: endpoints, and the log of their deliveries.

use std::sync::Arc;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::health::{Record, store as health};
use super::log;
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
use crate::delivery::order::{self, PARKED, Sequence};
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

/// An endpoint as it is kept, with its sealed secret and private key.
pub(super) struct Kept {
    row: WebhookRow,
    pub sealed: Vec<u8>,
    pub client_key: Option<Vec<u8>>,
}

impl Kept {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.row.id
    }

    /// Its version.
    pub fn version(&self) -> i64 {
        self.row.version
    }

    /// The endpoint.
    pub fn into_webhook(self) -> Webhook {
        self.row.into()
    }
}

/// All endpoints, by age.
pub(super) async fn all(conn: &mut Conn) -> Result<Vec<Kept>> {
    let rows: Vec<(WebhookRow, Vec<u8>, Option<Vec<u8>>)> = on!(conn, |c| webhooks::table
        .order(webhooks::id)
        .select((WebhookRow::as_select(), webhooks::secret, webhooks::client_key))
        .load(c)
        .await)?;
    Ok(rows.into_iter().map(|(row, sealed, client_key)| Kept { row, sealed, client_key }).collect())
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
    log::store::keep_version(conn, webhook).await
}

/// Writes a changed endpoint.
pub(super) async fn update(conn: &mut Conn, webhook: &Webhook) -> Result<()> {
    let update = diesel::update(webhooks::table.find(webhook.id.clone())).set(WebhookRow::from(webhook));
    on!(conn, |c| update.execute(c).await)?;
    log::store::keep_version(conn, webhook).await
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
    /// What it is in order with, and its event's place in the log.
    pub ordering: Option<(Arc<str>, i64)>,
    /// Whether it waits for the one before it.
    pub parked: bool,
    pub now: Timestamp,
}

impl NewDelivery {
    /// What it is in order with.
    pub(super) fn sequence(&self) -> Option<Sequence> {
        let (key, _) = self.ordering.as_ref()?;
        Some(Sequence { lane: Arc::clone(&self.webhook_id), key: Arc::clone(key) })
    }

    fn due(&self) -> Timestamp {
        if self.parked { PARKED } else { self.now }
    }

    fn key(&self) -> Option<&str> {
        self.ordering.as_ref().map(|(key, _)| &**key)
    }

    fn position(&self) -> Option<i64> {
        self.ordering.as_ref().map(|(_, position)| *position)
    }

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
            d::next_attempt_at.eq(row.due()),
            d::lease_owner.eq(row.lease_owner),
            d::lease_token.eq(row.token()),
            d::created_at.eq(row.now),
            d::updated_at.eq(row.now),
            d::ordering_key.eq(row.key()),
            d::ordering_position.eq(row.position()),
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
                                               lease_token, created_at, updated_at, ordering_key, ordering_position)
               SELECT id, webhook_id, event_id, event_type, status, due, lease_owner, lease_token, now_at, now_at,
                      ordering_key, ordering_position
               FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
               AS d (id, webhook_id, event_id, event_type, status, due, lease_owner, lease_token, now_at, ordering_key,
                     ordering_position)";
    let binds = vec![
        Bind::Texts(rows.iter().map(|row| row.id.as_str()).collect()),
        Bind::Texts(rows.iter().map(|row| &*row.webhook_id).collect()),
        Bind::Texts(rows.iter().map(|row| &*row.fact.id).collect()),
        Bind::Texts(rows.iter().map(|row| &*row.fact.event_type).collect()),
        Bind::Texts(rows.iter().map(NewDelivery::status).collect()),
        Bind::Instants(rows.iter().map(NewDelivery::due).collect()),
        Bind::NullableBigInts(rows.iter().map(|row| row.lease_owner).collect()),
        Bind::BigInts(rows.iter().map(NewDelivery::token).collect()),
        Bind::Instants(rows.iter().map(|row| row.now).collect()),
        Bind::NullableTexts(rows.iter().map(NewDelivery::key).collect()),
        Bind::NullableBigInts(rows.iter().map(NewDelivery::position).collect()),
    ];
    Statement::new(sql, binds).execute(conn).await.map(drop)
}

/// Makes deliveries that wait for their turn.
pub(super) async fn insert_waiting(conn: &mut Conn, rows: Vec<NewDelivery>) -> Result<()> {
    let now = rows.iter().map(|row| row.now).max().unwrap_or_default();
    let mut sequences: Vec<_> = rows.iter().filter_map(NewDelivery::sequence).collect();
    sequences.sort_unstable();
    sequences.dedup();
    order::store::hold(conn, &sequences).await?;
    match conn {
        Conn::Postgres(handle) => insert_deliveries_postgres(handle, &rows).await?,
        Conn::Sqlite(handle) => {
            let insert = move |c: &mut SqliteWriter| insert_deliveries_sqlite(c, &rows);
            handle.spawn_blocking(insert).await?;
        }
    }
    order::store::release(conn, sequences, now).await
}

type FactRow = (String, String, String, String, String, String, String, Timestamp);

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
            events::topic,
            events::created_at,
        ));
    let rows: Vec<FactRow> = on!(conn, |c| query.load(c).await)?;
    let fact = |(delivery, id, event_type, data, actor, subject, topic, created_at): FactRow| {
        let (id, event_type, topic) = (id.into(), event_type.into(), topic.into());
        (delivery, Arc::new(Fact { id, event_type, data, actor, subject, topic, created_at }))
    };
    Ok(rows.into_iter().map(fact).collect())
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

/// Puts deliveries in one of these states, whose events are kept, back into the queue; answers how many were.
pub(super) async fn requeue(
    conn: &mut Conn,
    ids: &[String],
    from: &[State],
    now: Timestamp,
) -> Result<usize> {
    use webhook_deliveries as d;
    let word = |state: State| state.word(Table::WebhookDeliveries);
    let from: Vec<&str> = from.iter().map(|state| word(*state)).collect();
    let sequences = order::store::of_deliveries(conn, ids).await?;
    macro_rules! update {
        ($ordered:ident, $due:expr) => {{
            let kept = diesel::dsl::exists(events::table.filter(events::id.eq(d::event_id)));
            let rows = d::table.filter(d::id.eq_any(ids)).filter(d::status.eq_any(from.clone()));
            let update = diesel::update(rows.filter(kept).filter(d::ordering_key.$ordered())).set((
                d::status.eq(word(State::Pending)),
                d::attempts_before.eq(d::attempts),
                d::error_message.eq(None::<String>),
                d::response_status.eq(None::<i32>),
                d::next_attempt_at.eq($due),
                d::updated_at.eq(now),
            ));
            on!(conn, |c| update.execute(c).await)?
        }};
    }
    let mut count = update!(is_null, now);
    if !sequences.is_empty() {
        // Behind whatever of its sequence is under way.
        count += update!(is_not_null, PARKED);
        order::store::release(conn, sequences, now).await?;
    }
    Ok(count)
}
