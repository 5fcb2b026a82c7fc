//! The queries of what was published before.

use std::collections::HashSet;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::schema::{events as e, webhook_deliveries as d, webhooks};
use crate::error::Result;
use crate::on;

/// An event without its payload, which is read when the delivery is taken in hand.
#[derive(Debug, Clone, Queryable)]
pub(super) struct PastEvent {
    pub id: String,
    pub position: i64,
    pub event_type: String,
    pub actor: String,
    pub subject: String,
    pub created_at: Timestamp,
}

/// Up to `limit` events with ids between these two, both left out, by id.
pub(super) async fn events(conn: &mut Conn, after: &str, before: &str, limit: i64) -> Result<Vec<PastEvent>> {
    let query = e::table.filter(e::id.gt(after)).filter(e::id.lt(before)).order(e::id).limit(limit).select((
        e::id,
        e::position,
        e::event_type,
        e::actor,
        e::subject,
        e::created_at,
    ));
    Ok(on!(conn, |c| query.load(c).await)?)
}

/// Keeps others who make deliveries to this endpoint out until the transaction ends; SQLite's one writer needs no lock.
pub(super) async fn lock(conn: &mut Conn, webhook_id: &str) -> Result<()> {
    if let Conn::Postgres(handle) = conn {
        // Not against the publishes, whose deliveries only refer to the row.
        let query = webhooks::table.find(webhook_id).select(webhooks::id).for_no_key_update();
        query.first::<String>(&mut ***handle).await.optional()?;
    }
    Ok(())
}

/// Which of these events have a delivery to the endpoint.
pub(super) async fn delivered(
    conn: &mut Conn,
    webhook_id: &str,
    events: &[String],
) -> Result<HashSet<String>> {
    let query =
        d::table.filter(d::event_id.eq_any(events)).filter(d::webhook_id.eq(webhook_id)).select(d::event_id);
    let found: Vec<String> = on!(conn, |c| query.load(c).await)?;
    Ok(found.into_iter().collect())
}
