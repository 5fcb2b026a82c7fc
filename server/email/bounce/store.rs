//! The queries of reports.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::db::Conn;
use crate::db::schema::{email_queue, email_recipients};
use crate::db::types::StringList;
use crate::email::suppression;
use crate::error::Result;
use crate::on;

/// The recipients of a mail, as [`suppression::key`] writes them; none when there is no such mail.
pub(super) async fn recipients(conn: &mut Conn, email_id: &str) -> Result<Vec<String>> {
    let kept = email_recipients::table
        .filter(email_recipients::email_id.eq(email_id))
        .select(email_recipients::address);
    let kept: Vec<String> = on!(conn, |c| kept.load(c).await)?;
    if !kept.is_empty() {
        return Ok(kept);
    }
    // A mail of a version that kept no row for each recipient.
    use email_queue as e;
    let lists: Option<(StringList, StringList, StringList)> = on!(conn, |c| e::table
        .find(email_id)
        .select((e::to_addresses, e::cc_addresses, e::bcc_addresses))
        .first(c)
        .await
        .optional())?;
    let (to, cc, bcc) = lists.unwrap_or_default();
    let written = [to.0, cc.0, bcc.0].into_iter().flatten();
    Ok(written.filter_map(|text| suppression::key(&text).ok()).collect())
}
