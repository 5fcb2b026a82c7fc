//! The queries of those who ask.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, SmallInt, Text};
use diesel_async::RunQueryDsl;

use super::model::{Content, Counts, Mark, Priority, Selection};
use super::select::{self, BROADCASTS, Conditions, LISTED_POSTGRES, LISTED_SQLITE};
use super::service::Listing;
use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::schema::{broadcasts as b, notifications as n};
use crate::db::statement::{Bind, Statement};
use crate::db::types::sql::Instant;
use crate::error::Result;
use crate::on;

/// A notification in somebody's inbox.
#[derive(Debug, Clone, QueryableByName)]
#[expect(missing_docs, reason = "as in the table")]
pub struct Row {
    #[diesel(sql_type = Text)]
    pub id: String,
    #[diesel(sql_type = BigInt)]
    pub position: i64,
    #[diesel(sql_type = Text)]
    pub event_id: String,
    #[diesel(sql_type = Text)]
    category: String,
    #[diesel(sql_type = Text)]
    title: String,
    #[diesel(sql_type = Text)]
    message: String,
    #[diesel(sql_type = SmallInt)]
    priority: i16,
    #[diesel(sql_type = Text)]
    action_url: String,
    #[diesel(sql_type = Text)]
    data: String,
    #[diesel(sql_type = Instant)]
    pub created_at: Timestamp,
    #[diesel(sql_type = Instant)]
    pub updated_at: Timestamp,
    #[diesel(sql_type = Nullable<Instant>)]
    pub seen_at: Option<Timestamp>,
    #[diesel(sql_type = Nullable<Instant>)]
    pub read_at: Option<Timestamp>,
    #[diesel(sql_type = Nullable<Instant>)]
    pub archived_at: Option<Timestamp>,
    #[diesel(sql_type = Nullable<Instant>)]
    expires_at: Option<Timestamp>,
    /// 1 for a broadcast.
    #[diesel(sql_type = BigInt)]
    broadcast: i64,
}

impl Row {
    /// Whether everybody has it.
    pub fn is_broadcast(&self) -> bool {
        self.broadcast == 1
    }

    /// What it says.
    pub fn content(&self) -> Content {
        Content {
            category: self.category.clone(),
            title: self.title.clone(),
            message: self.message.clone(),
            priority: Priority::of_number(self.priority),
            action_url: self.action_url.clone(),
            data: self.data.clone(),
            expires_at: self.expires_at,
        }
    }
}

/// The columns of content and time of a [`Row`] in a table.
macro_rules! columns {
    ($table:literal, $states:literal, $broadcast:literal) => {
        concat!(
            $table,
            ".id, ",
            $table,
            ".position, ",
            $table,
            ".event_id, ",
            $table,
            ".category, ",
            $table,
            ".title, ",
            $table,
            ".message, ",
            $table,
            ".priority, ",
            $table,
            ".action_url, ",
            $table,
            ".data, ",
            $table,
            ".created_at, ",
            $table,
            ".updated_at, ",
            $states,
            ".seen_at, ",
            $states,
            ".read_at, ",
            $states,
            ".archived_at, ",
            $table,
            ".expires_at, CAST(",
            $broadcast,
            " AS BIGINT) AS broadcast"
        )
    };
}

#[derive(QueryableByName)]
struct CountsRow {
    #[diesel(sql_type = BigInt)]
    unread: i64,
    #[diesel(sql_type = BigInt)]
    unseen: i64,
    #[diesel(sql_type = BigInt)]
    version: i64,
}

/// How many notifications of a user wait: what is kept of their own, without those that have expired and are still
/// there, and the broadcasts.  One statement, so that it sees one state of all.
pub(super) async fn counts(conn: &mut Conn, user_id: &str, now: Timestamp) -> Result<Counts> {
    let mut binds = Vec::new();
    let mut count = |state: &str| {
        let broadcasts = Conditions::broadcasts(user_id, now);
        binds.extend([Bind::Text(user_id), Bind::Text(user_id), Bind::Instant(now), Bind::Text(user_id)]);
        binds.extend(broadcasts.binds);
        format!(
            "coalesce((SELECT {state} FROM inboxes WHERE user_id = ?), 0)
             - (SELECT count(*) FROM notifications n WHERE n.user_id = ? AND n.expires_at <= ?
                AND n.{column} IS NULL AND n.archived_at IS NULL)
             + (SELECT count(*) FROM {BROADCASTS} WHERE {wanted} AND s.{column} IS NULL AND s.archived_at IS NULL)
             AS {state}",
            column = if state == "unread" { "read_at" } else { "seen_at" },
            wanted = broadcasts.sql,
        )
    };
    let sql = format!(
        "SELECT {}, {}, coalesce((SELECT version FROM inboxes WHERE user_id = ?), 0)
             + (SELECT value FROM revisions WHERE name = 'broadcasts') AS version",
        count("unread"),
        count("unseen")
    );
    binds.push(Bind::Text(user_id));
    let rows: Vec<CountsRow> = on!(conn, |c| Statement::new(&sql, binds).load(c).await)?;
    let counts = rows.into_iter().next();
    Ok(counts.map_or_else(Counts::default, |row| Counts {
        // One that expires while it is counted must not make less than nothing.
        unread: row.unread.max(0),
        unseen: row.unseen.max(0),
        version: row.version,
    }))
}

