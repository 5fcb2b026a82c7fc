//! The queries of deliveries in order.

use std::collections::HashSet;
use std::sync::Arc;

use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;

use super::{PARKED, Sequence};
use crate::clock::Timestamp;
use crate::db::schema::webhook_deliveries as d;
use crate::db::statement::{Bind, Statement};
use crate::db::{Conn, PostgresWriter, QueryResult, SqliteWriter};
use crate::error::Result;
use crate::on;

/// The states that have not ended, in the words of the partial index.
macro_rules! unfinished {
    () => {
        "status IN ('scheduled', 'pending', 'retrying', 'held', 'sending')"
    };
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = Text)]
    lane: String,
    #[diesel(sql_type = Text)]
    key: String,
}

impl From<Found> for Sequence {
    fn from(Found { lane, key }: Found) -> Self {
        Self { lane: lane.into(), key: key.into() }
    }
}

/// Those that have a delivery that has not ended, on SQLite.
pub fn busy_sqlite(conn: &mut SqliteWriter, sequences: &[Sequence]) -> QueryResult<HashSet<Sequence>> {
    let sql = concat!(
        "SELECT webhook_id AS lane, ordering_key AS key FROM webhook_deliveries
         WHERE webhook_id = ? AND ordering_key = ? AND ",
        unfinished!(),
        " LIMIT 1"
    );
    let mut busy = HashSet::new();
    for Sequence { lane, key } in sequences {
        let query = Statement::new(sql, vec![Bind::Text(lane), Bind::Text(key)]);
        busy.extend(diesel::RunQueryDsl::load::<Found>(query, conn)?.into_iter().map(Sequence::from));
    }
    Ok(busy)
}

/// Those that have a delivery that has not ended, on PostgreSQL, under the lock of their lanes.
pub async fn busy_postgres(
    conn: &mut PostgresWriter,
    sequences: &[Sequence],
) -> QueryResult<HashSet<Sequence>> {
    lock(conn, sequences).await?;
    let sql = concat!(
        "SELECT s.lane, s.key FROM unnest(?, ?) AS s (lane, key)
         WHERE EXISTS (SELECT 1 FROM webhook_deliveries
                       WHERE webhook_id = s.lane AND ordering_key = s.key AND ",
        unfinished!(),
        ")"
    );
    let found: Vec<Found> = Statement::new(sql, binds(sequences)).load(conn).await?;
    Ok(found.into_iter().map(Sequence::from).collect())
}

/// Keeps every other publish and completion away from these lanes until the transaction ends.  Taken before the lock of any
/// delivery, and by all in one order, so that no two wait for each other.
pub async fn lock(conn: &mut PostgresWriter, sequences: &[Sequence]) -> QueryResult<()> {
    let mut lanes: Vec<&str> = sequences.iter().map(|sequence| &*sequence.lane).collect();
    lanes.sort_unstable();
    lanes.dedup();
    // One after the other: what order a query would take them in is the planner's choice.
    for lane in lanes {
        let sql = "SELECT pg_advisory_xact_lock(hashtextextended('webhook order ' || ?, 0))";
        Statement::new(sql, vec![Bind::Text(lane)]).execute(conn).await?;
    }
    Ok(())
}

/// Makes the first parked delivery of a sequence due, if nothing else of it is due or in hand, on SQLite.
pub fn release_sqlite(conn: &mut SqliteWriter, sequence: &Sequence, now: Timestamp) -> QueryResult<()> {
    let sql = concat!(
        "UPDATE webhook_deliveries SET next_attempt_at = ?, updated_at = ?
         WHERE next_attempt_at = ? AND id = (
             SELECT id FROM webhook_deliveries WHERE webhook_id = ? AND ordering_key = ? AND ",
        unfinished!(),
        " ORDER BY next_attempt_at, ordering_position LIMIT 1)"
    );
    let binds = vec![
        Bind::Instant(now),
        Bind::Instant(now),
        Bind::Instant(PARKED),
        Bind::Text(&sequence.lane),
        Bind::Text(&sequence.key),
    ];
    diesel::RunQueryDsl::execute(Statement::new(sql, binds), conn).map(drop)
}

/// Makes the first parked delivery of each sequence due that has nothing else due or in hand, on PostgreSQL.
pub async fn release_postgres(
    conn: &mut PostgresWriter,
    sequences: &[Sequence],
    now: Timestamp,
) -> QueryResult<()> {
    let sql = concat!(
        "UPDATE webhook_deliveries d SET next_attempt_at = ?, updated_at = ?
         FROM (SELECT DISTINCT lane, key FROM unnest(?, ?) AS given (lane, key)) s
         CROSS JOIN LATERAL (
             SELECT id, next_attempt_at FROM webhook_deliveries
             WHERE webhook_id = s.lane AND ordering_key = s.key AND ",
        unfinished!(),
        " ORDER BY next_attempt_at, ordering_position LIMIT 1) head
         WHERE d.id = head.id AND head.next_attempt_at = ?"
    );
    let mut all = vec![Bind::Instant(now), Bind::Instant(now)];
    all.extend(binds(sequences));
    all.push(Bind::Instant(PARKED));
    Statement::new(sql, all).execute(conn).await.map(drop)
}

/// Makes the first parked delivery of each sequence due that has nothing else due or in hand.
pub async fn release(conn: &mut Conn, sequences: Vec<Sequence>, now: Timestamp) -> Result<()> {
    match conn {
        _ if sequences.is_empty() => {}
        Conn::Postgres(c) => release_postgres(c, &sequences, now).await?,
        Conn::Sqlite(c) => {
            let release = move |c: &mut SqliteWriter| {
                sequences.iter().try_for_each(|sequence| release_sqlite(c, sequence, now))
            };
            (***c).spawn_blocking(release).await?;
        }
    }
    Ok(())
}

/// The sequences of deliveries, with their lanes locked on PostgreSQL.
pub async fn of_deliveries(conn: &mut Conn, ids: &[String]) -> Result<Vec<Sequence>> {
    let query = d::table
        .filter(d::id.eq_any(ids))
        .filter(d::ordering_key.is_not_null())
        .select((d::webhook_id, d::ordering_key))
        .distinct();
    let found: Vec<(String, Option<String>)> = on!(conn, |c| query.load(c).await)?;
    let sequence =
        |(lane, key): (String, Option<String>)| Some(Sequence { lane: lane.into(), key: Arc::from(key?) });
    let sequences: Vec<_> = found.into_iter().filter_map(sequence).collect();
    hold(conn, &sequences).await?;
    Ok(sequences)
}

/// As [`lock`]; SQLite's one writer needs none.
pub async fn hold(conn: &mut Conn, sequences: &[Sequence]) -> Result<()> {
    if let Conn::Postgres(c) = conn {
        lock(c, sequences).await?;
    }
    Ok(())
}

fn binds(sequences: &[Sequence]) -> Vec<Bind<'_>> {
    let lanes = sequences.iter().map(|sequence| &*sequence.lane).collect();
    let keys = sequences.iter().map(|sequence| &*sequence.key).collect();
    vec![Bind::Texts(lanes), Bind::Texts(keys)]
}
