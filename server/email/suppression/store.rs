//! The queries of suppressions.

use diesel::prelude::*;
use diesel::sql_types::{Integer, Nullable, Text};
use diesel_async::RunQueryDsl;

use super::model::{DETAIL_LIMIT, NewSuppression, Reason, Suppression, SuppressionFilter, cut};
use crate::clock::Timestamp;
use crate::db::schema::suppressions;
use crate::db::statement::{Bind, Statement};
use crate::db::types::sql::Instant;
use crate::db::{Conn, Db, PostgresWriter, QueryResult, SqliteWriter, on_duplicate};
use crate::error::{Error, Result};
use crate::on;

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = suppressions, treat_none_as_null = true)]
struct Row {
    address: String,
    topic: String,
    reason: String,
    origin: String,
    detail: String,
    email_id: Option<String>,
    expires_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Row> for Suppression {
    fn from(row: Row) -> Self {
        Self {
            address: row.address,
            topic: row.topic,
            reason: Reason::of_word(&row.reason).unwrap_or(Reason::Manual),
            origin: row.origin,
            detail: row.detail,
            email_id: row.email_id,
            expires_at: row.expires_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

impl From<&Suppression> for Row {
    fn from(suppression: &Suppression) -> Self {
        let Suppression { address, topic, reason, origin, detail, email_id, .. } = suppression.clone();
        let Suppression { expires_at, created_at, updated_at, .. } = *suppression;
        let reason = reason.word().to_owned();
        Self { address, topic, reason, origin, detail, email_id, expires_at, created_at, updated_at }
    }
}

// --- What the queue asks ----------------------------------------------------------------------------------------------

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = Text)]
    reason: String,
}

#[derive(QueryableByName)]
struct FoundAt {
    #[diesel(sql_type = Integer)]
    number: i32,
    #[diesel(sql_type = Text)]
    reason: String,
    #[diesel(sql_type = Text)]
    topic: String,
}

fn because(reason: &str) -> String {
    format!("suppressed: {reason}")
}

/// For each address (as [`key`](super::key) writes it) with the topic of its mail: why it gets none, or `None`.
/// On SQLite.
pub fn suppressed_sqlite(
    conn: &mut SqliteWriter,
    pairs: &[(&str, &str)],
    now: Timestamp,
) -> QueryResult<Vec<Option<String>>> {
    // Most servers suppress nobody, and every mail comes by here.
    let any = diesel::select(diesel::dsl::exists(suppressions::table.select(suppressions::address)));
    if pairs.is_empty() || !diesel::RunQueryDsl::get_result::<bool>(any, conn)? {
        return Ok(vec![None; pairs.len()]);
    }
    let sql = "SELECT reason FROM suppressions WHERE address = ? AND topic IN ('', ?)
                   AND (expires_at IS NULL OR expires_at > ?) ORDER BY topic LIMIT 1";
    let mut answers = Vec::with_capacity(pairs.len());
    for (address, topic) in pairs {
        let binds = vec![Bind::Text(address), Bind::Text(topic), Bind::Instant(now)];
        let found: Vec<Found> = diesel::RunQueryDsl::load(Statement::new(sql, binds), conn)?;
        answers.push(found.into_iter().next().map(|found| because(&found.reason)));
    }
    Ok(answers)
}

/// For each address (as [`key`](super::key) writes it) with the topic of its mail: why it gets none, or `None`.
/// On PostgreSQL.
pub async fn suppressed_postgres(
    conn: &mut PostgresWriter,
    pairs: &[(&str, &str)],
    now: Timestamp,
) -> QueryResult<Vec<Option<String>>> {
    let mut answers = vec![None; pairs.len()];
    if pairs.is_empty() {
        return Ok(answers);
    }
    let sql = "SELECT p.number, s.reason, s.topic FROM unnest(?, ?, ?) AS p (number, address, topic)
               JOIN suppressions s ON s.address = p.address AND s.topic IN ('', p.topic)
               WHERE s.expires_at IS NULL OR s.expires_at > ?";
    let binds = vec![
        Bind::Integers((0..pairs.len() as i32).collect()),
        Bind::Texts(pairs.iter().map(|(address, _)| *address).collect()),
        Bind::Texts(pairs.iter().map(|(_, topic)| *topic).collect()),
        Bind::Instant(now),
    ];
    let found: Vec<FoundAt> = Statement::new(sql, binds).load(conn).await?;
    for found in found {
        let answer = usize::try_from(found.number).ok().and_then(|number| answers.get_mut(number));
        // As on SQLite, what holds for every mail is told before what holds for the topic.
        if let Some(answer) = answer.filter(|answer| answer.is_none() || found.topic.is_empty()) {
            *answer = Some(because(&found.reason));
        }
    }
    Ok(answers)
}

// --- What the server adds by itself -----------------------------------------------------------------------------------

/// The strength of a reason, in the order of [`Reason`].
macro_rules! strength {
    ($reason:literal) => {
        concat!(
            "CASE ",
            $reason,
            " WHEN 'bounce' THEN 0 WHEN 'unsubscribe' THEN 1 WHEN 'manual' THEN 2 ELSE 3 END"
        )
    };
}

/// Takes a column from the new row, unless its reason is the weaker one.
macro_rules! unless_weaker {
    ($column:literal) => {
        concat!(
            $column,
            " = CASE WHEN ",
            strength!("excluded.reason"),
            " >= ",
            strength!("kept.reason"),
            " THEN excluded.",
            $column,
            " ELSE kept.",
            $column,
            " END, "
        )
    };
}

/// `$n` in rising order means the same to both databases: SQLite takes it for a name, and numbers names as they come.
const FORGET: &str = "DELETE FROM suppressions WHERE address = $1 AND topic = $2 AND expires_at <= $3";
const ADD: &str = concat!(
    "INSERT INTO suppressions AS kept
         (address, topic, reason, origin, detail, email_id, expires_at, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
     ON CONFLICT (address, topic) DO UPDATE SET ",
    unless_weaker!("reason"),
    unless_weaker!("origin"),
    unless_weaker!("detail"),
    unless_weaker!("email_id"),
    "expires_at = CASE WHEN excluded.expires_at IS NULL OR kept.expires_at IS NULL THEN NULL
         WHEN excluded.expires_at > kept.expires_at THEN excluded.expires_at ELSE kept.expires_at END,
     updated_at = excluded.updated_at"
);

/// Both statements, for whichever connection.
macro_rules! add {
    ($new:expr, |$query:ident| $run:expr) => {{
        let new: &NewSuppression = $new;
        let $query = diesel::sql_query(FORGET)
            .bind::<Text, _>(new.address.clone())
            .bind::<Text, _>(new.topic.clone())
            .bind::<Instant, _>(new.now);
        $run?;
        let $query = diesel::sql_query(ADD)
            .bind::<Text, _>(new.address.clone())
            .bind::<Text, _>(new.topic.clone())
            .bind::<Text, _>(new.reason.word())
            .bind::<Text, _>(new.origin.word())
            .bind::<Text, _>(cut(&new.detail, DETAIL_LIMIT))
            .bind::<Nullable<Text>, _>(new.email_id.clone())
            .bind::<Nullable<Instant>, _>(new.expires_at)
            .bind::<Instant, _>(new.now)
            .bind::<Instant, _>(new.now);
        $run?;
    }};
}

/// Puts an address on the list, on SQLite.  What is there is never weakened: a stronger reason stays (the order is that
/// of [`Reason`]), one without an end stays without, and of two ends the later one holds.
pub fn add_sqlite(conn: &mut SqliteWriter, new: &NewSuppression) -> QueryResult<()> {
    add!(new, |query| diesel::RunQueryDsl::execute(query, conn));
    Ok(())
}

/// Puts an address on the list, on PostgreSQL; as [`add_sqlite`].
pub async fn add_postgres(conn: &mut PostgresWriter, new: &NewSuppression) -> QueryResult<()> {
    add!(new, |query| query.execute(conn).await);
    Ok(())
}

/// Puts an address on the list, in a plain transaction; as [`add_sqlite`].
pub(in crate::email) async fn add(conn: &mut Conn, new: &NewSuppression) -> Result<()> {
    on!(conn, |c| add!(new, |query| query.execute(c).await));
    Ok(())
}

/// Removes those that have ended.
pub async fn forget_expired(db: &Db, now: Timestamp) -> Result<usize> {
    db.transaction(move |conn| {
        Box::pin(async move {
            let old = diesel::delete(suppressions::table.filter(suppressions::expires_at.le(now)));
            Ok(on!(conn, |c| old.execute(c).await)?)
        })
    })
    .await
}

// --- What the service asks --------------------------------------------------------------------------------------------

/// Suppressions that hold, by address and topic.
pub(super) async fn list(
    conn: &mut Conn,
    filter: &SuppressionFilter,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Suppression>> {
    use suppressions as s;
    let words: Vec<&str> = filter.reasons.iter().map(|reason| reason.word()).collect();
    let prefix = like_prefix(&filter.address_prefix);
    macro_rules! query {
        () => {{
            let mut query = s::table
                .filter(s::expires_at.is_null().or(s::expires_at.gt(now)))
                .order((s::address, s::topic))
                .limit(limit)
                .select(Row::as_select())
                .into_boxed();
            if !words.is_empty() {
                query = query.filter(s::reason.eq_any(words.clone()));
            }
            if !filter.address_prefix.is_empty() {
                query = query.filter(s::address.like(&prefix).escape('\\'));
            }
            if !filter.topic.is_empty() {
                query = query.filter(s::topic.eq(&filter.topic));
            }
            if let Some((address, topic)) = &filter.after {
                query =
                    query.filter(s::address.gt(address).or(s::address.eq(address).and(s::topic.gt(topic))));
            }
            query
        }};
    }
    let rows: Vec<Row> = on!(conn, |c| query!().load(c).await)?;
    Ok(rows.into_iter().map(Suppression::from).collect())
}

fn like_prefix(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for c in prefix.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

/// One that holds.
pub(super) async fn find(conn: &mut Conn, address: &str, topic: &str, now: Timestamp) -> Result<Suppression> {
    use suppressions as s;
    let row: Option<Row> = on!(conn, |c| s::table
        .find((address, topic))
        .filter(s::expires_at.is_null().or(s::expires_at.gt(now)))
        .select(Row::as_select())
        .first(c)
        .await
        .optional())?;
    row.map(Suppression::from).ok_or_else(|| Error::not_found("suppression", &name(address, topic)))
}

fn name(address: &str, topic: &str) -> String {
    if topic.is_empty() { address.to_owned() } else { format!("{address} {topic}") }
}

/// Adds one; an older one that has ended does not count.
pub(super) async fn insert(conn: &mut Conn, suppression: &Suppression) -> Result<()> {
    use suppressions as s;
    let (address, topic) = (&suppression.address, &suppression.topic);
    let ended = s::table.find((address, topic)).filter(s::expires_at.le(suppression.created_at));
    on!(conn, |c| diesel::delete(ended).execute(c).await)?;
    let insert = diesel::insert_into(s::table).values(Row::from(suppression));
    on!(conn, |c| insert.execute(c).await)
        .map_err(|error| on_duplicate(error, "suppression", &name(address, topic)))?;
    Ok(())
}

/// Writes a changed one.
pub(super) async fn update(conn: &mut Conn, suppression: &Suppression) -> Result<()> {
    let row = suppressions::table.find((suppression.address.clone(), suppression.topic.clone()));
    let update = diesel::update(row).set(Row::from(suppression));
    on!(conn, |c| update.execute(c).await)?;
    Ok(())
}

/// Removes one.
pub(super) async fn delete(conn: &mut Conn, address: &str, topic: &str) -> Result<()> {
    let delete = diesel::delete(suppressions::table.find((address, topic)));
    on!(conn, |c| delete.execute(c).await)?;
    Ok(())
}
