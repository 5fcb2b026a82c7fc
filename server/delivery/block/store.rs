//! The queries of holds.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_async::RunQueryDsl;

use super::Cursor;
use crate::clock::Timestamp;
use crate::db::types::sql::Instant;
use crate::db::{Conn, Db};
use crate::delivery::Table;
use crate::delivery::store::WAITING;
use crate::error::Result;

#[derive(QueryableByName)]
struct Waiting {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Instant)]
    next_attempt_at: Timestamp,
    #[diesel(sql_type = Text)]
    status: String,
}

/// Says on up to `limit` due rows of a lane, from `cursor` on, that they are held, and why.  Their time stays, and with
/// it their turn.  Answers where to go on; `None` when there was nothing more.
pub(in crate::delivery) async fn label_held(
    db: &Db,
    table: Table,
    lane: &str,
    why: &str,
    cursor: Cursor,
    now: Timestamp,
    limit: i64,
) -> Result<Option<Cursor>> {
    let (lane, why) = (lane.to_owned(), why.to_owned());
    db.transaction(move |conn| {
        Box::pin(async move {
            let (name, column) = (table.name(), table.lane_column());
            // So many rows, whether they have their label or not: what a look costs is bounded.
            let find = |b: [&str; 5]| {
                let [b1, b2, b3, b4, b5] = b;
                format!(
                    "SELECT id, next_attempt_at, status FROM {name}
                     WHERE {WAITING} AND {column} = {b1} AND next_attempt_at <= {b2}
                       AND (next_attempt_at, id) > ({b3}, {b4})
                     ORDER BY next_attempt_at, id LIMIT {b5}"
                )
            };
            macro_rules! run {
                ($c:expr, $placeholders:expr) => {
                    diesel::sql_query(find($placeholders))
                        .bind::<Text, _>(&lane)
                        .bind::<Instant, _>(now)
                        .bind::<Instant, _>(cursor.0)
                        .bind::<Text, _>(&cursor.1)
                        .bind::<BigInt, _>(limit)
                        .load(&mut ***$c)
                        .await?
                };
            }
            let rows: Vec<Waiting> = match conn {
                Conn::Postgres(c) => run!(c, ["$1", "$2", "$3", "$4", "$5"]),
                Conn::Sqlite(c) => run!(c, ["?"; 5]),
            };
            let full = rows.len() as i64 == limit;
            let unlabelled = rows.iter().any(|row| row.status != "held");
            let Some(last) = rows.into_iter().next_back().map(|row| (row.next_attempt_at, row.id)) else {
                return Ok(None);
            };
            let label = |b: [&str; 7]| {
                let [b1, b2, b3, b4, b5, b6, b7] = b;
                format!(
                    "UPDATE {name} SET status = 'held', error_message = {b1}, updated_at = {b2}
                     WHERE {WAITING} AND status <> 'held' AND {column} = {b3}
                       AND (next_attempt_at, id) > ({b4}, {b5}) AND (next_attempt_at, id) <= ({b6}, {b7})"
                )
            };
            macro_rules! run {
                ($c:expr, $placeholders:expr) => {
                    diesel::sql_query(label($placeholders))
                        .bind::<Text, _>(&why)
                        .bind::<Instant, _>(now)
                        .bind::<Text, _>(&lane)
                        .bind::<Instant, _>(cursor.0)
                        .bind::<Text, _>(&cursor.1)
                        .bind::<Instant, _>(last.0)
                        .bind::<Text, _>(&last.1)
                        .execute(&mut ***$c)
                        .await?
                };
            }
            if unlabelled {
                match conn {
                    Conn::Postgres(c) => run!(c, ["$1", "$2", "$3", "$4", "$5", "$6", "$7"]),
                    Conn::Sqlite(c) => run!(c, ["?"; 7]),
                };
            }
            Ok(Some(last).filter(|_| full))
        })
    })
    .await
}

/// Makes due now what was held for later, in one lane, or in all when `lane` is empty.
pub(in crate::delivery) async fn release_held(
    db: &Db,
    table: Table,
    lane: &str,
    now: Timestamp,
) -> Result<()> {
    let lane = lane.to_owned();
    db.transaction(move |conn| {
        Box::pin(async move {
            let release = |b: [&str; 3]| {
                let [b1, b2, b3] = b;
                let (name, which) = (table.name(), if lane.is_empty() { "''" } else { table.lane_column() });
                format!(
                    "UPDATE {name} SET next_attempt_at = {b1}
                     WHERE {WAITING} AND status = 'held' AND next_attempt_at > {b2} AND {which} = {b3}"
                )
            };
            macro_rules! run {
                ($c:expr, $placeholders:expr) => {
                    diesel::sql_query(release($placeholders))
                        .bind::<Instant, _>(now)
                        .bind::<Instant, _>(now)
                        .bind::<Text, _>(&lane)
                        .execute(&mut ***$c)
                        .await?
                };
            }
            match conn {
                Conn::Postgres(c) => run!(c, ["$1", "$2", "$3"]),
                Conn::Sqlite(c) => run!(c, ["?"; 3]),
            };
            Ok(())
        })
    })
    .await
}
