//! The log: all events in the order of their commit.
//!
//! Positions come from one row, taken under its lock inside the publishing transaction, so that a reader who has seen a
//! position will never find a smaller one later.  They have no gaps but for what was erased, and before [`start`].

use std::sync::Arc;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::model::{Event, Fact};
use crate::clock::Timestamp;
use crate::db::schema::{event_log, event_log_start, events};
use crate::db::statement::{Bind, Statement};
use crate::db::{Conn, Db, PostgresWriter, QueryResult, SqliteWriter};
use crate::error::Result;
use crate::on;

const ROW: i16 = 1;

/// Makes the log of a new database; `epoch` tells it from every other.
pub async fn create(db: &Db, epoch: i64) -> Result<()> {
    db.transaction(move |conn| {
        Box::pin(async move {
            let row = (event_log::id.eq(ROW), event_log::epoch.eq(epoch), event_log::next_position.eq(1));
            on!(conn, |c| diesel::insert_into(event_log::table)
                .values(row)
                .on_conflict_do_nothing()
                .execute(c)
                .await)?;
            Ok(())
        })
    })
    .await
}

/// The log's epoch, and the position of the last event in it.
pub async fn head(conn: &mut Conn) -> Result<(i64, i64)> {
    let query = event_log::table.find(ROW).select((event_log::epoch, event_log::next_position));
    let (epoch, next): (i64, i64) = on!(conn, |c| query.first(c).await)?;
    Ok((epoch, next - 1))
}

/// Where the log begins: what stands there or before it may have been removed for its age.  After it the log is whole,
/// but for what was erased.
pub async fn start(conn: &mut Conn) -> Result<i64> {
    let query = event_log_start::table.find(ROW).select(event_log_start::position);
    Ok(on!(conn, |c| query.first(c).await)?)
}

/// Moves the beginning of the log to `position`, unless it is there or further; in the transaction that removes what
/// stands before.
pub(super) async fn move_start(conn: &mut Conn, position: i64) -> Result<()> {
    use event_log_start as s;
    let update =
        diesel::update(s::table.find(ROW)).filter(s::position.lt(position)).set(s::position.eq(position));
    on!(conn, |c| update.execute(c).await)?;
    Ok(())
}

/// Up to `limit` events after `position`, in order.
pub async fn read_after(conn: &mut Conn, position: i64, limit: i64) -> Result<Vec<Event>> {
    let rows: Vec<EventRow> = on!(conn, |c| events::table
        .filter(events::position.gt(position))
        .order(events::position)
        .limit(limit)
        .select(EventRow::as_select())
        .load(c)
        .await)?;
    Ok(rows.into_iter().map(Event::from).collect())
}

/// Up to `limit` events of these topics after `position`, in order; none of the topics is the default one.
pub(super) async fn read_topics_after(
    conn: &mut Conn,
    position: i64,
    topics: &[Arc<str>],
    limit: i64,
) -> Result<Vec<Event>> {
    let topics: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
    let rows: Vec<EventRow> = on!(conn, |c| events::table
        .filter(events::position.gt(position))
        .filter(events::topic.eq_any(&topics))
        // In these words, so that the database sees that the index has all of them.
        .filter(diesel::dsl::sql::<diesel::sql_types::Bool>("topic <> 'events'"))
        .order(events::position)
        .limit(limit)
        .select(EventRow::as_select())
        .load(c)
        .await)?;
    Ok(rows.into_iter().map(Event::from).collect())
}

/// Takes `count` positions on SQLite; answers the first.
pub(super) fn take_positions_sqlite(conn: &mut SqliteWriter, count: i64) -> QueryResult<i64> {
    let next = event_log::next_position;
    let update = diesel::update(event_log::table.find(ROW)).set(next.eq(next + count)).returning(next);
    diesel::RunQueryDsl::get_result::<i64>(update, conn).map(|after| after - count)
}

/// Takes `count` positions on PostgreSQL; answers the first.  Others wait for this transaction's end.
pub(super) async fn take_positions_postgres(conn: &mut PostgresWriter, count: i64) -> QueryResult<i64> {
    let next = event_log::next_position;
    let update = diesel::update(event_log::table.find(ROW)).set(next.eq(next + count)).returning(next);
    update.get_result::<i64>(conn).await.map(|after| after - count)
}

/// Appends on SQLite.
pub(super) fn append_sqlite(conn: &mut SqliteWriter, events: &[Event]) -> QueryResult<()> {
    for event in events {
        let insert = diesel::insert_into(events::table).values(NewEventRow::from(event));
        diesel::RunQueryDsl::execute(insert, conn)?;
    }
    Ok(())
}

/// Appends on PostgreSQL.
pub(super) async fn append_postgres(conn: &mut PostgresWriter, events: &[Event]) -> QueryResult<()> {
    let texts = |pick: fn(&Fact) -> &str| Bind::Texts(events.iter().map(|event| pick(&event.fact)).collect());
    let binds = vec![
        Bind::BigInts(events.iter().map(|event| event.position).collect()),
        texts(|fact| &fact.id),
        texts(|fact| &fact.event_type),
        texts(|fact| &fact.data),
        texts(|fact| &fact.actor),
        texts(|fact| &fact.subject),
        texts(|fact| &fact.topic),
        Bind::Instants(events.iter().map(|event| event.fact.created_at).collect()),
    ];
    let sql = "INSERT INTO events (position, id, event_type, data, actor, subject, topic, created_at)
               SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?)";
    Statement::new(sql, binds).execute(conn).await.map(drop)
}

/// Where an event stands and since when, on SQLite.
pub(super) fn place_sqlite(conn: &mut SqliteWriter, event_id: &str) -> QueryResult<Option<(i64, Timestamp)>> {
    let query = events::table.filter(events::id.eq(event_id)).select((events::position, events::created_at));
    diesel::RunQueryDsl::first(query, conn).optional()
}

/// Where an event stands and since when, on PostgreSQL.
pub(super) async fn place_postgres(
    conn: &mut PostgresWriter,
    event_id: &str,
) -> QueryResult<Option<(i64, Timestamp)>> {
    let query = events::table.filter(events::id.eq(event_id)).select((events::position, events::created_at));
    query.first(conn).await.optional()
}

#[derive(Insertable)]
#[diesel(table_name = events)]
struct NewEventRow<'a> {
    position: i64,
    id: &'a str,
    event_type: &'a str,
    data: &'a str,
    actor: &'a str,
    subject: &'a str,
    topic: &'a str,
    created_at: Timestamp,
}

impl<'a> From<&'a Event> for NewEventRow<'a> {
    fn from(Event { position, fact }: &'a Event) -> Self {
        let Fact { id, event_type, data, actor, subject, topic, created_at } = &**fact;
        Self { position: *position, id, event_type, data, actor, subject, topic, created_at: *created_at }
    }
}

/// An event's row.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = events)]
pub struct EventRow {
    position: i64,
    id: String,
    event_type: String,
    data: String,
    actor: String,
    subject: String,
    topic: String,
    created_at: Timestamp,
}

impl From<EventRow> for Event {
    fn from(row: EventRow) -> Self {
        let EventRow { position, id, event_type, data, actor, subject, topic, created_at } = row;
        let (id, event_type, topic) = (id.into(), event_type.into(), topic.into());
        Self { position, fact: Arc::new(Fact { id, event_type, data, actor, subject, topic, created_at }) }
    }
}
