//! The query that brings forward what waits.

use diesel::sql_types::BigInt;
use diesel_async::RunQueryDsl;

use crate::clock::Timestamp;
use crate::db::types::sql::Instant;
use crate::db::{Conn, Db};
use crate::delivery::Table;
use crate::delivery::store::WAITING;
use crate::error::Result;

/// How many rows are moved in a transaction: others write in between.
const BATCH: i64 = 2_000;

/// Moves what waits and was last changed in the future.  On a database that others write to, what counts as the future is later
/// than the database's own clock as well: another node may be right and this one wrong.
pub(in crate::delivery) async fn bring_forward(db: &Db, table: Table, now: Timestamp) -> Result<usize> {
    let mut moved = 0;
    loop {
        let count = bring_some_forward(db, table, now).await?;
        moved += count;
        if (count as i64) < BATCH {
            return Ok(moved);
        }
    }
}

async fn bring_some_forward(db: &Db, table: Table, now: Timestamp) -> Result<usize> {
    let name = table.name();
    // The other condition lets the databases use the index of what waits.
    let sql = move |now: &str, second: &str, limit: &str| {
        format!(
            "UPDATE {name} SET next_attempt_at = next_attempt_at - (updated_at - {now}), updated_at = {now}
             WHERE id IN (
                 SELECT id FROM {name}
                 WHERE {WAITING} AND status <> 'scheduled' AND updated_at > {now} + {second} AND next_attempt_at > {now}
                 LIMIT {limit}
             )"
        )
    };
    db.transaction(move |conn| {
        Box::pin(async move {
            Ok(match conn {
                Conn::Postgres(c) => {
                    let sql = sql("greatest($1, clock_timestamp())", "interval '1 second'", "$2");
                    diesel::sql_query(sql)
                        .bind::<Instant, _>(now)
                        .bind::<BigInt, _>(BATCH)
                        .execute(&mut ***c)
                        .await?
                }
                Conn::Sqlite(c) => {
                    let sql = sql("?1", "1000000", "?2");
                    diesel::sql_query(sql)
                        .bind::<Instant, _>(now)
                        .bind::<BigInt, _>(BATCH)
                        .execute(&mut ***c)
                        .await?
                }
            })
        })
    })
    .await
}
