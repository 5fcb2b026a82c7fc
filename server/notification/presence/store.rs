//! The queries of presence.
//!
//! Each is one statement for any number of users, who go as one JSON text that both databases take apart.  Users are taken
//! in the order of their ids, so that two nodes never wait for each other.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Text};
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};

use super::roster::Arrival;
use crate::clock::Timestamp;
use crate::db::schema::{presence_nodes as n, presence_users as p};
use crate::db::statement::{Bind, Statement};
use crate::db::types::sql::Instant;
use crate::db::{Conn, PostgresWriter};
use crate::error::Result;
use crate::on;

/// How a user stands, with the changes that are still to be published.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName, Queryable, Selectable)]
#[diesel(table_name = p)]
pub struct Standing {
    /// Who.
    #[diesel(sql_type = Text)]
    pub user_id: String,
    /// What people call them.
    #[diesel(sql_type = Text)]
    pub username: String,
    /// Whether they are online.
    #[diesel(sql_type = Bool)]
    pub online: bool,
    /// Grows by one with each change.
    #[diesel(sql_type = BigInt)]
    pub generation: i64,
    /// The change up to which all are published.
    #[diesel(sql_type = BigInt)]
    pub announced: i64,
    /// When they last came or went.
    #[diesel(sql_type = Instant)]
    pub changed_at: Timestamp,
}

const STANDING: &str = "user_id, username, online, generation, announced, changed_at";

/// The users of a JSON text, as rows `r` with `user_id`, `username` and `generation`.
fn rows(conn: &Conn) -> &'static str {
    match conn {
        Conn::Postgres(_) => {
            "(SELECT * FROM json_to_recordset(CAST(? AS json)) AS x (user_id text, username text, generation bigint)) AS r"
        }
        Conn::Sqlite(_) => {
            "(SELECT json_extract(value, '$.user_id') AS user_id, json_extract(value, '$.username') AS username,
              json_extract(value, '$.generation') AS generation FROM json_each(?)) AS r"
        }
    }
}

fn ids(user_ids: &[String]) -> String {
    Value::Array(user_ids.iter().map(|user_id| json!({ "user_id": user_id })).collect()).to_string()
}

/// Notes that a node has streams of these users; answers how all of them stand.
pub(super) async fn arrive(
    conn: &mut Conn,
    node_id: i64,
    users: &[Arrival],
    now: Timestamp,
) -> Result<Vec<Standing>> {
    let of = |user: &Arrival| json!({ "user_id": &*user.user_id, "username": &*user.username });
    let text = Value::Array(users.iter().map(of).collect()).to_string();
    let rows = rows(conn);
    // The first change of a user has the time for its generation: a row that was forgotten never counts the same again.
    let sql = format!(
        "INSERT INTO presence_users ({STANDING})
         SELECT r.user_id, r.username, TRUE, ?, ?, ? FROM {rows} WHERE TRUE ORDER BY r.user_id
         ON CONFLICT (user_id) DO UPDATE SET
             username = CASE WHEN excluded.username = '' THEN presence_users.username ELSE excluded.username END,
             generation = presence_users.generation + CASE WHEN presence_users.online THEN 0 ELSE 1 END,
             changed_at = CASE WHEN presence_users.online THEN presence_users.changed_at ELSE excluded.changed_at END,
             online = TRUE
         RETURNING {STANDING}"
    );
    let first = now.micros();
    let binds = vec![Bind::BigInt(first), Bind::BigInt(first - 1), Bind::Instant(now), Bind::Text(&text)];
    let standings: Vec<Standing> = on!(&mut *conn, |c| Statement::new(&sql, binds).load(c).await)?;
    let sql = format!(
        "INSERT INTO presence_nodes (node_id, user_id) SELECT ?, r.user_id FROM {rows} WHERE TRUE ORDER BY r.user_id
         ON CONFLICT (node_id, user_id) DO NOTHING"
    );
    let binds = vec![Bind::BigInt(node_id), Bind::Text(&text)];
    on!(conn, |c| Statement::new(&sql, binds).execute(c).await)?;
    Ok(standings)
}

