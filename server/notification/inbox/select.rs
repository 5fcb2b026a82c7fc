//! The conditions by which notifications are found, as SQL text with its binds: the same for those who ask and those who
//! change, and for both databases.

use super::model::{Mark, Selection, Which};
use crate::clock::Timestamp;
use crate::db::statement::Bind;

/// Conditions that are all true of what is looked for.
#[derive(Debug, Default)]
pub(super) struct Conditions<'a> {
    pub sql: String,
    pub binds: Vec<Bind<'a>>,
}

/// What is kept of the broadcasts that a user has, beside what that user did with them.
pub(super) const BROADCASTS: &str = "broadcasts b LEFT JOIN broadcast_states s
    ON s.user_id = ? AND s.broadcast_id = b.id AND s.position = b.position";

/// The broadcasts that are there and that the user wants, as far as it is a broadcast's own column that says so.
const WANTED: &str = "b.withdrawn_at IS NULL AND (b.expires_at IS NULL OR b.expires_at > ?)
    AND (b.priority = 4 OR coalesce(
        (SELECT p.enabled FROM notification_preferences p
         WHERE p.user_id = ? AND p.category = b.category AND p.channel = 'inbox'),
        (SELECT p.enabled FROM notification_preferences p
         WHERE p.user_id = ? AND p.category = '*' AND p.channel = 'inbox'), TRUE))";

/// Where a notification stands in an inbox; nothing when it is not there.
const PLACE: &str = "(SELECT x.position FROM notifications x WHERE x.user_id = ? AND x.id = ?
    UNION ALL SELECT y.position FROM broadcasts y WHERE y.id = ? AND y.withdrawn_at IS NULL LIMIT 1)";

impl<'a> Conditions<'a> {
    /// Adds one.
    pub fn and(&mut self, sql: &str, binds: impl IntoIterator<Item = Bind<'a>>) {
        if !self.sql.is_empty() {
            self.sql.push_str(" AND ");
        }
        self.sql.push_str(sql);
        self.binds.extend(binds);
    }

    /// A user's own notifications that have not expired.
    pub fn own(user_id: &'a str, now: Timestamp) -> Self {
        let mut conditions = Self::default();
        conditions.and("n.user_id = ?", [Bind::Text(user_id)]);
        conditions.and("(n.expires_at IS NULL OR n.expires_at > ?)", [Bind::Instant(now)]);
        conditions
    }

    /// The broadcasts that a user has.
    pub fn broadcasts(user_id: &'a str, now: Timestamp) -> Self {
        let mut conditions = Self::default();
        conditions.and(WANTED, [Bind::Instant(now), Bind::Text(user_id), Bind::Text(user_id)]);
        conditions
    }

    /// Of the rows of `table`, those that are selected and that a mark would change.  `ids` is the selection's ids as
    /// JSON, and `listed` the query that makes a list of it.
    pub fn selected(
        &mut self,
        table: &str,
        states: &str,
        selection: &'a Selection,
        mark: Mark,
        ids: &'a str,
        listed: &str,
    ) {
        match &selection.which {
            Which::Ids(_) => self.and(&format!("{table}.id IN ({listed})"), [Bind::Text(ids)]),
            // One that is gone by now still says until when.
            Which::UpTo(id) => {
                let sql = format!("({table}.position <= {PLACE} OR ({PLACE} IS NULL AND {table}.id <= ?))");
                let place = || [Bind::Text(&selection.user_id), Bind::Text(id), Bind::Text(id)];
                self.and(&sql, place().into_iter().chain(place()).chain([Bind::Text(id)]));
            }
        }
        if !selection.category.is_empty() {
            self.and(&format!("{table}.category = ?"), [Bind::Text(&selection.category)]);
        }
        let needed = match mark {
            Mark::Seen => "seen_at IS NULL",
            Mark::Read => "read_at IS NULL",
            Mark::Unread => "read_at IS NOT NULL",
            Mark::Archived => "archived_at IS NULL",
            Mark::Unarchived => "archived_at IS NOT NULL",
        };
        self.and(&format!("{states}.{needed}"), []);
    }
}

/// The ids of a selection, as JSON; empty for one that has none.
pub(super) fn ids(selection: &Selection) -> String {
    match &selection.which {
        Which::Ids(ids) => json(ids),
        Which::UpTo(_) => String::new(),
    }
}

/// A list for [`LISTED_SQLITE`] and [`LISTED_POSTGRES`].
pub(super) fn json<T: serde::Serialize>(list: T) -> String {
    serde_json::to_string(&list).expect("texts are JSON")
}

/// The texts of a list in JSON, on SQLite.
pub(super) const LISTED_SQLITE: &str = "SELECT value FROM json_each(?)";
/// The same on PostgreSQL.
pub(super) const LISTED_POSTGRES: &str = "SELECT json_array_elements_text(?::json)";
