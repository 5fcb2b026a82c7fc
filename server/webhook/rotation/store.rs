//! The queries of secrets.

use std::collections::HashMap;

use diesel::dsl::count_star;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::FormerSecret;
use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::schema::{webhook_former_secrets as f, webhooks};
use crate::error::Result;
use crate::on;

/// The sealed secret of an endpoint.
pub(in crate::webhook) async fn secret(conn: &mut Conn, webhook_id: &str) -> Result<Vec<u8>> {
    let query = webhooks::table.find(webhook_id).select(webhooks::secret);
    Ok(on!(conn, |c| query.first(c).await)?)
}

/// Puts another sealed secret in its place.
pub(in crate::webhook) async fn set_secret(conn: &mut Conn, webhook_id: &str, sealed: Vec<u8>) -> Result<()> {
    let update = diesel::update(webhooks::table.find(webhook_id)).set(webhooks::secret.eq(sealed));
    on!(conn, |c| update.execute(c).await)?;
    Ok(())
}

/// The former secrets of all endpoints, newest first, by endpoint.
pub(in crate::webhook) async fn all(conn: &mut Conn) -> Result<HashMap<String, Vec<FormerSecret>>> {
    let query = f::table.order((f::webhook_id, f::version.desc())).select((
        f::webhook_id,
        f::version,
        f::secret,
        f::expires_at,
    ));
    let rows: Vec<(String, i64, Vec<u8>, Timestamp)> = on!(conn, |c| query.load(c).await)?;
    let mut all = HashMap::<_, Vec<_>>::new();
    for (webhook_id, version, sealed, expires_at) in rows {
        all.entry(webhook_id).or_default().push(FormerSecret { version, sealed, expires_at });
    }
    Ok(all)
}

/// Keeps a secret that was replaced until it ends.
pub(super) async fn insert(
    conn: &mut Conn,
    webhook_id: &str,
    version: i64,
    sealed: Vec<u8>,
    end: Timestamp,
) -> Result<()> {
    let row =
        (f::webhook_id.eq(webhook_id), f::version.eq(version), f::secret.eq(sealed), f::expires_at.eq(end));
    let insert = diesel::insert_into(f::table).values(row);
    on!(conn, |c| insert.execute(c).await)?;
    Ok(())
}

/// How many former secrets an endpoint has.
pub(super) async fn count(conn: &mut Conn, webhook_id: &str) -> Result<i64> {
    let query = f::table.filter(f::webhook_id.eq(webhook_id)).select(count_star());
    Ok(on!(conn, |c| query.first(c).await)?)
}

/// When the last of an endpoint's former secrets ends.
pub(super) async fn last_end(conn: &mut Conn, webhook_id: &str) -> Result<Option<Timestamp>> {
    let query =
        f::table.filter(f::webhook_id.eq(webhook_id)).order(f::expires_at.desc()).select(f::expires_at);
    Ok(on!(conn, |c| query.first(c).await.optional())?)
}

/// Ends every former secret of an endpoint.
pub(in crate::webhook) async fn end(conn: &mut Conn, webhook_id: &str) -> Result<()> {
    let delete = diesel::delete(f::table.filter(f::webhook_id.eq(webhook_id)));
    on!(conn, |c| delete.execute(c).await)?;
    Ok(())
}

/// Forgets the secrets that have ended.
pub(super) async fn forget(conn: &mut Conn, now: Timestamp) -> Result<()> {
    let delete = diesel::delete(f::table.filter(f::expires_at.le(now)));
    on!(conn, |c| delete.execute(c).await)?;
    Ok(())
}
