//! The queries of the log of attempts.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::clock::Timestamp;
use crate::db::schema::delivery_attempts;
use crate::db::statement::{Bind, Statement};
use crate::db::{Conn, PostgresWriter, QueryResult, SqliteWriter};
use crate::delivery::completion::Completion;
use crate::error::Result;
use crate::on;

/// One attempt, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = delivery_attempts)]
pub struct AttemptRow {
    /// The delivery.
    pub delivery_id: String,
    /// 1 for the first.
    pub number: i32,
    /// When it started.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration_micros: i64,
    /// The HTTP status or the SMTP reply code.
    pub response_status: Option<i32>,
    /// What the destination said.
    pub response_body: Option<String>,
    /// What went wrong.
    pub error_message: Option<String>,
    /// What was said.
    pub transcript: Option<String>,
    /// What the channel keeps beside that.
    pub details: Option<String>,
}

/// The attempts of one delivery, first one first.
pub async fn attempts(conn: &mut Conn, delivery_id: &str) -> Result<Vec<AttemptRow>> {
    Ok(on!(conn, |c| delivery_attempts::table
        .filter(delivery_attempts::delivery_id.eq(delivery_id))
        .order(delivery_attempts::number)
        .select(AttemptRow::as_select())
        .load(c)
        .await)?)
}

/// Writes the attempt of a result.
pub(in crate::delivery) fn put_sqlite<P>(conn: &mut SqliteWriter, result: &Completion<P>) -> QueryResult<()> {
    let attempt = (
        delivery_attempts::delivery_id.eq(&result.id),
        delivery_attempts::number.eq(result.status.attempts as i32),
        delivery_attempts::started_at.eq(result.started_at),
        delivery_attempts::duration_micros.eq(micros(result)),
        delivery_attempts::response_status.eq(result.response_status),
        delivery_attempts::response_body.eq(&result.response_body),
        delivery_attempts::error_message.eq(&result.error),
        delivery_attempts::transcript.eq(&result.transcript),
        delivery_attempts::details.eq(&result.details),
    );
    // A caller may have set the attempts of a failed row back by hand: the log keeps the newest of each number.
    let put = diesel::replace_into(delivery_attempts::table).values(attempt);
    diesel::RunQueryDsl::execute(put, conn).map(drop)
}

/// Writes the attempts of results.
pub(in crate::delivery) async fn put_postgres<P>(
    conn: &mut PostgresWriter,
    mut tried: Vec<&Completion<P>>,
) -> QueryResult<()> {
    while !tried.is_empty() {
        let rest = tried.split_off(fitting(&tried));
        put_one_statement(conn, &tried).await?;
        tried = rest;
    }
    Ok(())
}

/// How much text the rows of one statement may hold, in bytes.  It is copied twice on its way, and a thousand hostile
/// answers at once are 64 MiB.
const STATEMENT_TEXT: usize = 1024 * 1024;

/// How many of the first results fit in one statement; at least one of those that there are.
fn fitting<P>(tried: &[&Completion<P>]) -> usize {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let mut room = STATEMENT_TEXT;
    let fits = |result: &&Completion<P>| {
        let text = length(&result.response_body) + length(&result.transcript) + length(&result.details);
        let fits = text <= room;
        room = room.saturating_sub(text);
        fits
    };
    tried.iter().copied().take_while(fits).count().max(1)
}

async fn put_one_statement<P>(conn: &mut PostgresWriter, tried: &[&Completion<P>]) -> QueryResult<()> {
    let binds = vec![
        Bind::Texts(tried.iter().map(|r| r.id.as_str()).collect()),
        Bind::Integers(tried.iter().map(|r| r.status.attempts as i32).collect()),
        Bind::Instants(tried.iter().map(|r| r.started_at).collect()),
        Bind::BigInts(tried.iter().map(|r| micros(r)).collect()),
        Bind::NullableIntegers(tried.iter().map(|r| r.response_status).collect()),
        Bind::NullableTexts(tried.iter().map(|r| r.response_body.as_deref()).collect()),
        Bind::NullableTexts(tried.iter().map(|r| r.error.as_deref()).collect()),
        Bind::NullableTexts(tried.iter().map(|r| r.transcript.as_deref()).collect()),
        Bind::NullableTexts(tried.iter().map(|r| r.details.as_deref()).collect()),
    ];
    let sql =
        "INSERT INTO delivery_attempts (delivery_id, number, started_at, duration_micros, response_status,
                                              response_body, error_message, transcript, details)
               SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?)
               ON CONFLICT (delivery_id, number) DO UPDATE SET started_at = excluded.started_at,
                   duration_micros = excluded.duration_micros, response_status = excluded.response_status,
                   response_body = excluded.response_body, error_message = excluded.error_message,
                   transcript = excluded.transcript, details = excluded.details";
    Statement::new(sql, binds).execute(conn).await.map(drop)
}

fn micros<P>(result: &Completion<P>) -> i64 {
    i64::try_from(result.duration.as_micros()).unwrap_or(i64::MAX)
}
