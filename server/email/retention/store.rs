//! The queries that remove what belongs to mails.

use diesel::dsl::{exists, not};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::db::Conn;
use crate::db::schema::{email_activities, email_attachments, email_blobs};
use crate::error::Result;
use crate::on;

/// The files of these mails, each once.
pub(super) async fn files(conn: &mut Conn, ids: &[String]) -> Result<Vec<String>> {
    use email_attachments as a;
    let query = a::table.filter(a::email_id.eq_any(ids)).select(a::blob_id).distinct().order(a::blob_id);
    Ok(on!(conn, |c| query.load(c).await)?)
}

/// Removes what happened to these mails.
pub(super) async fn remove_activities(conn: &mut Conn, ids: &[String]) -> Result<()> {
    let activities = email_activities::table.filter(email_activities::email_id.eq_any(ids));
    on!(conn, |c| diesel::delete(activities).execute(c).await)?;
    Ok(())
}

/// Removes those of these files that no mail has any more.
pub(super) async fn remove_unused(conn: &mut Conn, files: Vec<String>) -> Result<()> {
    use {email_attachments as a, email_blobs as b};
    if files.is_empty() {
        return Ok(());
    }
    if let Conn::Postgres(c) = conn {
        // Whoever queues a mail with one of them holds it until the commit: looked at after that, its mail is seen.
        let hold = b::table.filter(b::id.eq_any(&files)).order(b::id).select(b::id).for_update();
        let _: Vec<String> = hold.load(&mut ***c).await?;
    }
    let unused = diesel::delete(b::table)
        .filter(b::id.eq_any(&files))
        .filter(not(exists(a::table.filter(a::blob_id.eq(b::id)))));
    on!(conn, |c| unused.execute(c).await)?;
    Ok(())
}
