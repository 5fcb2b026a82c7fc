//! The queries of recipient lists.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::clock::Timestamp;
use crate::db::schema::recipient_lists;
use crate::db::types::StringList;
use crate::db::{Conn, on_duplicate};
use crate::error::{Error, Result};
use crate::on;

/// A list.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = recipient_lists)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct RecipientList {
    pub name: String,
    pub description: String,
    pub addresses: StringList,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The addresses of all lists, by name.
pub async fn all(conn: &mut Conn) -> Result<HashMap<String, Vec<String>>> {
    let query = recipient_lists::table.select((recipient_lists::name, recipient_lists::addresses));
    let rows: Vec<(String, StringList)> = on!(conn, |c| query.load(c).await)?;
    Ok(rows.into_iter().map(|(name, addresses)| (name, addresses.0)).collect())
}

/// Lists after a name.
pub(super) async fn after(conn: &mut Conn, name: &str, limit: i64) -> Result<Vec<RecipientList>> {
    Ok(on!(conn, |c| recipient_lists::table
        .filter(recipient_lists::name.gt(name))
        .order(recipient_lists::name)
        .limit(limit)
        .select(RecipientList::as_select())
        .load(c)
        .await)?)
}

/// One list.
pub(super) async fn find(conn: &mut Conn, name: &str) -> Result<RecipientList> {
    let row: Option<RecipientList> = on!(conn, |c| recipient_lists::table
        .find(name)
        .select(RecipientList::as_select())
        .first(c)
        .await
        .optional())?;
    row.ok_or_else(|| Error::not_found("recipient list", name))
}

/// Adds a list.
pub(super) async fn insert(conn: &mut Conn, list: &RecipientList) -> Result<()> {
    let insert = diesel::insert_into(recipient_lists::table).values(list.clone());
    on!(conn, |c| insert.execute(c).await)
        .map_err(|error| on_duplicate(error, "recipient list", &list.name))?;
    Ok(())
}

/// Writes a changed list.
pub(super) async fn update(conn: &mut Conn, list: &RecipientList) -> Result<()> {
    let update = diesel::update(recipient_lists::table.find(list.name.clone())).set(list.clone());
    on!(conn, |c| update.execute(c).await)?;
    Ok(())
}

/// Removes a list.
pub(super) async fn delete(conn: &mut Conn, name: &str) -> Result<()> {
    let delete = diesel::delete(recipient_lists::table.find(name));
    on!(conn, |c| delete.execute(c).await)?;
    Ok(())
}
