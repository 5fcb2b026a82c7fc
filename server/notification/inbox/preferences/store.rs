//! The queries of preferences.

use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use diesel_async::RunQueryDsl;

use super::{EMAIL, INBOX, Preference, Preferences, Wishes};
use crate::db::schema::{inboxes, notification_addresses as a, notification_preferences as p};
use crate::db::{Conn, overwrite};
use crate::error::Result;
use crate::on;

/// A preference, as it is kept.
#[derive(Debug, Clone, Queryable, QueryableByName, Selectable, Insertable)]
#[diesel(table_name = p)]
pub struct WishRow {
    #[diesel(sql_type = Text)]
    pub user_id: String,
    #[diesel(sql_type = Text)]
    pub category: String,
    #[diesel(sql_type = Text)]
    pub channel: String,
    #[diesel(sql_type = Bool)]
    pub enabled: bool,
}

/// What a user wants.
pub(in crate::notification::inbox) async fn find(conn: &mut Conn, user_id: &str) -> Result<Preferences> {
    let query = inboxes::table.find(user_id).select(inboxes::preferences_version);
    let version: Option<i64> = on!(conn, |c| query.first(c).await.optional())?;
    let (email_address, version) = (address(conn, user_id).await?, version.unwrap_or_default());
    let rows: Vec<WishRow> = on!(conn, |c| p::table
        .filter(p::user_id.eq(user_id))
        .order((p::category, p::channel))
        .select(WishRow::as_select())
        .load(c)
        .await)?;
    let preference = |row: WishRow| Preference {
        category: row.category,
        channel: if row.channel == EMAIL { EMAIL } else { INBOX },
        enabled: row.enabled,
    };
    Ok(Preferences { preferences: rows.into_iter().map(preference).collect(), email_address, version })
}

async fn address(conn: &mut Conn, user_id: &str) -> Result<String> {
    let query = a::table.find(user_id).select(a::email_address);
    let found: Option<String> = on!(conn, |c| query.first(c).await.optional())?;
    Ok(found.unwrap_or_default())
}

/// The wishes of users for one channel.
pub(in crate::notification::inbox) async fn mutes(
    conn: &mut Conn,
    users: &[String],
    channel: &str,
) -> Result<Wishes> {
    let rows: Vec<WishRow> = on!(conn, |c| p::table
        .filter(p::user_id.eq_any(users))
        .filter(p::channel.eq(channel))
        .select(WishRow::as_select())
        .load(c)
        .await)?;
    Ok(Wishes::of(rows))
}

/// Makes the row of an inbox, and keeps everybody else away from it until the transaction ends.
pub(in crate::notification::inbox) async fn hold(conn: &mut Conn, user_id: &str) -> Result<()> {
    let row = (
        inboxes::user_id.eq(user_id),
        inboxes::unread.eq(0),
        inboxes::unseen.eq(0),
        inboxes::total.eq(0),
        inboxes::version.eq(0),
        inboxes::preferences_version.eq(0),
    );
    loop {
        let insert = diesel::insert_into(inboxes::table).values(row).on_conflict_do_nothing();
        on!(conn, |c| insert.execute(c).await)?;
        let Conn::Postgres(c) = conn else { return Ok(()) };
        let lock = inboxes::table.find(user_id).select(inboxes::user_id).for_update();
        let held: Option<String> = lock.first(&mut ***c).await.optional()?;
        // One that is erased in between is made again.
        if held.is_some() {
            return Ok(());
        }
    }
}

/// Writes what a user wants; the counts may be others by it.
pub(super) async fn put(conn: &mut Conn, user_id: &str, preferences: &Preferences) -> Result<()> {
    // What a user said before is not to be found when they are erased.
    overwrite(conn, true).await?;
    let put = write(conn, user_id, preferences).await;
    overwrite(conn, false).await?;
    put
}

async fn write(conn: &mut Conn, user_id: &str, preferences: &Preferences) -> Result<()> {
    on!(conn, |c| diesel::delete(p::table.filter(p::user_id.eq(user_id))).execute(c).await)?;
    for preference in &preferences.preferences {
        let row = WishRow {
            user_id: user_id.to_owned(),
            category: preference.category.clone(),
            channel: preference.channel.to_owned(),
            enabled: preference.enabled,
        };
        on!(conn, |c| diesel::insert_into(p::table).values(&row).execute(c).await)?;
    }
    if address(conn, user_id).await? != preferences.email_address {
        on!(conn, |c| diesel::delete(a::table.find(user_id)).execute(c).await)?;
        let row = (a::user_id.eq(user_id), a::email_address.eq(&preferences.email_address));
        on!(conn, |c| diesel::insert_into(a::table).values(row).execute(c).await)?;
    }
    let update = diesel::update(inboxes::table.find(user_id)).set((
        inboxes::preferences_version.eq(preferences.version),
        inboxes::version.eq(inboxes::version + 1),
    ));
    on!(conn, |c| update.execute(c).await)?;
    Ok(())
}
