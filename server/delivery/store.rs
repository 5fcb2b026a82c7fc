//! The engine's queries: claim, complete, recover.  Each is written once for both tables of deliveries.

use std::collections::HashSet;
use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Double, Integer, Nullable, Text};
use diesel_async::RunQueryDsl;

use super::attempt;
use super::completion::{Completion, Ledger};
use super::model::Table;
use super::order;
use crate::clock::Timestamp;
use crate::db::schema::{email_queue, webhook_deliveries};
use crate::db::statement::{Bind, Statement};
use crate::db::types::sql::Instant;
use crate::db::{Conn, Db, PostgresWriter, QueryResult, SqliteWriter};
use crate::error::Result;
use crate::failpoint;
use crate::on;

/// The states that wait, in the words of the partial indexes: the databases use them only for this very condition.
pub(super) const WAITING: &str = "status IN ('scheduled', 'pending', 'retrying', 'held')";

/// A delivery that was claimed.
#[derive(Debug, QueryableByName)]
pub struct Claimed {
    /// Its id.
    #[diesel(sql_type = Text)]
    pub id: String,
    /// The new lease's token.
    #[diesel(sql_type = BigInt)]
    pub lease_token: i64,
    /// Attempts made before.
    #[diesel(sql_type = Integer)]
    pub attempts: i32,
    /// How many of them were made before somebody asked for another try.
    #[diesel(sql_type = Integer)]
    pub attempts_before: i32,
    /// When it was due.
    #[diesel(sql_type = Instant)]
    pub next_attempt_at: Timestamp,
    /// What it is in order with.
    #[diesel(sql_type = Nullable<Text>)]
    pub ordering_key: Option<String>,
}

#[derive(QueryableByName)]
struct LaneName {
    #[diesel(sql_type = Text)]
    lane: String,
}

/// The lanes that have something due.
///
/// It steps from lane to lane through the index, so that a million rows of one lane cost as much as one.
pub async fn due_lanes(conn: &mut Conn, table: Table, now: Timestamp) -> Result<Vec<String>> {
    let (name, lane) = (table.name(), table.lane_column());
    let sql = format!(
        "WITH RECURSIVE lanes(lane) AS (
             SELECT min({lane}) FROM {name} WHERE {WAITING}
             UNION ALL
             SELECT (SELECT min({lane}) FROM {name} WHERE {WAITING} AND {lane} > lanes.lane)
             FROM lanes WHERE lanes.lane IS NOT NULL
         )
         SELECT lanes.lane FROM lanes WHERE lanes.lane IS NOT NULL AND
             (SELECT min(next_attempt_at) FROM {name} WHERE {WAITING} AND {lane} = lanes.lane) <= "
    );
    let lanes: Vec<LaneName> = match conn {
        Conn::Postgres(c) => diesel::sql_query(sql + "$1").bind::<Instant, _>(now).load(&mut ***c).await?,
        Conn::Sqlite(c) => diesel::sql_query(sql + "?").bind::<Instant, _>(now).load(&mut ***c).await?,
    };
    Ok(lanes.into_iter().map(|row| row.lane).collect())
}

