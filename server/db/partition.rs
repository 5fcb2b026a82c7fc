//! Tables on PostgreSQL that have a partition for each day of their ids, so that a day of any size goes by dropping it.
//!
//! Partitions are made ahead, today's and those of the next two days.  An id that no partition takes, as when a clock was
//! wrong or no node ran for days, goes to the default one; a day that has rows there gets no partition of its own.
//! Neither making nor dropping waits for others longer than [`PATIENCE`], since everybody else would wait behind it; what
//! does not succeed is tried again in the next round.

use std::collections::HashSet;
use std::time::Duration;

use diesel::sql_types::{Bool, Text};
use diesel::{QueryableByName, sql_query};
use diesel_async::RunQueryDsl;
use futures_util::future::BoxFuture;

use super::sweep::only_one;
use super::{Conn, Db, execute};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::id::{self, Kind};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How many days ahead there are partitions.
const AHEAD: u32 = 2;
/// How long to wait for a lock.
const PATIENCE: &str = "SET LOCAL lock_timeout = '100ms'";
/// When a day that could not go is looked at again.
const AGAIN: Duration = Duration::from_secs(60 * 60);

/// A table with a partition for each day.
#[derive(Debug, Clone, Copy)]
pub struct Daily {
    /// The table.
    pub table: &'static str,
    /// The column with the ids.
    pub column: &'static str,
    /// What the ids name.
    pub kind: Kind,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its name as a table.
    pub name: String,
    /// The first id that it takes; empty when it has all before its end.
    pub from: String,
    /// The first id that it does not take.
    pub to: String,
}

/// Says which days may go.
pub trait Droppable: Clone + Send + Sync + 'static {
    /// The table.
    fn daily(&self) -> Daily;

    /// The first id that must stay.
    fn first_kept(&self) -> &str;

    /// Whether nothing in a partition is needed any more.  Asked in the transaction that drops it then, so that what is
    /// to be written about that can be.
    fn may_go<'a>(&'a self, conn: &'a mut Conn, partition: &'a Partition) -> BoxFuture<'a, Result<bool>>;
}

/// Days that could not go, so that they are not asked about in every round.
#[derive(Debug, Default)]
pub struct Kept {
    names: HashSet<String>,
    since: Option<Timestamp>,
}

/// The beginning of a day.
pub fn day_of(time: Timestamp) -> Timestamp {
    let day = DAY.as_micros() as i64;
    Timestamp::from_micros(time.micros().div_euclid(day) * day)
}

#[derive(QueryableByName)]
struct Child {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    bound: String,
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = Bool)]
    found: bool,
}

impl Partition {
    /// Reads `FOR VALUES FROM ('…') TO ('…')`; `None` for the default partition.
    fn read(name: String, bound: &str) -> Option<Self> {
        let (from, to) = bound.strip_prefix("FOR VALUES FROM (")?.split_once(") TO (")?;
        let text = |end: &str| end.trim_end_matches(')').trim_matches('\'').to_owned();
        let from = if from == "MINVALUE" { String::new() } else { text(from) };
        Some(Self { name, from, to: text(to) })
    }
}

/// Whether a query finds anything.
pub async fn finds(conn: &mut Conn, sql: &str) -> Result<bool> {
    let sql = format!("SELECT EXISTS ({sql}) AS found");
    let found: Found = crate::on!(conn, |c| sql_query(&sql).get_result(c).await)?;
    Ok(found.found)
}

impl Daily {
    /// Its partitions, other than the default one, in their order.
    pub async fn partitions(&self, conn: &mut Conn) -> Result<Vec<Partition>> {
        let Conn::Postgres(c) = conn else { return Ok(Vec::new()) };
        let children = sql_query(format!(
            "SELECT c.relname::text AS name, pg_get_expr(c.relpartbound, c.oid) AS bound
             FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = '{}'::regclass",
            self.table
        ));
        let children: Vec<Child> = children.load(&mut ***c).await?;
        let read = |child: Child| Partition::read(child.name, &child.bound);
        let mut partitions: Vec<_> = children.into_iter().filter_map(read).collect();
        partitions.sort_unstable_by(|one, other| one.to.cmp(&other.to));
        Ok(partitions)
    }

