//! What warnings are made of.

use std::collections::HashMap;

use diesel::dsl::count_star;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::schema::{
    api_key_activity as activity, api_key_networks as networks, api_key_usage as usage, api_keys,
};
use crate::error::Result;
use crate::on;

/// When keys were last used.
pub(super) async fn last_used(conn: &mut Conn, keys: &[String]) -> Result<HashMap<String, Timestamp>> {
    let query = activity::table
        .filter(activity::key_id.eq_any(keys))
        .select((activity::key_id, activity::last_used_at));
    let found: Vec<(String, Timestamp)> = on!(conn, |c| query.load(c).await)?;
    Ok(found.into_iter().collect())
}

/// The networks that keys were used from, and since when.
pub(super) async fn networks(conn: &mut Conn, keys: &[String]) -> Result<Vec<(String, Timestamp)>> {
    let query = networks::table
        .filter(networks::key_id.eq_any(keys))
        .select((networks::key_id, networks::first_used_at));
    Ok(on!(conn, |c| query.load(c).await)?)
}

/// Calls of keys since a time, by the first digit of their status.
pub(super) async fn statuses(
    conn: &mut Conn,
    keys: &[String],
    since: Timestamp,
) -> Result<Vec<(String, i16, i64)>> {
    let query = usage::table.filter(usage::key_id.eq_any(keys)).filter(usage::started_at.ge(since)).select((
        usage::key_id,
        usage::status_class,
        usage::calls,
    ));
    Ok(on!(conn, |c| query.load(c).await)?)
}

/// How many keys that work there are of external ids; a key that is replaced is one with the one that replaces it.
pub(super) async fn keys_of(
    conn: &mut Conn,
    external_ids: &[String],
    now: Timestamp,
) -> Result<HashMap<String, i64>> {
    macro_rules! query {
        () => {
            api_keys::table
                .filter(api_keys::active.eq(true).and(api_keys::disabled.eq(false)))
                .filter(api_keys::expires_at.gt(now).and(api_keys::replaced_by.is_null()))
                .filter(api_keys::external_id.eq_any(external_ids))
                .group_by(api_keys::external_id)
                .select((api_keys::external_id, count_star()))
        };
    }
    let found: Vec<(String, i64)> = on!(conn, |c| query!().load(c).await)?;
    Ok(found.into_iter().collect())
}

/// How many keys without an external id that work there are by who made them.
pub(super) async fn keys_by(
    conn: &mut Conn,
    makers: &[String],
    now: Timestamp,
) -> Result<HashMap<String, i64>> {
    macro_rules! query {
        () => {
            api_keys::table
                .filter(api_keys::active.eq(true).and(api_keys::disabled.eq(false)))
                .filter(api_keys::expires_at.gt(now).and(api_keys::replaced_by.is_null()))
                .filter(api_keys::external_id.eq("").and(api_keys::created_by.eq_any(makers)))
                .group_by(api_keys::created_by)
                .select((api_keys::created_by, count_star()))
        };
    }
    let found: Vec<(String, i64)> = on!(conn, |c| query!().load(c).await)?;
    Ok(found.into_iter().collect())
}