/// Leases up to `limit` due deliveries of a lane to `owner`, the longest due first.
pub async fn claim(
    conn: &mut Conn,
    table: Table,
    lane: &str,
    owner: i64,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Claimed>> {
    let (name, column, ordering) = (table.name(), table.lane_column(), table.ordering_column());
    let skip = if matches!(conn, Conn::Postgres(_)) { "FOR UPDATE SKIP LOCKED" } else { "" };
    let sql = |b: [&str; 5]| {
        let [b1, b2, b3, b4, b5] = b;
        format!(
            "UPDATE {name} SET status = 'sending', lease_owner = {b1}, lease_token = lease_token + 1, updated_at = {b2}
             WHERE id IN (SELECT id FROM {name} WHERE {WAITING} AND {column} = {b3} AND next_attempt_at <= {b4}
                          ORDER BY next_attempt_at, id LIMIT {b5} {skip})
             RETURNING id, lease_token, attempts, attempts_before, next_attempt_at, {ordering} AS ordering_key"
        )
    };
    macro_rules! run {
        ($c:expr, $placeholders:expr) => {
            diesel::sql_query(sql($placeholders))
                .bind::<BigInt, _>(owner)
                .bind::<Instant, _>(now)
                .bind::<Text, _>(lane)
                .bind::<Instant, _>(now)
                .bind::<BigInt, _>(limit)
                .load(&mut ***$c)
                .await?
        };
    }
    Ok(match conn {
        Conn::Postgres(c) => run!(c, ["$1", "$2", "$3", "$4", "$5"]),
        Conn::Sqlite(c) => run!(c, ["?"; 5]),
    })
}

/// Returns every delivery that is in some node's hands to the queue: for a database that one process uses.
pub async fn recover_all(db: &Db, table: Table, now: Timestamp) -> Result<usize> {
    recover(db, table, now, "status = 'sending'".into()).await
}

/// Returns what this node has in hand to the queue.
pub async fn recover_owned(db: &Db, table: Table, owner: i64, now: Timestamp) -> Result<usize> {
    recover(db, table, now, format!("status = 'sending' AND lease_owner = {owner}")).await
}

/// Returns what dead nodes had in hand to the queue, by the database's own clock.
pub async fn recover_dead(db: &Db, table: Table, now: Timestamp) -> Result<usize> {
    if failpoint::bug("lease_ignored") {
        return recover_all(db, table, now).await;
    }
    let dead = "status = 'sending' AND lease_owner NOT IN (SELECT id FROM nodes WHERE lease_until > clock_timestamp())";
    recover(db, table, now, dead.into()).await
}

async fn recover(db: &Db, table: Table, now: Timestamp, which: String) -> Result<usize> {
    db.transaction(move |conn| {
        Box::pin(async move {
            let sql = format!(
                "UPDATE {} SET status = CASE WHEN attempts = 0 THEN 'pending' ELSE 'retrying' END,
                 lease_owner = NULL",
                table.name()
            );
            // What was in somebody's hands is due, also when the clock of that time was ahead.
            let set = |now: &str| {
                format!(
                    "{sql}, updated_at = {now},
                     next_attempt_at = CASE WHEN next_attempt_at > {now} THEN {now} ELSE next_attempt_at END
                     WHERE {which}"
                )
            };
            Ok(match conn {
                Conn::Postgres(c) => {
                    let sql = set("$1");
                    diesel::sql_query(sql).bind::<Instant, _>(now).execute(&mut ***c).await?
                }
                Conn::Sqlite(c) => {
                    let sql = set("?1");
                    diesel::sql_query(sql).bind::<Instant, _>(now).execute(&mut ***c).await?
                }
            })
        })
    })
    .await
}

/// Writes one result; `false` when its lease has ended.
pub(super) fn complete_sqlite<P>(
    conn: &mut SqliteWriter,
    ledger: &Ledger,
    result: &Completion<P>,
) -> QueryResult<bool> {
    if failpoint::bug("completion_lost") {
        return Ok(true);
    }
    let sql = match ledger.table {
        Table::WebhookDeliveries => COMPLETE_WEBHOOK,
        Table::EmailQueue => COMPLETE_EMAIL,
    };
    let binds = vec![
        Bind::Text(result.status.state.word(ledger.table)),
        Bind::Integer(result.status.attempts as i32),
        Bind::NullableText(result.error.as_deref()),
        Bind::NullableInteger(result.response_status),
        Bind::Instant(result.status.due),
        Bind::Instant(result.now),
        Bind::Text(&result.id),
        Bind::BigInt(ledger.owner),
        Bind::BigInt(result.token),
    ];
    let written = diesel::RunQueryDsl::execute(Statement::new(sql, binds), conn)?;
    if written == 1 && result.tried {
        attempt::store::put_sqlite(conn, result)?;
    }
    if written == 1
        && let Some(effect) = &result.effect
    {
        effect.sqlite(conn)?;
    }
    if written == 1
        && let Some(sequence) = result.frees()
    {
        order::store::release_sqlite(conn, &sequence, result.now)?;
    }
    Ok(written == 1)
}

macro_rules! complete_sqlite_sql {
    ($table:literal) => {
        concat!(
            "UPDATE ",
            $table,
            " SET status = ?, attempts = ?, error_message = ?, response_status = ?, next_attempt_at = ?,
             lease_owner = NULL, updated_at = ?
             WHERE id = ? AND status = 'sending' AND lease_owner = ? AND lease_token = ?"
        )
    };
}

const COMPLETE_WEBHOOK: &str = complete_sqlite_sql!("webhook_deliveries");
const COMPLETE_EMAIL: &str = complete_sqlite_sql!("email_queue");

#[derive(QueryableByName)]
struct Written {
    #[diesel(sql_type = Text)]
    id: String,
}

/// Writes a batch of results; answers for each whether its lease still held.
pub(super) async fn complete_postgres<P>(
    conn: &mut PostgresWriter,
    ledger: &Ledger,
    batch: &[Completion<P>],
) -> QueryResult<Vec<bool>> {
    let freed: Vec<_> = batch.iter().filter_map(Completion::frees).collect();
    order::store::lock(conn, &freed).await?;
    let sql = match ledger.table {
        Table::WebhookDeliveries => COMPLETE_WEBHOOKS,
        Table::EmailQueue => COMPLETE_EMAILS,
    };
    let binds = vec![
        Bind::Texts(batch.iter().map(|r| r.id.as_str()).collect()),
        Bind::BigInts(batch.iter().map(|r| r.token).collect()),
        Bind::Texts(batch.iter().map(|r| r.status.state.word(ledger.table)).collect()),
        Bind::Integers(batch.iter().map(|r| r.status.attempts as i32).collect()),
        Bind::NullableTexts(batch.iter().map(|r| r.error.as_deref()).collect()),
        Bind::NullableIntegers(batch.iter().map(|r| r.response_status).collect()),
        Bind::Instants(batch.iter().map(|r| r.status.due).collect()),
        Bind::Instants(batch.iter().map(|r| r.now).collect()),
        Bind::BigInt(ledger.owner),
    ];
    let written: Vec<Written> = Statement::new(sql, binds).load(conn).await?;
    let written: HashSet<String> = written.into_iter().map(|row| row.id).collect();
    let tried = batch.iter().filter(|r| r.tried && written.contains(&r.id)).collect();
    attempt::store::put_postgres(conn, tried).await?;
    for result in batch.iter().filter(|r| written.contains(&r.id)) {
        if let Some(effect) = &result.effect {
            effect.postgres(conn).await?;
        }
    }
    if let Some(last) = batch.last().filter(|_| !freed.is_empty()) {
        order::store::release_postgres(conn, &freed, last.now).await?;
    }
    Ok(batch.iter().map(|result| written.contains(&result.id)).collect())
}

/// Each row is found by its id: in words that do not fit the index of what is in hand, which the planner takes for a short
/// cut, and which is as long as the lanes are full, and full of what was in hand a moment ago.
macro_rules! complete_postgres_sql {
    ($table:literal) => {
        concat!(
            "UPDATE ",
            $table,
            " d SET status = r.status, attempts = r.attempts, error_message = r.error_message,
                 response_status = r.response_status, next_attempt_at = r.due, lease_owner = NULL,
                 updated_at = r.ended_at
             FROM unnest(?, ?, ?, ?, ?, ?, ?, ?)
                 AS r (id, token, status, attempts, error_message, response_status, due, ended_at)
             WHERE d.id = r.id AND d.status || '' = 'sending' AND d.lease_owner + 0 = ? AND d.lease_token = r.token
             RETURNING d.id"
        )
    };
}

const COMPLETE_WEBHOOKS: &str = complete_postgres_sql!("webhook_deliveries");
const COMPLETE_EMAILS: &str = complete_postgres_sql!("email_queue");

/// Gives up deliveries whose payload is gone, as when their event is no longer kept.
pub async fn give_up(db: &Db, table: Table, ids: Vec<String>, now: Timestamp) -> Result<()> {
    db.transaction(move |conn| {
        Box::pin(async move {
            let sequences = match table {
                Table::WebhookDeliveries => order::store::of_deliveries(conn, &ids).await?,
                Table::EmailQueue => Vec::new(),
            };
            macro_rules! update {
                ($table:ident) => {
                    diesel::update($table::table.filter($table::id.eq_any(ids))).set((
                        $table::status.eq("failed"),
                        $table::error_message.eq("what it should deliver is no longer kept"),
                        $table::lease_owner.eq(None::<i64>),
                        $table::updated_at.eq(now),
                    ))
                };
            }
            match table {
                Table::WebhookDeliveries => on!(conn, |c| update!(webhook_deliveries).execute(c).await)?,
                Table::EmailQueue => on!(conn, |c| update!(email_queue).execute(c).await)?,
            };
            order::store::release(conn, sequences, now).await
        })
    })
    .await
}

/// Returns deliveries, each under its lease's token, to the queue, untried.
pub async fn give_back(
    db: &Db,
    table: Table,
    owner: i64,
    leases: Vec<(String, i64)>,
    now: Timestamp,
) -> Result<()> {
    db.transaction(move |conn| {
        Box::pin(async move {
            for (id, token) in leases {
                macro_rules! update {
                    ($table:ident) => {
                        diesel::update($table::table.find(&id))
                            .filter($table::status.eq("sending"))
                            .filter($table::lease_owner.eq(owner))
                            .filter($table::lease_token.eq(token))
                            .set((
                                // With attempts made before, this is where a retry stands too: due, and in nobody's hands.
                                $table::status.eq("pending"),
                                $table::lease_owner.eq(None::<i64>),
                                $table::updated_at.eq(now),
                            ))
                    };
                }
                match table {
                    Table::WebhookDeliveries => on!(conn, |c| update!(webhook_deliveries).execute(c).await)?,
                    Table::EmailQueue => on!(conn, |c| update!(email_queue).execute(c).await)?,
                };
            }
            Ok(())
        })
    })
    .await
}

/// The deliveries, with their leases' tokens, that the database says a node has in hand.
pub async fn owned(conn: &mut Conn, table: Table, owner: i64) -> Result<Vec<(String, i64)>> {
    macro_rules! query {
        ($table:ident) => {
            $table::table
                .filter($table::status.eq("sending"))
                .filter($table::lease_owner.eq(owner))
                .select(($table::id, $table::lease_token))
        };
    }
    Ok(match table {
        Table::WebhookDeliveries => on!(conn, |c| query!(webhook_deliveries).load(c).await)?,
        Table::EmailQueue => on!(conn, |c| query!(email_queue).load(c).await)?,
    })
}

/// Says that a node lives, for as long as `lease`, by the database's clock.
pub async fn renew_node(db: &Db, id: i64, lease: Duration) -> Result<()> {
    let seconds = lease.as_secs_f64();
    db.transaction(move |conn| {
        Box::pin(async move {
            let Conn::Postgres(c) = conn else { return Ok(()) };
            diesel::sql_query(
                "INSERT INTO nodes (id, started_at, lease_until)
                 VALUES ($1, clock_timestamp(), clock_timestamp() + make_interval(secs => $2))
                 ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until",
            )
            .bind::<BigInt, _>(id)
            .bind::<Double, _>(seconds)
            .execute(&mut ***c)
            .await?;
            Ok(())
        })
    })
    .await
}

/// Forgets nodes that have been dead for an hour, long after their deliveries have been returned.
pub async fn forget_dead_nodes(db: &Db) -> Result<()> {
    forget(db, "lease_until < clock_timestamp() - interval '1 hour'".into()).await
}

/// Forgets one node.
pub async fn forget_node(db: &Db, id: i64) -> Result<()> {
    forget(db, format!("id = {id}")).await
}

async fn forget(db: &Db, which: String) -> Result<()> {
    db.transaction(move |conn| {
        Box::pin(async move { crate::db::execute(conn, &format!("DELETE FROM nodes WHERE {which}")).await })
    })
    .await
}
