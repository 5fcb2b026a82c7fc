//! The queries of private keys.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::db::Conn;
use crate::db::schema::webhooks;
use crate::error::Result;
use crate::on;

/// Puts another sealed private key in place of an endpoint's, or none.
pub(super) async fn set_key(conn: &mut Conn, webhook_id: &str, sealed: Option<Vec<u8>>) -> Result<()> {
    let update = diesel::update(webhooks::table.find(webhook_id)).set(webhooks::client_key.eq(sealed));
    on!(conn, |c| update.execute(c).await)?;
    Ok(())
}
