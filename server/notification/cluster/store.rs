//! The queries of what crosses nodes.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_async::RunQueryDsl;

use super::relay::Waiting;
use crate::clock::Timestamp;
use crate::db::schema::live_ephemeral as e;
use crate::db::statement::{Bind, Statement};
use crate::db::{Conn, Db, execute};
use crate::error::Result;
use crate::on;

/// The key of the advisory lock under which ephemeral events are written, any number that nothing else uses.
const WRITE_LOCK: i64 = 0x7377_6272_6411;
/// The one under which old rows are removed.
const TIDY_LOCK: i64 = 0x7377_6272_6412;
/// How many of the newest rows stay, however old they are, if nothing has replaced them.
const KEPT: i64 = 20_000;

/// An ephemeral event of some node.
#[derive(Debug, Queryable, QueryableByName, Selectable)]
#[diesel(table_name = e)]
pub(super) struct Row {
    pub seq: i64,
    pub event_id: String,
    pub event_type: String,
    pub data: String,
    pub actor: String,
    pub subject: String,
    pub topic: String,
    pub collapse_key: String,
    pub created_at: Timestamp,
}

/// Adds events of a node; the numbers of the rows grow in the order of the commits.
pub(super) async fn append(conn: &mut Conn, node_id: i64, events: &[Waiting]) -> Result<()> {
    // Nobody waits for the disk: after a crash of the database the table is empty anyway.
    let begin = format!("SET LOCAL synchronous_commit = off; SELECT pg_advisory_xact_lock({WRITE_LOCK})");
    execute(conn, &begin).await?;
    let Conn::Postgres(c) = conn else { return Ok(()) };
    let texts = |pick: fn(&Waiting) -> &str| Bind::Texts(events.iter().map(pick).collect());
    let binds = vec![
        Bind::BigInt(node_id),
        texts(|event| &event.fact.id),
        texts(|event| &event.fact.event_type),
        texts(|event| &event.fact.data),
        texts(|event| &event.fact.actor),
        texts(|event| &event.fact.subject),
        texts(|event| &event.fact.topic),
        texts(|event| &event.collapse_key),
        Bind::Instants(events.iter().map(|event| event.fact.created_at).collect()),
    ];
    let sql = "INSERT INTO live_ephemeral
                   (node_id, event_id, event_type, data, actor, subject, topic, collapse_key, created_at, written_at)
               SELECT ?, r.*, clock_timestamp() FROM unnest(?, ?, ?, ?, ?, ?, ?, ?) AS r";
    Statement::new(sql, binds).execute(&mut ***c).await?;
    Ok(())
}

/// The number of the last row; 0 when there is none.
pub(super) async fn head(conn: &mut Conn) -> Result<i64> {
    let query = e::table.select(diesel::dsl::max(e::seq));
    let head: Option<i64> = on!(conn, |c| query.first(c).await)?;
    Ok(head.unwrap_or_default())
}

/// Up to `limit` rows of other nodes after `position` up to `head`, in order.
pub(super) async fn read(
    conn: &mut Conn,
    node_id: i64,
    position: i64,
    head: i64,
    limit: i64,
) -> Result<Vec<Row>> {
    Ok(on!(conn, |c| e::table
        .filter(e::seq.gt(position))
        .filter(e::seq.le(head))
        .filter(e::node_id.ne(node_id))
        .order(e::seq)
        .limit(limit)
        .select(Row::as_select())
        .load(c)
        .await)?)
}

/// The newest rows of each topic and key, at most `limit`, the oldest of them first.
pub(super) async fn newest(conn: &mut Conn, limit: i64) -> Result<Vec<Row>> {
    let Conn::Postgres(c) = conn else { return Ok(Vec::new()) };
    let sql = "SELECT * FROM (
                   SELECT DISTINCT ON (topic, collapse_key) * FROM live_ephemeral
                   WHERE collapse_key <> '' ORDER BY topic, collapse_key, seq DESC
               ) AS newest ORDER BY seq DESC LIMIT ?";
    let mut rows: Vec<Row> = Statement::new(sql, vec![Bind::BigInt(limit)]).load(&mut ***c).await?;
    rows.reverse();
    Ok(rows)
}

