//! The queries of pulled endpoints.

use diesel::prelude::*;
use diesel::upsert::excluded;
use diesel_async::RunQueryDsl;

use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::schema::webhook_cursors as c;
use crate::error::Result;
use crate::on;

/// Up to where an endpoint's receiver has acknowledged; `None` for one that is not pulled.
pub(super) async fn place(conn: &mut Conn, webhook_id: &str) -> Result<Option<i64>> {
    let query = c::table.find(webhook_id).select(c::position);
    Ok(on!(conn, |c| query.first(c).await.optional())?)
}

/// Puts an endpoint's place there.
pub(super) async fn put(conn: &mut Conn, webhook_id: &str, position: i64, now: Timestamp) -> Result<()> {
    let row = (c::webhook_id.eq(webhook_id), c::position.eq(position), c::updated_at.eq(now));
    let place = (c::position.eq(excluded(c::position)), c::updated_at.eq(excluded(c::updated_at)));
    let insert = diesel::insert_into(c::table).values(row).on_conflict(c::webhook_id).do_update().set(place);
    on!(conn, |c| insert.execute(c).await)?;
    Ok(())
}

/// Moves an endpoint's place there, if that is further on.
pub(super) async fn advance(conn: &mut Conn, webhook_id: &str, position: i64, now: Timestamp) -> Result<()> {
    let before = c::table.filter(c::webhook_id.eq(webhook_id)).filter(c::position.lt(position));
    let update = diesel::update(before).set((c::position.eq(position), c::updated_at.eq(now)));
    on!(conn, |c| update.execute(c).await)?;
    Ok(())
}

/// Forgets an endpoint's place.
pub(super) async fn forget(conn: &mut Conn, webhook_id: &str) -> Result<()> {
    let delete = diesel::delete(c::table.find(webhook_id));
    on!(conn, |c| delete.execute(c).await)?;
    Ok(())
}
