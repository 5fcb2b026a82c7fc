//! The queries of registered scopes.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::clock::Timestamp;
use crate::db::schema::api_key_scopes;
use crate::db::{Conn, on_duplicate};
use crate::error::Result;
use crate::on;

/// A scope of an application.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = api_key_scopes)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct RegisteredScope {
    pub name: String,
    pub description: String,
    pub created_at: Timestamp,
}

/// All of them, by name.
pub(super) async fn all(conn: &mut Conn) -> Result<Vec<RegisteredScope>> {
    let query = api_key_scopes::table.order(api_key_scopes::name);
    Ok(on!(conn, |c| query.select(RegisteredScope::as_select()).load(c).await)?)
}

/// Adds one.
pub(super) async fn insert(conn: &mut Conn, scope: &RegisteredScope) -> Result<()> {
    let insert = diesel::insert_into(api_key_scopes::table).values(scope.clone());
    on!(conn, |c| insert.execute(c).await).map_err(|error| on_duplicate(error, "scope", &scope.name))?;
    Ok(())
}

/// Removes one; answers whether there was one.
pub(super) async fn delete(conn: &mut Conn, name: &str) -> Result<bool> {
    let delete = diesel::delete(api_key_scopes::table.find(name));
    Ok(on!(conn, |c| delete.execute(c).await)? == 1)
}