/// Removes what is older than a minute and was replaced or never could be, and requests that nobody waits for any more.
/// One node at a time does.
pub(super) async fn tidy(db: &Db) -> Result<()> {
    let sql = format!(
        "DELETE FROM live_ephemeral e WHERE (SELECT pg_try_advisory_xact_lock({TIDY_LOCK}))
             AND written_at < clock_timestamp() - interval '1 minute'
             AND (collapse_key = ''
                  OR written_at < clock_timestamp() - interval '1 day'
                  OR EXISTS (SELECT 1 FROM live_ephemeral n WHERE n.topic = e.topic
                             AND n.collapse_key = e.collapse_key AND n.seq > e.seq)
                  OR seq <= (SELECT n.seq FROM live_ephemeral n ORDER BY n.seq DESC OFFSET {KEPT} LIMIT 1));
         DELETE FROM live_mailbox WHERE written_at < clock_timestamp() - interval '1 minute'"
    );
    db.transaction(move |conn| Box::pin(async move { execute(conn, &sql).await })).await
}

/// Whether a node lives.
pub(super) async fn lives(conn: &mut Conn, node_id: i64) -> Result<bool> {
    let sql = "SELECT id FROM nodes WHERE id = ? AND lease_until > clock_timestamp()";
    let Conn::Postgres(c) = conn else { return Ok(false) };
    let found = Statement::new(sql, vec![Bind::BigInt(node_id)]).execute(&mut ***c).await?;
    Ok(found > 0)
}

/// A request that waits for its answer.
#[derive(Debug, QueryableByName)]
pub(super) struct Request {
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    #[diesel(sql_type = Text)]
    pub request: String,
}

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Text)]
    answer: String,
}

/// Puts a request into a node's box.
pub(super) async fn ask(conn: &mut Conn, id: i64, node_id: i64, request: &str) -> Result<()> {
    let sql =
        "INSERT INTO live_mailbox (id, node_id, request, written_at) VALUES (?, ?, ?, clock_timestamp())";
    let binds = vec![Bind::BigInt(id), Bind::BigInt(node_id), Bind::Text(request)];
    let Conn::Postgres(c) = conn else { return Ok(()) };
    Statement::new(sql, binds).execute(&mut ***c).await?;
    Ok(())
}

/// Whether the request with this id has an answer.
pub(super) async fn answer(conn: &mut Conn, id: i64) -> Result<Option<String>> {
    let sql = "SELECT answer FROM live_mailbox WHERE id = ? AND answer IS NOT NULL";
    let Conn::Postgres(c) = conn else { return Ok(None) };
    let found: Option<Answer> =
        Statement::new(sql, vec![Bind::BigInt(id)]).get_result(&mut ***c).await.optional()?;
    Ok(found.map(|found| found.answer))
}

/// Takes a request out of the box again.
pub(super) async fn forget(conn: &mut Conn, id: i64) -> Result<()> {
    let Conn::Postgres(c) = conn else { return Ok(()) };
    let sql = "DELETE FROM live_mailbox WHERE id = ?";
    Statement::new(sql, vec![Bind::BigInt(id)]).execute(&mut ***c).await?;
    Ok(())
}

/// The requests in a node's box that somebody still waits for.
pub(super) async fn requests(conn: &mut Conn, node_id: i64, limit: i64) -> Result<Vec<Request>> {
    let sql = "SELECT id, request FROM live_mailbox WHERE node_id = ? AND answer IS NULL
                   AND written_at > clock_timestamp() - interval '5 seconds' ORDER BY written_at LIMIT ?";
    let Conn::Postgres(c) = conn else { return Ok(Vec::new()) };
    Ok(Statement::new(sql, vec![Bind::BigInt(node_id), Bind::BigInt(limit)]).load(&mut ***c).await?)
}

/// Answers requests.
pub(super) async fn give(conn: &mut Conn, answers: &[(i64, String)]) -> Result<()> {
    let Conn::Postgres(c) = conn else { return Ok(()) };
    let sql =
        "UPDATE live_mailbox m SET answer = r.answer FROM unnest(?, ?) AS r (id, answer) WHERE m.id = r.id";
    let binds = vec![
        Bind::BigInts(answers.iter().map(|(id, _)| *id).collect()),
        Bind::Texts(answers.iter().map(|(_, answer)| answer.as_str()).collect()),
    ];
    Statement::new(sql, binds).execute(&mut ***c).await?;
    Ok(())
}
