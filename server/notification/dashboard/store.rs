//! The queries of the dashboard.

use std::collections::BTreeMap;
use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_async::RunQueryDsl;

use super::COUNTED;
use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::schema::{dashboard_nodes as d, dashboard_turn as t, presence_users as p};
use crate::db::statement::{Bind, Statement};
use crate::error::Result;
use crate::event::log;
use crate::on;

const ROW: i16 = 1;

/// Since when the interval is that a publisher tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Since {
    /// `None` when nobody published before.
    pub at: Option<Timestamp>,
    /// The end of the log then.
    pub position: i64,
}

/// Whether it is this node's turn.
#[derive(Debug)]
pub(super) struct Turn {
    /// The interval, when it is.
    pub taken: Option<Since>,
    /// When the next turn is.
    pub next: Timestamp,
}

/// Takes the turn, if it is time.
pub(super) async fn take_turn(conn: &mut Conn, now: Timestamp, interval: Duration) -> Result<Turn> {
    let first = (t::id.eq(ROW), t::taken_at.eq(Timestamp::default()), t::position.eq(0));
    let insert = diesel::insert_into(t::table).values(first).on_conflict_do_nothing();
    on!(&mut *conn, |c| insert.execute(c).await)?;
    let row = t::table.find(ROW).select((t::taken_at, t::position));
    let (taken_at, position): (Timestamp, i64) = match &mut *conn {
        Conn::Postgres(c) => row.for_update().first(&mut ***c).await?,
        Conn::Sqlite(c) => row.first(&mut ***c).await?,
    };
    // A time that has not come yet was written by a clock that is wrong.
    if now.since(taken_at) < interval && taken_at <= now + interval {
        return Ok(Turn { taken: None, next: taken_at + interval });
    }
    let (_, head) = log::head(conn).await?;
    let update = diesel::update(t::table.find(ROW)).set((t::taken_at.eq(now), t::position.eq(head)));
    on!(conn, |c| update.execute(c).await)?;
    let at = (taken_at > Timestamp::default()).then_some(taken_at);
    Ok(Turn { taken: Some(Since { at, position }), next: now + interval })
}

/// Writes down what a node knows of itself, and forgets what nodes wrote that are long gone.
pub(super) async fn write_down(conn: &mut Conn, node_id: i64, numbers: &str, now: Timestamp) -> Result<()> {
    let row = (d::node_id.eq(node_id), d::numbers.eq(numbers), d::updated_at.eq(now));
    let set = (d::numbers.eq(numbers), d::updated_at.eq(now));
    let upsert = diesel::insert_into(d::table).values(row).on_conflict(d::node_id).do_update().set(set);
    on!(&mut *conn, |c| upsert.execute(c).await)?;
    let old = d::table.filter(d::updated_at.lt(now - Duration::from_secs(24 * 60 * 60)));
    on!(conn, |c| diesel::delete(old).execute(c).await)?;
    Ok(())
}

/// What the other nodes wrote down since this time.
pub(super) async fn of_others(conn: &mut Conn, node_id: i64, since: Timestamp) -> Result<Vec<String>> {
    let query = d::table.filter(d::node_id.ne(node_id)).filter(d::updated_at.ge(since)).select(d::numbers);
    Ok(on!(conn, |c| query.load(c).await)?)
}

/// A table of deliveries, and the conditions of its indexes of what is not finished.
#[derive(Clone, Copy)]
pub(super) struct Queue {
    table: &'static str,
    conditions: [&'static str; 3],
}

const WAITING: &str = "status IN ('scheduled', 'pending', 'retrying', 'held')";
const SENDING: &str = "status = 'sending'";

/// The mails.
pub(super) const EMAILS: Queue = Queue {
    table: "email_queue",
    conditions: [
        WAITING,
        SENDING,
        // Both, because SQLite takes an index for its own condition only.
        "status = 'failed' AND status IN ('scheduled', 'retrying', 'held', 'failed', 'cancelled', 'unknown')",
    ],
};
/// The deliveries to webhooks.
pub(super) const WEBHOOKS: Queue =
    Queue { table: "webhook_deliveries", conditions: [WAITING, SENDING, "status = 'failed'"] };

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// How many deliveries there are in each state that is not a success.
pub(super) async fn queue(conn: &mut Conn, queue: Queue) -> Result<BTreeMap<String, i64>> {
    let Queue { table, conditions } = queue;
    let part = |condition: &str| {
        format!("SELECT status FROM (SELECT status FROM {table} WHERE {condition} LIMIT {COUNTED}) AS part")
    };
    let parts = conditions.map(part).join(" UNION ALL ");
    let sql = format!("SELECT status, count(*) AS number FROM ({parts}) AS parts GROUP BY status");
    let counts: Vec<Count> = on!(conn, |c| Statement::new(&sql, Vec::new()).load(c).await)?;
    let zero = ["failed", "held", "pending", "retrying", "scheduled", "sending"]
        .map(|status| (status.to_owned(), 0));
    let mut all = BTreeMap::from(zero);
    all.extend(counts.into_iter().map(|count| (count.status, count.number)));
    Ok(all)
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// How many API keys work now, counted up to `limit`.
pub(super) async fn active_keys(conn: &mut Conn, now: Timestamp, limit: i64) -> Result<i64> {
    let sql = "SELECT count(*) AS number FROM
                   (SELECT 1 AS one FROM api_keys WHERE active AND expires_at > ? LIMIT ?) AS working";
    let binds = vec![Bind::Instant(now), Bind::BigInt(limit)];
    let found: Number = on!(conn, |c| Statement::new(sql, binds).get_result(c).await)?;
    Ok(found.number)
}

/// How many users are online.
pub(super) async fn online(conn: &mut Conn) -> Result<i64> {
    let query = p::table.filter(p::online).count();
    Ok(on!(conn, |c| query.get_result(c).await)?)
}
