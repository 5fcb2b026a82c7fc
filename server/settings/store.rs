//! The queries of settings.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::schema::settings;
use crate::error::Result;
use crate::on;

/// A stored setting.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = settings)]
pub struct SettingRow {
    pub key: String,
    pub value: Option<String>,
    pub sealed: Option<Vec<u8>>,
    pub updated_by: String,
    pub updated_at: Timestamp,
}

/// All of them.
pub(super) async fn all(conn: &mut Conn) -> Result<Vec<SettingRow>> {
    Ok(on!(conn, |c| settings::table.order(settings::key).select(SettingRow::as_select()).load(c).await)?)
}

/// Writes one.
pub(super) async fn put(conn: &mut Conn, row: SettingRow) -> Result<()> {
    delete(conn, &row.key).await?;
    on!(conn, |c| diesel::insert_into(settings::table).values(row).execute(c).await)?;
    Ok(())
}

/// Removes one.
pub(super) async fn delete(conn: &mut Conn, key: &str) -> Result<()> {
    let delete = diesel::delete(settings::table.find(key));
    on!(conn, |c| delete.execute(c).await)?;
    Ok(())
}
