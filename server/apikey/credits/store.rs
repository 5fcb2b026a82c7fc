//! The queries of credits.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::model::{NewCredits, RefillInterval};
use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::schema::api_key_credits as t;
use crate::error::Result;
use crate::on;

/// A stock of uses.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = t, treat_none_as_null = true)]
pub struct Credits {
    /// The key that got them first.
    pub id: String,
    /// What no node has taken.
    pub remaining: i64,
    /// To how many they are filled up; 0 means never.
    pub refill_amount: i64,
    /// How often.
    #[diesel(serialize_as = String, deserialize_as = String)]
    pub refill_interval: RefillInterval,
    /// When next.
    pub refill_at: Option<Timestamp>,
    /// What was taken under another one is worth nothing.
    pub version: i64,
}

impl Credits {
    /// A stock of its own for a key.
    pub fn new(id: String, new: NewCredits, version: i64, now: Timestamp) -> Self {
        let NewCredits { remaining, refill_amount, refill_interval } = new;
        let refill_at = refill_interval.next(now);
        Self { id, remaining, refill_amount, refill_interval, refill_at, version }
    }

    /// Fills them up if it is time.
    pub fn refill(&mut self, now: Timestamp) {
        if self.refill_at.is_some_and(|at| at <= now) {
            self.remaining = self.refill_amount;
            self.refill_at = self.refill_interval.next(now);
            self.version += 1;
        }
    }
}

impl From<RefillInterval> for String {
    fn from(interval: RefillInterval) -> Self {
        match interval {
            RefillInterval::Never => "never".into(),
            RefillInterval::Daily => "daily".into(),
            RefillInterval::Monthly => "monthly".into(),
        }
    }
}

impl From<String> for RefillInterval {
    fn from(text: String) -> Self {
        match text.as_str() {
            "daily" => Self::Daily,
            "monthly" => Self::Monthly,
            _ => Self::Never,
        }
    }
}

/// Those of these ids.
pub async fn all(conn: &mut Conn, ids: &[String]) -> Result<Vec<Credits>> {
    let query = t::table.filter(t::id.eq_any(ids));
    Ok(on!(conn, |c| query.select(Credits::as_select()).load(c).await)?)
}

/// Those of an id, which nobody else changes until the transaction ends.
pub async fn hold(conn: &mut Conn, id: &str) -> Result<Option<Credits>> {
    let query = t::table.find(id);
    Ok(match conn {
        Conn::Postgres(c) => {
            query.select(Credits::as_select()).for_update().first(&mut ***c).await.optional()?
        }
        Conn::Sqlite(c) => query.select(Credits::as_select()).first(&mut ***c).await.optional()?,
    })
}

/// Puts them in place of those with the same id.
pub async fn put(conn: &mut Conn, credits: &Credits) -> Result<()> {
    on!(conn, |c| {
        let insert = diesel::insert_into(t::table).values(credits.clone());
        insert.on_conflict(t::id).do_update().set(credits.clone()).execute(c).await
    })?;
    Ok(())
}