    /// Makes the partitions that are missing, of today and the next days.
    ///
    /// # Errors
    /// When the database refuses, or others had a lock for too long.
    pub async fn prepare(self, db: &Db, now: Timestamp) -> Result<()> {
        if !db.is_shared() {
            return Ok(());
        }
        let mut conn = db.reader().await?;
        let there = self.partitions(&mut conn).await?;
        for day in (0..=AHEAD).map(|ahead| day_of(now) + ahead * DAY) {
            let (from, to) = (id::lower_bound(self.kind, day), id::lower_bound(self.kind, day + DAY));
            let taken = there.iter().any(|partition| partition.from < to && from < partition.to);
            let Self { table, column, .. } = self;
            let strays =
                format!("SELECT 1 FROM {table}_default WHERE {column} >= '{from}' AND {column} < '{to}'");
            if taken || finds(&mut conn, &strays).await? {
                continue;
            }
            let date: String = day.to_string().chars().take(10).filter(char::is_ascii_digit).collect();
            let sql = format!(
                "CREATE TABLE {table}_{date} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES);
                 ALTER TABLE {table} ATTACH PARTITION {table}_{date} FOR VALUES FROM ('{from}') TO ('{to}')"
            );
            db.transaction(move |conn| {
                Box::pin(async move {
                    if only_one(conn).await? {
                        execute(conn, PATIENCE).await?;
                        execute(conn, &sql).await?;
                    }
                    Ok(())
                })
            })
            .await?;
        }
        Ok(())
    }
}

impl Kept {
    /// Drops the days that may go; answers how many.
    ///
    /// # Errors
    /// When the database refuses, or others had a lock for too long.
    pub async fn drop_old<D: Droppable>(&mut self, db: &Db, what: &D, now: Timestamp) -> Result<usize> {
        if self.since.is_none_or(|since| now.since(since) >= AGAIN) {
            (self.since, self.names) = (Some(now), HashSet::new());
        }
        let daily = what.daily();
        let partitions = daily.partitions(&mut db.reader().await?).await?;
        // Of another kind of ids: that one stays.
        let first = id::lower_bound(daily.kind, Timestamp::default());
        let old = partitions.into_iter().filter(|one| one.to > first && one.to.as_str() <= what.first_kept());
        let mut dropped = 0;
        for partition in old.filter(|one| !self.names.contains(&one.name)).collect::<Vec<_>>() {
            let (what, name) = (what.clone(), partition.name.clone());
            let gone = db.transaction(move |conn| {
                Box::pin(async move {
                    if !only_one(conn).await? {
                        return Ok(None);
                    }
                    let may_go = what.may_go(conn, &partition).await?;
                    if may_go {
                        execute(conn, PATIENCE).await?;
                        execute(conn, &format!("DROP TABLE {}", partition.name)).await?;
                    }
                    Ok(Some(may_go))
                })
            });
            match gone.await? {
                Some(true) => dropped += 1,
                Some(false) => drop(self.names.insert(name)),
                None => return Ok(dropped),
            }
        }
        Ok(dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_as_postgresql_shows_them() {
        let read = |bound| Partition::read("p".into(), bound).map(|read| (read.from, read.to));
        assert_eq!(
            read("FOR VALUES FROM ('evt_01') TO ('evt_02')"),
            Some(("evt_01".into(), "evt_02".into()))
        );
        assert_eq!(read("FOR VALUES FROM (MINVALUE) TO ('whd_')"), Some((String::new(), "whd_".into())));
        assert_eq!(read("DEFAULT"), None);
    }

    #[test]
    fn a_day_begins_at_midnight() {
        let noon = Timestamp::from_micros(1_763_985_600_000_000);
        assert_eq!(day_of(noon).to_string(), "2025-11-24T00:00:00Z");
        assert_eq!(day_of(day_of(noon)), day_of(noon));
    }
}