/// Notes that a node has no streams of these users any more; answers how those stand whom no node has now.
pub(super) async fn leave(
    conn: &mut Conn,
    node_id: i64,
    user_ids: &[String],
    now: Timestamp,
) -> Result<Vec<Standing>> {
    let (rows, text) = (rows(conn), ids(user_ids));
    if let Conn::Postgres(c) = &mut *conn {
        // Against a node that notes an arrival at this moment.
        let sql = format!(
            "SELECT 1 FROM presence_users WHERE user_id IN (SELECT r.user_id FROM {rows}) ORDER BY user_id FOR UPDATE"
        );
        Statement::new(&sql, vec![Bind::Text(&text)]).execute(&mut ***c).await?;
    }
    let sql =
        format!("DELETE FROM presence_nodes WHERE node_id = ? AND user_id IN (SELECT r.user_id FROM {rows})");
    let binds = vec![Bind::BigInt(node_id), Bind::Text(&text)];
    on!(&mut *conn, |c| Statement::new(&sql, binds).execute(c).await)?;
    let sql = format!(
        "UPDATE presence_users SET online = FALSE, generation = generation + 1, changed_at = ?
         WHERE user_id IN (SELECT r.user_id FROM {rows}) AND online
             AND NOT EXISTS (SELECT 1 FROM presence_nodes h WHERE h.user_id = presence_users.user_id)
         RETURNING {STANDING}"
    );
    let binds = vec![Bind::Instant(now), Bind::Text(&text)];
    Ok(on!(conn, |c| Statement::new(&sql, binds).load(c).await)?)
}

/// Whether there are users of nodes that do not live any more.
pub(super) async fn are_abandoned(conn: &mut Conn, node_id: i64) -> Result<bool> {
    match conn {
        Conn::Postgres(c) => Ok(dead_node(c, node_id).await?.is_some()),
        Conn::Sqlite(c) => {
            let query = diesel::select(diesel::dsl::exists(n::table.filter(n::node_id.ne(node_id))));
            Ok(query.get_result(&mut ***c).await?)
        }
    }
}

/// Takes over up to `limit` users of nodes that do not live any more.
pub(super) async fn adopt(conn: &mut Conn, node_id: i64, limit: i64) -> Result<Vec<String>> {
    let user_ids: Vec<String> = match &mut *conn {
        Conn::Postgres(c) => {
            let Some(dead) = dead_node(c, node_id).await? else { return Ok(Vec::new()) };
            let rows = n::table.filter(n::node_id.eq(dead)).order(n::user_id).limit(limit);
            let taken: Vec<String> =
                rows.select(n::user_id).for_update().skip_locked().load(&mut ***c).await?;
            let rows = n::table.filter(n::node_id.eq(dead)).filter(n::user_id.eq_any(&taken));
            diesel::delete(rows).execute(&mut ***c).await?;
            taken
        }
        Conn::Sqlite(c) => {
            // This process holds the file: whoever else was there is gone.
            let rows = n::table.filter(n::node_id.ne(node_id)).order((n::node_id, n::user_id)).limit(limit);
            let taken: Vec<(i64, String)> = rows.load(&mut ***c).await?;
            for (dead, user_id) in &taken {
                diesel::delete(n::table.find((dead, user_id))).execute(&mut ***c).await?;
            }
            taken.into_iter().map(|(_, user_id)| user_id).collect()
        }
    };
    let (rows, text) = (rows(conn), ids(&user_ids));
    let sql = format!(
        "INSERT INTO presence_nodes (node_id, user_id) SELECT ?, r.user_id FROM {rows} WHERE TRUE ORDER BY r.user_id
         ON CONFLICT (node_id, user_id) DO NOTHING"
    );
    let binds = vec![Bind::BigInt(node_id), Bind::Text(&text)];
    on!(conn, |c| Statement::new(&sql, binds).execute(c).await)?;
    Ok(user_ids)
}

#[derive(QueryableByName)]
struct Dead {
    #[diesel(sql_type = BigInt)]
    node_id: i64,
}

/// Another node that has users and does not live.  It goes from one node to the next in the index, whatever the number of users.
async fn dead_node(c: &mut PostgresWriter, node_id: i64) -> Result<Option<i64>> {
    let sql = "WITH RECURSIVE holders (node_id) AS (
                   SELECT min(node_id) FROM presence_nodes
                   UNION ALL
                   SELECT (SELECT min(p.node_id) FROM presence_nodes p WHERE p.node_id > h.node_id)
                   FROM holders h WHERE h.node_id IS NOT NULL
               )
               SELECT node_id FROM holders
               WHERE node_id <> ? AND node_id NOT IN (SELECT id FROM nodes WHERE lease_until > clock_timestamp())
               LIMIT 1";
    let dead: Option<Dead> =
        Statement::new(sql, vec![Bind::BigInt(node_id)]).get_result(c).await.optional()?;
    Ok(dead.map(|dead| dead.node_id))
}

