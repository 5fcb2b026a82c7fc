//! The queries that remove old events.
//!
//! Whether something needs an event is asked by the ids of a few events, never in the query that finds them: PostgreSQL
//! would read all deliveries to answer that.

use std::collections::HashSet;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::db::Conn;
use crate::db::schema::{email_queue, events, webhook_deliveries};
use crate::delivery::{State, Table};
use crate::error::Result;
use crate::on;

fn ended() -> Vec<&'static str> {
    let ended = State::ALL.iter().filter(|state| state.is_final());
    ended.map(|state| state.word(Table::WebhookDeliveries)).collect()
}

/// Those of these events that something needs.
async fn needed(conn: &mut Conn, ids: &[String]) -> Result<HashSet<String>> {
    use {email_queue as e, webhook_deliveries as d};
    let unfinished =
        d::table.filter(d::event_id.eq_any(ids)).filter(d::status.ne_all(ended())).select(d::event_id);
    let mut needed: HashSet<String> =
        on!(conn, |c| unfinished.load::<String>(c).await)?.into_iter().collect();
    let mailed = e::table.filter(e::event_id.eq_any(ids)).select(e::event_id);
    let mailed: Vec<Option<String>> = on!(conn, |c| mailed.load(c).await)?;
    needed.extend(mailed.into_iter().flatten());
    Ok(needed)
}

/// Up to `limit` events between two ids, in their order: each with whether it may go.
pub(super) async fn old(
    conn: &mut Conn,
    after: &str,
    before: &str,
    limit: i64,
) -> Result<Vec<(String, bool)>> {
    let query = events::table
        .filter(events::id.gt(after))
        .filter(events::id.lt(before))
        .order(events::id)
        .limit(limit)
        .select(events::id);
    let ids: Vec<String> = on!(conn, |c| query.load(c).await)?;
    let needed = needed(conn, &ids).await?;
    let with_answer = |id: String| {
        let may_go = !needed.contains(&id);
        (id, may_go)
    };
    Ok(ids.into_iter().map(with_answer).collect())
}

/// Removes those of these events that nothing needs; answers their positions.
pub(super) async fn remove(conn: &mut Conn, ids: &[String]) -> Result<Vec<i64>> {
    let needed = needed(conn, ids).await?;
    let ids: Vec<&String> = ids.iter().filter(|id| !needed.contains(*id)).collect();
    let delete = diesel::delete(events::table.filter(events::id.eq_any(ids))).returning(events::position);
    Ok(on!(conn, |c| delete.get_results(c).await)?)
}

/// Whether anything needs one of the events between two ids.
pub(super) async fn any_needed(conn: &mut Conn, from: &str, to: &str) -> Result<bool> {
    use {email_queue as e, webhook_deliveries as d};
    let unfinished = d::table
        .filter(d::event_id.ge(from))
        .filter(d::event_id.lt(to))
        .filter(d::status.ne_all(ended()))
        .select(d::id);
    let first: Option<String> = on!(conn, |c| unfinished.first(c).await.optional())?;
    if first.is_some() {
        return Ok(true);
    }
    let mailed = e::table.filter(e::event_id.ge(from)).filter(e::event_id.lt(to)).select(e::id);
    let first: Option<String> = on!(conn, |c| mailed.first(c).await.optional())?;
    Ok(first.is_some())
}

/// The last position of the events between two ids.
pub(super) async fn last_position(conn: &mut Conn, from: &str, to: &str) -> Result<Option<i64>> {
    let query = events::table
        .filter(events::id.ge(from))
        .filter(events::id.lt(to))
        .select(diesel::dsl::max(events::position));
    Ok(on!(conn, |c| query.first(c).await)?)
}
