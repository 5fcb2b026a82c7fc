//! What is done to notifications that everybody has.

use super::store::{Tx, set};
use super::{Broadcast, Change};
use crate::clock::Timestamp;
use crate::db::QueryResult;
use crate::db::statement::Bind;

impl Tx<'_> {
    /// Adds a broadcast; `false` when there is one with its id.
    pub async fn insert_broadcast(&mut self, new: &Broadcast) -> QueryResult<bool> {
        let content = &new.content;
        let sql =
            "INSERT INTO broadcasts (id, position, event_id, category, title, message, priority, action_url,
                       data, created_at, updated_at, expires_at)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING";
        let binds = vec![
            Bind::Text(&new.id),
            Bind::BigInt(new.position),
            Bind::Text(&new.event_id),
            Bind::Text(&content.category),
            Bind::Text(&content.title),
            Bind::Text(&content.message),
            Bind::SmallInt(content.priority as i16),
            Bind::Text(&content.action_url),
            Bind::Text(&content.data),
            Bind::Instant(new.created_at),
            Bind::Instant(new.created_at),
            Bind::NullableInstant(content.expires_at),
        ];
        Ok(self.execute(sql, binds).await? == 1)
    }

    /// Takes the oldest broadcasts out of the inboxes, so that no more than `most` are left.
    pub async fn limit_broadcasts(&mut self, most: i64, now: Timestamp) -> QueryResult<()> {
        let sql = "UPDATE broadcasts SET withdrawn_at = ? WHERE withdrawn_at IS NULL AND position <= (
                       SELECT o.position FROM broadcasts o WHERE o.withdrawn_at IS NULL
                       ORDER BY o.position DESC LIMIT 1 OFFSET ?)";
        self.execute(sql, vec![Bind::Instant(now), Bind::BigInt(most)]).await.map(drop)
    }

    /// Changes what a broadcast says, and makes it as new at a place if that is given; `false` when it is not there.
    pub async fn change_broadcast(
        &mut self,
        id: &str,
        change: &Change,
        unread_at: Option<i64>,
        now: Timestamp,
    ) -> QueryResult<bool> {
        let (mut set, mut binds) = set(change, now);
        if let Some(position) = unread_at {
            set.push_str(", position = ?");
            binds.push(Bind::BigInt(position));
        }
        binds.push(Bind::Text(id));
        let sql = format!("UPDATE broadcasts SET {set} WHERE id = ? AND withdrawn_at IS NULL");
        Ok(self.execute(&sql, binds).await? == 1)
    }

    /// Takes a broadcast out of the inboxes; `false` when it is in none.
    pub async fn withdraw_broadcast(&mut self, id: &str, now: Timestamp) -> QueryResult<bool> {
        let sql = "UPDATE broadcasts SET withdrawn_at = ? WHERE id = ? AND withdrawn_at IS NULL";
        Ok(self.execute(sql, vec![Bind::Instant(now), Bind::Text(id)]).await? == 1)
    }

    /// Notes that the broadcasts have changed.
    pub async fn count_broadcasts(&mut self) -> QueryResult<()> {
        let sql = "UPDATE revisions SET value = value + 1 WHERE name = 'broadcasts'";
        self.execute(sql, Vec::new()).await.map(drop)
    }
}