/// Users with changes that are still to be published.
pub(super) async fn unannounced(conn: &mut Conn, limit: i64) -> Result<Vec<Standing>> {
    Ok(on!(conn, |c| p::table
        .filter(p::announced.lt(p::generation))
        .order(p::user_id)
        .limit(limit)
        .select(Standing::as_select())
        .load(c)
        .await)?)
}

/// Notes that the changes of these users are published.
pub(super) async fn announced(conn: &mut Conn, standings: &[Standing]) -> Result<()> {
    let of = |standing: &Standing| json!({ "user_id": standing.user_id, "generation": standing.generation });
    let text = Value::Array(standings.iter().map(of).collect()).to_string();
    let rows = rows(conn);
    if let Conn::Postgres(c) = &mut *conn {
        let sql = format!(
            "SELECT 1 FROM presence_users WHERE user_id IN (SELECT r.user_id FROM {rows}) ORDER BY user_id FOR UPDATE"
        );
        Statement::new(&sql, vec![Bind::Text(&text)]).execute(&mut ***c).await?;
    }
    let sql = format!(
        "UPDATE presence_users SET announced = r.generation FROM {rows}
         WHERE presence_users.user_id = r.user_id AND presence_users.announced < r.generation"
    );
    on!(conn, |c| Statement::new(&sql, vec![Bind::Text(&text)]).execute(c).await)?;
    Ok(())
}

/// Those of these users who are online, or of all, by id, after `after`.
pub(super) async fn list(
    conn: &mut Conn,
    user_ids: &[String],
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Standing>> {
    macro_rules! query {
        () => {{
            let mut query = p::table
                .filter(p::online)
                .order(p::user_id)
                .limit(limit)
                .select(Standing::as_select())
                .into_boxed();
            if !user_ids.is_empty() {
                query = query.filter(p::user_id.eq_any(user_ids));
            }
            if let Some(after) = after {
                query = query.filter(p::user_id.gt(after));
            }
            query
        }};
    }
    Ok(on!(conn, |c| query!().load(c).await)?)
}

/// How many of these users are online, or of all.
pub(super) async fn count(conn: &mut Conn, user_ids: &[String]) -> Result<i64> {
    macro_rules! query {
        () => {{
            let mut query = p::table.filter(p::online).select(diesel::dsl::count_star()).into_boxed();
            if !user_ids.is_empty() {
                query = query.filter(p::user_id.eq_any(user_ids));
            }
            query
        }};
    }
    Ok(on!(conn, |c| query!().first(c).await)?)
}

/// Forgets up to `limit` users who went before this time; answers how many.
pub(super) async fn forget(conn: &mut Conn, before: Timestamp, limit: i64) -> Result<usize> {
    let gone = p::table
        .filter(diesel::dsl::not(p::online))
        .filter(p::changed_at.lt(before))
        .filter(p::announced.eq(p::generation))
        .order(p::changed_at)
        .limit(limit)
        .select(p::user_id);
    let user_ids: Vec<String> = on!(&mut *conn, |c| gone.load(c).await)?;
    // Asked again: they may have come back in between.
    let rows = p::table
        .filter(p::user_id.eq_any(&user_ids))
        .filter(diesel::dsl::not(p::online))
        .filter(p::announced.eq(p::generation));
    Ok(on!(conn, |c| diesel::delete(rows).execute(c).await)?)
}

/// How many rows there are of a user that [`erase`] would change.
pub(super) async fn count_of_user(conn: &mut Conn, user_id: &str) -> Result<i64> {
    let named = diesel::dsl::not(p::online).or(p::username.ne(""));
    let query = p::table.filter(p::user_id.eq(user_id)).filter(named).count();
    Ok(on!(conn, |c| query.get_result(c).await)?)
}

/// Removes what is remembered of a user who is gone, or the name of one who is not; answers how many rows had something.
pub(super) async fn erase(conn: &mut Conn, user_id: &str) -> Result<i64> {
    let of_user = p::table.filter(p::user_id.eq(user_id));
    let gone = diesel::delete(of_user.filter(diesel::dsl::not(p::online)));
    let erased = on!(&mut *conn, |c| gone.execute(c).await)?;
    let named = of_user.filter(p::online).filter(p::username.ne(""));
    let unnamed = diesel::update(named).set(p::username.eq(""));
    Ok((erased + on!(conn, |c| unnamed.execute(c).await)?) as i64)
}
