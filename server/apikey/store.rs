//! The queries of API keys.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::schema::api_keys;
use crate::db::types::StringList;
use crate::error::{Error, Result};
use crate::on;

/// A key, without anything that could be used as one.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = api_keys)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct ApiKey {
    pub id: String,
    pub name: String,
    pub description: String,
    pub scopes: StringList,
    pub key_prefix: String,
    pub active: bool,
    pub created_by: String,
    pub expires_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The key with this prefix, and its MAC.
pub(super) async fn find_by_prefix(conn: &mut Conn, prefix: &str) -> Result<Option<(ApiKey, Vec<u8>)>> {
    Ok(on!(conn, |c| api_keys::table
        .filter(api_keys::key_prefix.eq(prefix))
        .select((ApiKey::as_select(), api_keys::key_hash))
        .first(c)
        .await
        .optional())?)
}

/// One key.
pub(super) async fn find(conn: &mut Conn, id: &str) -> Result<ApiKey> {
    let row: Option<ApiKey> =
        on!(conn, |c| api_keys::table.find(id).select(ApiKey::as_select()).first(c).await.optional())?;
    row.ok_or_else(|| Error::not_found("API key", id))
}

/// Keys after an id.
pub(super) async fn after(
    conn: &mut Conn,
    id: &str,
    active: Option<bool>,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<ApiKey>> {
    macro_rules! query {
        () => {{
            let query = api_keys::table.filter(api_keys::id.gt(id)).order(api_keys::id).limit(limit);
            let mut query = query.select(ApiKey::as_select()).into_boxed();
            match active {
                Some(true) => {
                    query = query.filter(api_keys::active.eq(true).and(api_keys::expires_at.gt(now)))
                }
                Some(false) => {
                    query = query.filter(api_keys::active.eq(false).or(api_keys::expires_at.le(now)))
                }
                None => {}
            }
            query
        }};
    }
    Ok(on!(conn, |c| query!().load(c).await)?)
}

/// Adds a key.
pub(super) async fn insert(conn: &mut Conn, key: &ApiKey, mac: Vec<u8>) -> Result<()> {
    let insert = diesel::insert_into(api_keys::table).values((key.clone(), api_keys::key_hash.eq(mac)));
    on!(conn, |c| insert.execute(c).await)?;
    Ok(())
}

/// Ends a key.
pub(super) async fn revoke(conn: &mut Conn, id: &str, now: Timestamp) -> Result<()> {
    let update = diesel::update(api_keys::table.find(id).filter(api_keys::active.eq(true))).set((
        api_keys::active.eq(false),
        api_keys::revoked_at.eq(now),
        api_keys::updated_at.eq(now),
    ));
    on!(conn, |c| update.execute(c).await)?;
    Ok(())
}
