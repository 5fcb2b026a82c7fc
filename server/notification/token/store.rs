//! The queries of tokens: there is nothing to keep of a token, but of what was ended.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::clock::Timestamp;
use crate::db::schema::token_revocations;
use crate::db::{Conn, revision};
use crate::error::Result;
use crate::on;

/// The newest revision.
pub(super) async fn revision(conn: &mut Conn) -> Result<i64> {
    revision::current(conn, revision::TOKENS).await
}

/// The users whose tokens were ended after a revision, and up to when.
pub(super) async fn ended_after(conn: &mut Conn, revision: i64) -> Result<Vec<(String, Timestamp)>> {
    let query = token_revocations::table
        .filter(token_revocations::revision.gt(revision))
        .select((token_revocations::user_id, token_revocations::revoked_at));
    Ok(on!(conn, |c| query.load(c).await)?)
}

/// Ends the tokens of a user that were made up to a time; answers up to when they are ended, which is never earlier than before.
pub(super) async fn end(conn: &mut Conn, user_id: &str, now: Timestamp) -> Result<Timestamp> {
    // First, so that two of these do not go on at a time.
    let revision = revision::bump(conn, revision::TOKENS).await?;
    let former = token_revocations::table.find(user_id);
    let query = former.select(token_revocations::revoked_at);
    let before: Option<Timestamp> = on!(conn, |c| query.first(c).await.optional())?;
    let revoked_at = before.map_or(now, |before| before.max(now));
    on!(conn, |c| diesel::delete(former).execute(c).await)?;
    let row = (
        token_revocations::user_id.eq(user_id),
        token_revocations::revoked_at.eq(revoked_at),
        token_revocations::revision.eq(revision),
    );
    on!(conn, |c| diesel::insert_into(token_revocations::table).values(row).execute(c).await)?;
    Ok(revoked_at)
}

/// Forgets what was ended before a time.
pub(super) async fn forget(conn: &mut Conn, before: Timestamp) -> Result<usize> {
    let old = token_revocations::table.filter(token_revocations::revoked_at.lt(before));
    Ok(on!(conn, |c| diesel::delete(old).execute(c).await)?)
}
