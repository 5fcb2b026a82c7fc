//! The queries of erasing.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::db::Conn;
use crate::db::schema::{events, live_ephemeral};
use crate::error::Result;
use crate::on;

/// Up to `limit` events of a subject after one position and up to another, in their order: positions and ids.
pub(super) async fn of_subject(
    conn: &mut Conn,
    subject: &str,
    after: i64,
    last: i64,
    limit: i64,
) -> Result<Vec<(i64, String)>> {
    let query = events::table
        .filter(events::subject.eq(subject))
        // In the words of the index, which the databases use only for this very condition.
        .filter(diesel::dsl::sql::<diesel::sql_types::Bool>("subject <> ''"))
        .filter(events::position.gt(after))
        .filter(events::position.le(last))
        .order(events::position)
        .limit(limit)
        .select((events::position, events::id));
    Ok(on!(conn, |c| query.load(c).await)?)
}

/// Removes events; answers how many there were.
pub(super) async fn remove(conn: &mut Conn, ids: &[String]) -> Result<i64> {
    let delete = diesel::delete(events::table.filter(events::id.eq_any(ids)));
    Ok(on!(conn, |c| delete.execute(c).await)? as i64)
}

/// Removes the ephemeral events of a subject that are kept for other nodes.
pub(super) async fn forget_ephemeral(conn: &mut Conn, subject: &str) -> Result<()> {
    let delete = diesel::delete(live_ephemeral::table.filter(live_ephemeral::subject.eq(subject)));
    on!(conn, |c| delete.execute(c).await)?;
    Ok(())
}