/// The first of what a user has, newest first: their own and broadcasts, each as many.
pub(super) async fn list(conn: &mut Conn, listing: &Listing, limit: i64, now: Timestamp) -> Result<Vec<Row>> {
    let narrow = |conditions: &mut Conditions<'_>, table: &str, states: &str| {
        let archived = if listing.archived { "IS NOT NULL" } else { "IS NULL" };
        conditions.and(&format!("{states}.archived_at {archived}"), []);
        if listing.unread_only {
            conditions.and(&format!("{states}.read_at IS NULL"), []);
        }
        if let Some(before) = listing.before {
            conditions.and(&format!("{table}.position < ?"), [Bind::BigInt(before)]);
        }
    };
    let mut own = Conditions::own(&listing.user_id, now);
    narrow(&mut own, "n", "n");
    let mut all = Conditions::broadcasts(&listing.user_id, now);
    narrow(&mut all, "b", "s");
    if !listing.category.is_empty() {
        own.and("n.category = ?", [Bind::Text(&listing.category)]);
        all.and("b.category = ?", [Bind::Text(&listing.category)]);
    }
    let sql = format!(
        "SELECT {} FROM notifications n WHERE {} ORDER BY n.position DESC LIMIT ?",
        columns!("n", "n", "0"),
        own.sql
    );
    own.binds.push(Bind::BigInt(limit));
    let mut rows: Vec<Row> = on!(conn, |c| Statement::new(&sql, own.binds).load(c).await)?;
    let sql = format!(
        "SELECT {} FROM {BROADCASTS} WHERE {} ORDER BY b.position DESC LIMIT ?",
        columns!("b", "s", "1"),
        all.sql
    );
    let mut binds = vec![Bind::Text(&listing.user_id)];
    binds.extend(all.binds);
    binds.push(Bind::BigInt(limit));
    rows.extend(on!(conn, |c| Statement::new(&sql, binds).load::<Row>(c).await)?);
    rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.position));
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(rows)
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = BigInt)]
    found: i64,
}

/// Whether a mark would change anything.
pub(super) async fn would_change(
    conn: &mut Conn,
    mark: Mark,
    selection: &Selection,
    now: Timestamp,
) -> Result<bool> {
    let ids = select::ids(selection);
    let listed = if matches!(conn, Conn::Postgres(_)) { LISTED_POSTGRES } else { LISTED_SQLITE };
    let mut own = Conditions::own(&selection.user_id, now);
    own.selected("n", "n", selection, mark, &ids, listed);
    let mut all = Conditions::broadcasts(&selection.user_id, now);
    all.selected("b", "s", selection, mark, &ids, listed);
    let sql = format!(
        "SELECT CAST(1 AS BIGINT) AS found WHERE EXISTS (SELECT 1 FROM notifications n WHERE {})
             OR EXISTS (SELECT 1 FROM {BROADCASTS} WHERE {})",
        own.sql, all.sql
    );
    let mut binds = own.binds;
    binds.push(Bind::Text(&selection.user_id));
    binds.extend(all.binds);
    let rows: Vec<Found> = on!(conn, |c| Statement::new(&sql, binds).load(c).await)?;
    Ok(rows.iter().any(|row| row.found == 1))
}

/// The users that have a notification, by id after `after`.
pub(super) async fn users_with(conn: &mut Conn, id: &str, after: &str, limit: i64) -> Result<Vec<String>> {
    let query = n::table
        .filter(n::id.eq(id))
        .filter(n::user_id.gt(after))
        .order(n::user_id)
        .limit(limit)
        .select(n::user_id);
    Ok(on!(conn, |c| query.load(c).await)?)
}

/// What a notification says, in the first of the inboxes that have it, or as a broadcast; and whether it is one.
pub(super) async fn content(conn: &mut Conn, id: &str) -> Result<Option<(Content, bool)>> {
    let sql = format!(
        "SELECT {} FROM notifications n WHERE n.id = ? ORDER BY n.user_id LIMIT 1",
        columns!("n", "n", "0")
    );
    let rows: Vec<Row> = on!(conn, |c| Statement::new(&sql, vec![Bind::Text(id)]).load(c).await)?;
    if let Some(row) = rows.into_iter().next() {
        return Ok(Some((row.content(), false)));
    }
    let sql = format!(
        "SELECT {} FROM broadcasts b LEFT JOIN broadcast_states s ON s.user_id = '' AND s.broadcast_id = b.id
         WHERE b.id = ? AND b.withdrawn_at IS NULL",
        columns!("b", "s", "1")
    );
    let rows: Vec<Row> = on!(conn, |c| Statement::new(&sql, vec![Bind::Text(id)]).load(c).await)?;
    Ok(rows.into_iter().next().map(|row| (row.content(), true)))
}

/// Whether there is a broadcast with this id.
pub(super) async fn is_broadcast(conn: &mut Conn, id: &str) -> Result<bool> {
    let query = b::table.find(id).filter(b::withdrawn_at.is_null()).select(b::id);
    let found: Option<String> = on!(conn, |c| query.first(c).await.optional())?;
    Ok(found.is_some())
}
