//! The statements that change inboxes, on the connection of a publish.

use std::collections::{BTreeMap, BTreeSet};

use diesel::deserialize::QueryableByName;
use diesel::pg::Pg;
use diesel::sql_types::{BigInt, Text};
use diesel::sqlite::Sqlite;

use super::super::model::{Mark, Selection};
use super::super::preferences::WishRow;
use super::super::select::{self, BROADCASTS, Conditions, LISTED_POSTGRES, LISTED_SQLITE};
use super::{Change, Delivery, Delta};
use crate::clock::Timestamp;
use crate::db::statement::{Bind, Statement};
use crate::db::{PostgresWriter, QueryResult, SqliteWriter};

/// A connection in the middle of a publish.
pub(super) enum Tx<'a> {
    Sqlite(&'a mut SqliteWriter),
    Postgres(&'a mut PostgresWriter),
}

/// What some rows are, before a change.
#[derive(Debug, Clone, Copy, Default, QueryableByName)]
pub(super) struct Tally {
    /// How many.
    #[diesel(sql_type = BigInt)]
    pub rows: i64,
    /// Those that are not archived.
    #[diesel(sql_type = BigInt)]
    pub open: i64,
    /// Of the open ones, those that are unread.
    #[diesel(sql_type = BigInt)]
    pub open_unread: i64,
    #[diesel(sql_type = BigInt)]
    pub open_unseen: i64,
    /// Of all, those that are unread.
    #[diesel(sql_type = BigInt)]
    pub unread: i64,
    #[diesel(sql_type = BigInt)]
    pub unseen: i64,
}

impl Tally {
    /// How the counts change when these rows are marked so.
    pub fn marked(&self, mark: Mark) -> Delta {
        let (unread, unseen) = match mark {
            Mark::Seen => (0, -self.open_unseen),
            Mark::Read | Mark::Archived => (-self.open_unread, -self.open_unseen),
            Mark::Unread => (self.open - self.open_unread, 0),
            Mark::Unarchived => (self.unread, self.unseen),
        };
        Delta { unread, unseen, total: 0 }
    }

    /// How they change when these rows go.
    pub fn removed(&self) -> Delta {
        Delta { unread: -self.open_unread, unseen: -self.open_unseen, total: -self.rows }
    }

    /// How they change when these rows are unread and unseen again.
    pub fn reset(&self) -> Delta {
        Delta { unread: self.open - self.open_unread, unseen: self.open - self.open_unseen, total: 0 }
    }
}

/// The columns of a [`Tally`].
const TALLY: &str = "count(*) AS rows,
    count(CASE WHEN n.archived_at IS NULL THEN 1 END) AS open,
    count(CASE WHEN n.archived_at IS NULL AND n.read_at IS NULL THEN 1 END) AS open_unread,
    count(CASE WHEN n.archived_at IS NULL AND n.seen_at IS NULL THEN 1 END) AS open_unseen,
    count(CASE WHEN n.read_at IS NULL THEN 1 END) AS unread,
    count(CASE WHEN n.seen_at IS NULL THEN 1 END) AS unseen";

#[derive(QueryableByName)]
struct Pair {
    #[diesel(sql_type = Text)]
    user_id: String,
    #[diesel(sql_type = Text)]
    id: String,
}

#[derive(QueryableByName)]
struct UserTotal {
    #[diesel(sql_type = Text)]
    user_id: String,
    #[diesel(sql_type = BigInt)]
    total: i64,
}

#[derive(QueryableByName)]
struct UserTally {
    #[diesel(sql_type = Text)]
    user_id: String,
    #[diesel(embed)]
    tally: Tally,
}

impl Tx<'_> {
    pub(super) async fn execute(&mut self, sql: &str, binds: Vec<Bind<'_>>) -> QueryResult<usize> {
        let statement = Statement::new(sql, binds);
        match self {
            Self::Sqlite(conn) => diesel::RunQueryDsl::execute(statement, &mut **conn),
            Self::Postgres(conn) => diesel_async::RunQueryDsl::execute(statement, &mut **conn).await,
        }
    }

    async fn load<T>(&mut self, sql: &str, binds: Vec<Bind<'_>>) -> QueryResult<Vec<T>>
    where
        T: QueryableByName<Pg> + QueryableByName<Sqlite> + Send + 'static,
    {
        let statement = Statement::new(sql, binds);
        match self {
            Self::Sqlite(conn) => diesel::RunQueryDsl::load(statement, &mut **conn),
            Self::Postgres(conn) => diesel_async::RunQueryDsl::load(statement, &mut **conn).await,
        }
    }

    fn listed(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => LISTED_SQLITE,
            Self::Postgres(_) => LISTED_POSTGRES,
        }
    }

    /// Makes the rows of these inboxes, and keeps everybody else away from them until the transaction ends.
    pub async fn hold(&mut self, users: &BTreeSet<&str>) -> QueryResult<()> {
        if users.is_empty() {
            return Ok(());
        }
        let all = select::json(users);
        let make = match self {
            // The condition tells the parser where the query ends.
            Self::Sqlite(_) => {
                "INSERT INTO inboxes (user_id, unread, unseen, total, version, preferences_version)
                 SELECT value, 0, 0, 0, 0, 0 FROM json_each(?) WHERE TRUE ON CONFLICT DO NOTHING"
            }
            Self::Postgres(_) => {
                "INSERT INTO inboxes (user_id, unread, unseen, total, version, preferences_version)
                 SELECT u, 0, 0, 0, 0, 0 FROM json_array_elements_text(?::json) AS u ON CONFLICT DO NOTHING"
            }
        };
        loop {
            self.execute(make, vec![Bind::Text(&all)]).await?;
            if let Self::Sqlite(_) = self {
                return Ok(());
            }
            let lock = "SELECT user_id FROM inboxes WHERE user_id = ANY(?) ORDER BY user_id FOR UPDATE";
            let held = self.execute(lock, vec![Bind::Texts(users.iter().copied().collect())]).await?;
            // One that is erased in between is made again.
            if held == users.len() {
                return Ok(());
            }
        }
    }

    /// What these users want in their inboxes.
    pub async fn wishes(&mut self, users: &BTreeSet<&str>) -> QueryResult<Vec<WishRow>> {
        let sql = format!(
            "SELECT user_id, category, channel, enabled FROM notification_preferences
             WHERE channel = 'inbox' AND user_id IN ({})",
            self.listed()
        );
        let all = select::json(users);
        self.load(&sql, vec![Bind::Text(&all)]).await
    }

    /// Removes what these take the place of; answers of each user what it was.
    pub async fn remove_replaced(&mut self, new: &[&Delivery]) -> QueryResult<Vec<(String, Tally)>> {
        let keyed: Vec<(&str, &str)> = new
            .iter()
            .filter_map(|delivery| Some((delivery.user_id.as_str(), delivery.replace_key.as_deref()?)))
            .collect();
        if keyed.is_empty() {
            return Ok(Vec::new());
        }
        let pairs = select::json(&keyed);
        // The same rows for the tally and the removal: nobody else touches these inboxes.
        let of = match self {
            Self::Sqlite(_) => {
                "(SELECT json_extract(value, '$[0]') AS user_id, json_extract(value, '$[1]') AS key FROM json_each(?))"
            }
            Self::Postgres(_) => {
                "(SELECT pair ->> 0 AS user_id, pair ->> 1 AS key FROM json_array_elements(?::json) AS pair)"
            }
        };
        let sql = format!(
            "SELECT n.user_id, {TALLY} FROM {of} AS k
             JOIN notifications n ON n.user_id = k.user_id AND n.replace_key = k.key GROUP BY n.user_id"
        );
        let found: Vec<UserTally> = self.load(&sql, vec![Bind::Text(&pairs)]).await?;
        if !found.is_empty() {
            let sql = format!(
                "DELETE FROM notifications WHERE (user_id, id) IN (SELECT n.user_id, n.id FROM {of} AS k
                 JOIN notifications n ON n.user_id = k.user_id AND n.replace_key = k.key)"
            );
            self.execute(&sql, vec![Bind::Text(&pairs)]).await?;
        }
        Ok(found.into_iter().map(|row| (row.user_id, row.tally)).collect())
    }

    /// Puts these into their inboxes; answers those that were not there already.
    pub async fn insert(&mut self, new: &[&Delivery]) -> QueryResult<Vec<(String, String)>> {
        let columns = "user_id, id, position, event_id, category, title, message, priority, action_url, data,
            replace_key, created_at, updated_at, expires_at";
        let tail = "ON CONFLICT (user_id, id) DO NOTHING RETURNING user_id, id";
        let mut pairs: Vec<Pair> = Vec::with_capacity(new.len());
        if let Self::Postgres(_) = self {
            if new.is_empty() {
                return Ok(Vec::new());
            }
            let texts = |pick: fn(&Delivery) -> &str| Bind::Texts(new.iter().map(|row| pick(row)).collect());
            let times = || Bind::Instants(new.iter().map(|row| row.created_at).collect());
            let binds = vec![
                texts(|row| &row.user_id),
                texts(|row| &row.id),
                Bind::BigInts(new.iter().map(|row| row.position).collect()),
                texts(|row| &row.event_id),
                texts(|row| &row.content.category),
                texts(|row| &row.content.title),
                texts(|row| &row.content.message),
                Bind::Integers(new.iter().map(|row| row.content.priority as i32).collect()),
                texts(|row| &row.content.action_url),
                texts(|row| &row.content.data),
                Bind::NullableTexts(new.iter().map(|row| row.replace_key.as_deref()).collect()),
                times(),
                times(),
                Bind::NullableInstants(new.iter().map(|row| row.content.expires_at).collect()),
            ];
            let sql = format!(
                "INSERT INTO notifications ({columns})
                 SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) {tail}"
            );
            pairs = self.load(&sql, binds).await?;
        } else {
            let sql = format!(
                "INSERT INTO notifications ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) {tail}"
            );
            for row in new {
                let content = &row.content;
                let binds = vec![
                    Bind::Text(&row.user_id),
                    Bind::Text(&row.id),
                    Bind::BigInt(row.position),
                    Bind::Text(&row.event_id),
                    Bind::Text(&content.category),
                    Bind::Text(&content.title),
                    Bind::Text(&content.message),
                    Bind::Integer(content.priority as i32),
                    Bind::Text(&content.action_url),
                    Bind::Text(&content.data),
                    Bind::NullableText(row.replace_key.as_deref()),
                    Bind::Instant(row.created_at),
                    Bind::Instant(row.created_at),
                    Bind::NullableInstant(content.expires_at),
                ];
                pairs.extend(self.load::<Pair>(&sql, binds).await?);
            }
        }
        Ok(pairs.into_iter().map(|pair| (pair.user_id, pair.id)).collect())
    }

    /// Notes the mails that go when these are not seen.
    pub async fn insert_mails(&mut self, new: &[&Delivery]) -> QueryResult<()> {
        for row in new {
            let Some(due) = &row.mail else { continue };
            let sql = "INSERT INTO notification_mails (user_id, notification_id, email_address, due_at)
                       VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
            let binds = vec![
                Bind::Text(&row.user_id),
                Bind::Text(&row.id),
                Bind::Text(&due.email_address),
                Bind::Instant(due.at),
            ];
            self.execute(sql, binds).await?;
        }
        Ok(())
    }

    /// Changes the counts of inboxes; answers how many rows each has now.
    pub async fn count(&mut self, deltas: &BTreeMap<String, Delta>) -> QueryResult<Vec<(String, i64)>> {
        let mut totals: Vec<UserTotal> = Vec::new();
        if deltas.is_empty() {
            return Ok(Vec::new());
        }
        if let Self::Postgres(_) = self {
            let numbers = |pick: fn(&Delta) -> i64| Bind::BigInts(deltas.values().map(pick).collect());
            let binds = vec![
                Bind::Texts(deltas.keys().map(String::as_str).collect()),
                numbers(|delta| delta.unread),
                numbers(|delta| delta.unseen),
                numbers(|delta| delta.total),
            ];
            let sql = "UPDATE inboxes i SET unread = i.unread + d.unread, unseen = i.unseen + d.unseen,
                           total = i.total + d.total, version = i.version + 1
                       FROM unnest(?, ?, ?, ?) AS d (user_id, unread, unseen, total)
                       WHERE i.user_id = d.user_id RETURNING i.user_id, i.total";
            totals = self.load(sql, binds).await?;
        } else {
            let sql = "UPDATE inboxes SET unread = unread + ?, unseen = unseen + ?, total = total + ?,
                           version = version + 1 WHERE user_id = ? RETURNING user_id, total";
            for (user_id, delta) in deltas {
                let binds = vec![
                    Bind::BigInt(delta.unread),
                    Bind::BigInt(delta.unseen),
                    Bind::BigInt(delta.total),
                    Bind::Text(user_id),
                ];
                totals.extend(self.load::<UserTotal>(sql, binds).await?);
            }
        }
        Ok(totals.into_iter().map(|row| (row.user_id, row.total)).collect())
    }

    async fn tally(&mut self, conditions: &str, binds: Vec<Bind<'_>>) -> QueryResult<Tally> {
        let sql = format!("SELECT {TALLY} FROM notifications n WHERE {conditions}");
        Ok(self.load(&sql, binds).await?.pop().unwrap_or_default())
    }

    /// Removes the oldest of an inbox; answers what they were.
    pub async fn remove_oldest(&mut self, user_id: &str, count: i64) -> QueryResult<Tally> {
        let oldest =
            "n.user_id = ? AND n.position <= (SELECT o.position FROM notifications o WHERE o.user_id = ?
                      ORDER BY o.position LIMIT 1 OFFSET ?)";
        let binds = || vec![Bind::Text(user_id), Bind::Text(user_id), Bind::BigInt(count - 1)];
        let tally = self.tally(oldest, binds()).await?;
        self.execute(&format!("DELETE FROM notifications AS n WHERE {oldest}"), binds()).await?;
        Ok(tally)
    }

    /// Marks a user's own notifications; answers what those were that it changed.
    pub async fn mark(&mut self, mark: Mark, selection: &Selection, now: Timestamp) -> QueryResult<Tally> {
        let (ids, listed) = (select::ids(selection), self.listed());
        let conditions = || {
            let mut conditions = Conditions::own(&selection.user_id, now);
            conditions.selected("n", "n", selection, mark, &ids, listed);
            conditions
        };
        let Conditions { sql, binds } = conditions();
        let tally = self.tally(&sql, binds).await?;
        if tally.rows > 0 {
            let (set, times) = match mark {
                Mark::Seen => ("seen_at = ?", 1),
                Mark::Read => ("read_at = ?, seen_at = coalesce(seen_at, ?)", 2),
                Mark::Unread => ("read_at = NULL", 0),
                Mark::Archived => {
                    ("archived_at = ?, read_at = coalesce(read_at, ?), seen_at = coalesce(seen_at, ?)", 3)
                }
                Mark::Unarchived => ("archived_at = NULL", 0),
            };
            let mut all: Vec<Bind<'_>> = (0..times).map(|_| Bind::Instant(now)).collect();
            let Conditions { sql, binds } = conditions();
            all.extend(binds);
            self.execute(&format!("UPDATE notifications AS n SET {set} WHERE {sql}"), all).await?;
        }
        Ok(tally)
    }

    /// Marks broadcasts for a user; answers how many it changed.
    pub async fn mark_broadcasts(
        &mut self,
        mark: Mark,
        selection: &Selection,
        now: Timestamp,
    ) -> QueryResult<i64> {
        let (ids, listed) = (select::ids(selection), self.listed());
        // What is set already stays: the first time counts.
        let (seen, read, archived, times) = match mark {
            Mark::Seen => ("coalesce(s.seen_at, ?)", "s.read_at", "s.archived_at", 1),
            Mark::Read => ("coalesce(s.seen_at, ?)", "coalesce(s.read_at, ?)", "s.archived_at", 2),
            Mark::Unread => ("s.seen_at", "NULL", "s.archived_at", 0),
            Mark::Archived => {
                ("coalesce(s.seen_at, ?)", "coalesce(s.read_at, ?)", "coalesce(s.archived_at, ?)", 3)
            }
            Mark::Unarchived => ("s.seen_at", "s.read_at", "NULL", 0),
        };
        let mut conditions = Conditions::broadcasts(&selection.user_id, now);
        conditions.selected("b", "s", selection, mark, &ids, listed);
        let sql = format!(
            "INSERT INTO broadcast_states (user_id, broadcast_id, position, seen_at, read_at, archived_at)
             SELECT ?, b.id, b.position, {seen}, {read}, {archived} FROM {BROADCASTS} WHERE {}
             ON CONFLICT (user_id, broadcast_id) DO UPDATE SET position = excluded.position,
                 seen_at = excluded.seen_at, read_at = excluded.read_at, archived_at = excluded.archived_at",
            conditions.sql
        );
        let mut binds = vec![Bind::Text(&selection.user_id)];
        binds.extend((0..times).map(|_| Bind::Instant(now)));
        binds.push(Bind::Text(&selection.user_id));
        binds.extend(conditions.binds);
        Ok(self.execute(&sql, binds).await? as i64)
    }

    /// Changes what a notification of a user says, and makes it as new at a place if that is given; answers what it was.
    pub async fn change(
        &mut self,
        user_id: &str,
        id: &str,
        change: &Change,
        unread_at: Option<i64>,
        now: Timestamp,
    ) -> QueryResult<Tally> {
        let key = || vec![Bind::Text(user_id), Bind::Text(id)];
        let tally = self.tally("n.user_id = ? AND n.id = ?", key()).await?;
        if tally.rows == 0 {
            return Ok(tally);
        }
        let (mut set, mut binds) = set(change, now);
        if let Some(position) = unread_at {
            set.push_str(", position = ?, seen_at = NULL, read_at = NULL");
            binds.push(Bind::BigInt(position));
        }
        binds.extend(key());
        self.execute(&format!("UPDATE notifications SET {set} WHERE user_id = ? AND id = ?"), binds).await?;
        Ok(tally)
    }

    /// Takes a notification out of an inbox; answers what it was.
    pub async fn remove(&mut self, user_id: &str, id: &str) -> QueryResult<Tally> {
        let key = || vec![Bind::Text(user_id), Bind::Text(id)];
        let tally = self.tally("n.user_id = ? AND n.id = ?", key()).await?;
        if tally.rows > 0 {
            self.execute("DELETE FROM notifications WHERE user_id = ? AND id = ?", key()).await?;
        }
        Ok(tally)
    }
}

/// What was done by a future that had nothing to wait for.
pub(super) fn at_once<T>(done: Option<QueryResult<T>>) -> QueryResult<T> {
    done.unwrap_or_else(|| Err(diesel::result::Error::QueryBuilderError("SQLite made somebody wait".into())))
}

/// What a change sets.
pub(super) fn set(change: &Change, now: Timestamp) -> (String, Vec<Bind<'_>>) {
    let (mut set, mut binds) = ("updated_at = ?".to_owned(), vec![Bind::Instant(now)]);
    let texts = [
        ("category", &change.category),
        ("title", &change.title),
        ("message", &change.message),
        ("action_url", &change.action_url),
        ("data", &change.data),
    ];
    for (column, text) in texts {
        if let Some(text) = text {
            set.push_str(&format!(", {column} = ?"));
            binds.push(Bind::Text(text));
        }
    }
    if let Some(priority) = change.priority {
        set.push_str(", priority = ?");
        binds.push(Bind::SmallInt(priority as i16));
    }
    if let Some(at) = change.expires_at {
        set.push_str(", expires_at = ?");
        binds.push(Bind::NullableInstant(at));
    }
    (set, binds)
}
