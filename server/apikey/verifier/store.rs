//! The queries of the verifier.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::store::ApiKey;
use crate::db::schema::{api_key_credits, api_keys};
use crate::db::{Conn, revision};
use crate::error::Result;
use crate::on;

/// What the database has of a key.
pub(super) struct Kept {
    /// The key.
    pub key: ApiKey,
    /// Its MAC.
    pub mac: Vec<u8>,
    /// The version of its credits, if it has any.
    pub credits: Option<i64>,
}

/// The key with this prefix.
pub(super) async fn find(conn: &mut Conn, prefix: &str) -> Result<Option<Kept>> {
    let query = api_keys::table.filter(api_keys::key_prefix.eq(prefix));
    let found: Option<(ApiKey, Vec<u8>)> =
        on!(conn, |c| query.select((ApiKey::as_select(), api_keys::key_hash)).first(c).await.optional())?;
    let Some((key, mac)) = found else { return Ok(None) };
    let credits = match &key.credits_id {
        None => None,
        Some(id) => {
            let query = api_key_credits::table.find(id).select(api_key_credits::version);
            on!(conn, |c| query.first(c).await.optional())?
        }
    };
    Ok(Some(Kept { key, mac, credits }))
}

/// The prefix of the key with this id.
pub(super) async fn prefix(conn: &mut Conn, key_id: &str) -> Result<Option<String>> {
    let query = api_keys::table.find(key_id).select(api_keys::key_prefix);
    Ok(on!(conn, |c| query.first(c).await.optional())?)
}

/// The newest revision of keys.
pub(super) async fn revision(conn: &mut Conn) -> Result<i64> {
    revision::current(conn, revision::API_KEYS).await
}

/// The prefixes of the keys that changed after a revision.
pub(super) async fn changed_after(conn: &mut Conn, revision: i64) -> Result<Vec<String>> {
    let query = api_keys::table.filter(api_keys::revision.gt(revision)).select(api_keys::key_prefix);
    Ok(on!(conn, |c| query.load(c).await)?)
}
