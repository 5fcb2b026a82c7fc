//! The queries that remove deliveries.

use std::collections::HashSet;

use diesel::dsl::count_star;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::schema::{delivery_attempts, email_queue, webhook_deliveries};
use crate::delivery::{State, Table};
use crate::error::Result;
use crate::{id, on};

/// Runs one query on whichever table it is.
macro_rules! on_table {
    ($table:expr, $conn:expr, |$t:ident, $c:ident| $query:expr) => {
        match $table {
            Table::WebhookDeliveries => {
                use webhook_deliveries as $t;
                on!($conn, |$c| $query)
            }
            Table::EmailQueue => {
                use email_queue as $t;
                on!($conn, |$c| $query)
            }
        }
    };
}

/// Up to `limit` deliveries between two ids, in their order: how they stand, and since when.
pub(super) async fn old(
    conn: &mut Conn,
    table: Table,
    after: &str,
    before: &str,
    limit: i64,
) -> Result<Vec<(String, String, Timestamp)>> {
    Ok(on_table!(table, conn, |d, c| d::table
        .filter(d::id.gt(after))
        .filter(d::id.lt(before))
        .order(d::id)
        .limit(limit)
        .select((d::id, d::status, d::updated_at))
        .load(c)
        .await)?)
}

/// Removes those of these deliveries that have ended before a time; answers their ids.
pub(super) async fn remove_ended(
    conn: &mut Conn,
    table: Table,
    ids: &[String],
    before: Timestamp,
) -> Result<Vec<String>> {
    let ended: Vec<_> = State::ALL.iter().filter(|state| state.is_final()).map(|s| s.word(table)).collect();
    Ok(on_table!(table, conn, |d, c| diesel::delete(d::table)
        .filter(d::id.eq_any(ids))
        .filter(d::status.eq_any(ended))
        .filter(d::updated_at.lt(before))
        .returning(d::id)
        .get_results(c)
        .await)?)
}

/// The deliveries of up to `limit` attempts at webhook deliveries between two ids, in their order: each with whether it is
/// gone.
pub(super) async fn attempted(
    conn: &mut Conn,
    after: &str,
    before: &str,
    limit: i64,
) -> Result<Vec<(String, bool)>> {
    use {delivery_attempts as a, webhook_deliveries as d};
    // Those of mails come before.
    let after = if after.is_empty() { id::Kind::WebhookDelivery.prefix() } else { after };
    let query = a::table
        .filter(a::delivery_id.gt(after))
        .filter(a::delivery_id.lt(before))
        .order(a::delivery_id)
        .limit(limit)
        .select(a::delivery_id);
    let ids: Vec<String> = on!(conn, |c| query.load(c).await)?;
    // Asked by their ids: together with the first, PostgreSQL would read all deliveries.
    let there = d::table.filter(d::id.eq_any(&ids)).select(d::id);
    let there: HashSet<String> = on!(conn, |c| there.load::<String>(c).await)?.into_iter().collect();
    let with_answer = |id: String| {
        let gone = !there.contains(&id);
        (id, gone)
    };
    Ok(ids.into_iter().map(with_answer).collect())
}

/// Removes the attempts of these deliveries.
pub(super) async fn remove_attempts(conn: &mut Conn, ids: &[String]) -> Result<()> {
    let attempts = delivery_attempts::table.filter(delivery_attempts::delivery_id.eq_any(ids));
    on!(conn, |c| diesel::delete(attempts).execute(c).await)?;
    Ok(())
}

/// Up to `limit` deliveries of these events.
pub async fn of_events(
    conn: &mut Conn,
    table: Table,
    event_ids: &[String],
    limit: i64,
) -> Result<Vec<String>> {
    Ok(match table {
        Table::WebhookDeliveries => {
            use webhook_deliveries as d;
            let query = d::table.filter(d::event_id.eq_any(event_ids)).limit(limit).select(d::id);
            on!(conn, |c| query.load(c).await)?
        }
        Table::EmailQueue => {
            use email_queue as d;
            let query = d::table.filter(d::event_id.eq_any(event_ids)).limit(limit).select(d::id);
            on!(conn, |c| query.load(c).await)?
        }
    })
}

/// How many deliveries these events have.
pub async fn count_of_events(conn: &mut Conn, table: Table, event_ids: &[String]) -> Result<i64> {
    Ok(match table {
        Table::WebhookDeliveries => {
            use webhook_deliveries as d;
            let query = d::table.filter(d::event_id.eq_any(event_ids)).select(count_star());
            on!(conn, |c| query.first(c).await)?
        }
        Table::EmailQueue => {
            use email_queue as d;
            let query = d::table.filter(d::event_id.eq_any(event_ids)).select(count_star());
            on!(conn, |c| query.first(c).await)?
        }
    })
}

/// Removes deliveries with their attempts, whatever their state.  A result that comes later finds nothing to be written
/// to.
pub async fn erase(conn: &mut Conn, table: Table, ids: &[String]) -> Result<()> {
    on_table!(table, conn, |d, c| diesel::delete(d::table).filter(d::id.eq_any(ids)).execute(c).await)?;
    remove_attempts(conn, ids).await
}
