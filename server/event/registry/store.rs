//! The queries of registered event types.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::clock::Timestamp;
use crate::db::schema::event_types;
use crate::db::{Conn, on_duplicate};
use crate::error::Result;
use crate::on;

/// A registered type.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = event_types)]
pub struct EventTypeRow {
    pub name: String,
    pub description: String,
    pub fields: String,
    pub json_schema: String,
    pub sample: String,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// All of them.
pub async fn all(conn: &mut Conn) -> Result<Vec<EventTypeRow>> {
    Ok(on!(conn, |c| event_types::table
        .order(event_types::name)
        .select(EventTypeRow::as_select())
        .load(c)
        .await)?)
}

/// Those after a name.
pub async fn after(conn: &mut Conn, name: &str, limit: i64) -> Result<Vec<EventTypeRow>> {
    Ok(on!(conn, |c| event_types::table
        .filter(event_types::name.gt(name))
        .order(event_types::name)
        .limit(limit)
        .select(EventTypeRow::as_select())
        .load(c)
        .await)?)
}

/// One.
pub async fn find(conn: &mut Conn, name: &str) -> Result<Option<EventTypeRow>> {
    Ok(on!(conn, |c| event_types::table
        .find(name)
        .select(EventTypeRow::as_select())
        .first(c)
        .await
        .optional())?)
}

/// Adds one.
pub async fn insert(conn: &mut Conn, row: &EventTypeRow) -> Result<()> {
    let insert = diesel::insert_into(event_types::table).values(row.clone());
    on!(conn, |c| insert.execute(c).await).map_err(|error| on_duplicate(error, "event type", &row.name))?;
    Ok(())
}

/// Writes a changed one.
pub async fn update(conn: &mut Conn, row: &EventTypeRow) -> Result<()> {
    let update = diesel::update(event_types::table.find(row.name.clone())).set(row.clone());
    on!(conn, |c| update.execute(c).await)?;
    Ok(())
}

/// Removes one; answers whether there was one.
pub async fn delete(conn: &mut Conn, name: &str) -> Result<bool> {
    let delete = diesel::delete(event_types::table.find(name));
    Ok(on!(conn, |c| delete.execute(c).await)? == 1)
}
