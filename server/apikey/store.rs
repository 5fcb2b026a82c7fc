//! The queries of API keys.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::model::{KeyKind, Rules};
use crate::clock::Timestamp;
use crate::db::schema::api_keys;
use crate::db::types::StringList;
use crate::db::{Conn, revision};
use crate::error::{Error, Result};
use crate::on;

/// A key, without anything that could be used as one.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = api_keys, treat_none_as_null = true)]
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
    #[diesel(serialize_as = String, deserialize_as = String)]
    pub kind: KeyKind,
    pub external_id: String,
    pub metadata: String,
    pub disabled: bool,
    #[diesel(serialize_as = String, deserialize_as = String)]
    pub rules: Rules,
    pub credits_id: Option<String>,
    pub replaces: Option<String>,
    pub replaced_by: Option<String>,
    pub expiry_notice: Option<i16>,
    pub unannounced: String,
    pub version: i64,
    pub revision: i64,
}

impl ApiKey {
    /// Whether it works.
    pub fn works(&self, now: Timestamp) -> bool {
        self.active && !self.disabled && self.expires_at > now
    }
}

impl From<KeyKind> for String {
    fn from(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Live => "live".into(),
            KeyKind::Test => "test".into(),
        }
    }
}

impl From<String> for KeyKind {
    fn from(text: String) -> Self {
        if text == "test" { Self::Test } else { Self::Live }
    }
}

impl From<Rules> for String {
    fn from(rules: Rules) -> Self {
        serde_json::to_string(&rules).expect("rules are plain values")
    }
}

impl TryFrom<String> for Rules {
    type Error = serde_json::Error;

    fn try_from(text: String) -> Result<Self, serde_json::Error> {
        serde_json::from_str(&text)
    }
}

/// One key.
pub(super) async fn find(conn: &mut Conn, id: &str) -> Result<ApiKey> {
    let row: Option<ApiKey> =
        on!(conn, |c| api_keys::table.find(id).select(ApiKey::as_select()).first(c).await.optional())?;
    row.ok_or_else(|| Error::not_found("API key", id))
}

/// Which keys to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyFilter<'a> {
    /// Only those that work, or only those that do not.
    pub active: Option<bool>,
    /// Only those with this external id; empty means all.
    pub external_id: &'a str,
}

/// Keys after an id.
pub(super) async fn after(
    conn: &mut Conn,
    id: &str,
    filter: KeyFilter<'_>,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<ApiKey>> {
    macro_rules! query {
        () => {{
            let query = api_keys::table.filter(api_keys::id.gt(id)).order(api_keys::id).limit(limit);
            let mut query = query.select(ApiKey::as_select()).into_boxed();
            let works =
                api_keys::active.eq(true).and(api_keys::disabled.eq(false)).and(api_keys::expires_at.gt(now));
            match filter.active {
                Some(true) => query = query.filter(works),
                Some(false) => query = query.filter(diesel::dsl::not(works)),
                None => {}
            }
            if !filter.external_id.is_empty() {
                query = query.filter(api_keys::external_id.eq(filter.external_id));
            }
            query
        }};
    }
    Ok(on!(conn, |c| query!().load(c).await)?)
}

/// Says that a key changes: every node reads it again.  The first step of a transaction that changes keys, so that two do
/// not change the same one at a time.
pub(super) async fn next_revision(conn: &mut Conn) -> Result<i64> {
    revision::bump(conn, revision::API_KEYS).await
}

/// Adds a key.
pub(super) async fn insert(conn: &mut Conn, key: &ApiKey, mac: Vec<u8>) -> Result<()> {
    on!(conn, |c| {
        let row = (key.clone(), api_keys::key_hash.eq(mac));
        diesel::insert_into(api_keys::table).values(row).execute(c).await
    })?;
    Ok(())
}

/// Writes a changed key.
pub(super) async fn update(conn: &mut Conn, key: &ApiKey) -> Result<()> {
    let update = || diesel::update(api_keys::table.find(key.id.clone())).set(key.clone());
    on!(conn, |c| update().execute(c).await)?;
    Ok(())
}

/// Says of all keys with these credits that they change; answers their prefixes.
pub(super) async fn touch_sharing(conn: &mut Conn, credits_id: &str, revision: i64) -> Result<Vec<String>> {
    let sharing = api_keys::table.filter(api_keys::credits_id.eq(credits_id));
    let update = diesel::update(sharing).set(api_keys::revision.eq(revision));
    Ok(on!(conn, |c| update.returning(api_keys::key_prefix).get_results(c).await)?)
}

/// Keys with events that are not published yet.
pub(super) async fn unannounced(conn: &mut Conn, limit: i64) -> Result<Vec<ApiKey>> {
    let query = api_keys::table.filter(api_keys::unannounced.ne("")).order(api_keys::id).limit(limit);
    Ok(on!(conn, |c| query.select(ApiKey::as_select()).load(c).await)?)
}

/// Notes that the events of a key are published, unless there are others by now.
pub(super) async fn announced(conn: &mut Conn, id: &str, events: &str) -> Result<()> {
    let same = api_keys::table.find(id).filter(api_keys::unannounced.eq(events));
    let update = diesel::update(same).set(api_keys::unannounced.eq(""));
    on!(conn, |c| update.execute(c).await)?;
    Ok(())
}

/// Keys that work, end before `end` and were not announced to end within `days` days.
pub(super) async fn ending(
    conn: &mut Conn,
    now: Timestamp,
    end: Timestamp,
    days: i16,
    limit: i64,
) -> Result<Vec<ApiKey>> {
    let works = api_keys::active.eq(true).and(api_keys::disabled.eq(false));
    let soon = api_keys::expires_at.gt(now).and(api_keys::expires_at.le(end));
    let notice = api_keys::expiry_notice;
    let query = api_keys::table
        .filter(works.and(soon))
        // Whoever uses a key that was replaced was told so.
        .filter(api_keys::replaced_by.is_null())
        .filter(notice.is_null().or(notice.assume_not_null().gt(days)))
        .order(api_keys::expires_at)
        .limit(limit);
    Ok(on!(conn, |c| query.select(ApiKey::as_select()).load(c).await)?)
}

/// Notes for how many days before a key's end it was announced.
pub(super) async fn noticed(conn: &mut Conn, id: &str, expires_at: Timestamp, days: i16) -> Result<()> {
    // A key that got more time meanwhile is announced anew.
    let same = api_keys::table.find(id).filter(api_keys::expires_at.eq(expires_at));
    let update = diesel::update(same).set(api_keys::expiry_notice.eq(days));
    on!(conn, |c| update.execute(c).await)?;
    Ok(())
}
