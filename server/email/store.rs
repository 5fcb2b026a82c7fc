//! The queries of mails.

use std::sync::Arc;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::model::{Content, Mail, Priority};
use crate::clock::Timestamp;
use crate::db::schema::{captured_emails, email_queue};
use crate::db::statement::{Bind, Statement};
use crate::db::types::{StringList, postgres_array_literal};
use crate::db::{Conn, Db, PostgresWriter, QueryResult, SqliteWriter};
use crate::delivery::engine::FIRST_TOKEN;
use crate::delivery::{State, Table};
use crate::error::{Error, Result};
use crate::on;

#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = email_queue)]
struct MailRow {
    id: String,
    event_id: Option<String>,
    route_id: Option<String>,
    template: String,
    variables: String,
    to_addresses: StringList,
    cc_addresses: StringList,
    bcc_addresses: StringList,
    reply_to: String,
    subject: String,
    created_at: Timestamp,
    destination: String,
    options: String,
    expires_at: Option<Timestamp>,
}

impl From<MailRow> for Mail {
    fn from(row: MailRow) -> Self {
        Self {
            id: row.id,
            event_id: row.event_id,
            route_id: row.route_id,
            template: row.template,
            variables: serde_json::from_str(&row.variables).unwrap_or_default(),
            to: row.to_addresses.0,
            cc: row.cc_addresses.0,
            bcc: row.bcc_addresses.0,
            reply_to: row.reply_to,
            subject: row.subject,
            created_at: row.created_at,
            priority: Priority::of_lane(&row.destination),
            options: serde_json::from_str(&row.options).unwrap_or_default(),
            expires_at: row.expires_at,
            ..Self::default()
        }
    }
}

/// A mail to be queued.
pub(super) struct NewMail {
    pub mail: Arc<Mail>,
    /// The variables, serialised once.
    pub variables: String,
    /// The node that has it in hand from the start; `None` for one that waits.
    pub lease_owner: Option<i64>,
    pub now: Timestamp,
}

impl NewMail {
    pub(super) fn new(mail: Arc<Mail>, lease_owner: Option<i64>, now: Timestamp) -> Self {
        let variables = serde_json::to_string(&mail.variables).expect("a JSON object is text");
        Self { mail, variables, lease_owner, now }
    }

    fn status(&self) -> &'static str {
        let state = if self.lease_owner.is_some() { State::Sending } else { State::Pending };
        state.word(Table::EmailQueue)
    }

    fn token(&self) -> i64 {
        if self.lease_owner.is_some() { FIRST_TOKEN } else { 0 }
    }
}

/// Queues mails, on SQLite.
pub(super) fn insert_sqlite(conn: &mut SqliteWriter, rows: &[NewMail]) -> QueryResult<()> {
    use email_queue as e;
    for row in rows {
        let mail = &*row.mail;
        let values = (
            e::id.eq(&mail.id),
            e::event_id.eq(&mail.event_id),
            e::route_id.eq(&mail.route_id),
            e::template.eq(&mail.template),
            e::variables.eq(&row.variables),
            (
                e::to_addresses.eq(StringList(mail.to.clone())),
                e::cc_addresses.eq(StringList(mail.cc.clone())),
                e::bcc_addresses.eq(StringList(mail.bcc.clone())),
                e::reply_to.eq(&mail.reply_to),
                e::subject.eq(&mail.subject),
                e::destination.eq(mail.priority.lane()),
            ),
            (
                e::status.eq(row.status()),
                e::attempts.eq(0),
                e::next_attempt_at.eq(row.now),
                e::lease_owner.eq(row.lease_owner),
                e::lease_token.eq(row.token()),
                e::created_at.eq(mail.created_at),
                e::updated_at.eq(row.now),
            ),
        );
        diesel::RunQueryDsl::execute(diesel::insert_into(e::table).values(values), conn)?;
    }
    Ok(())
}

/// Queues mails, on PostgreSQL.
pub(super) async fn insert_postgres(conn: &mut PostgresWriter, rows: &[NewMail]) -> QueryResult<()> {
    let sql = "INSERT INTO email_queue (id, event_id, route_id, template, variables, to_addresses, cc_addresses,
                   bcc_addresses, reply_to, subject, destination, status, next_attempt_at,
                   lease_owner, lease_token, created_at, updated_at)
               SELECT id, event_id, route_id, template, variables, to_addresses::text[], cc_addresses::text[],
                   bcc_addresses::text[], reply_to, subject, destination, status, updated_at,
                   lease_owner, lease_token, created_at, updated_at
               FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
               AS e (id, event_id, route_id, template, variables, to_addresses, cc_addresses, bcc_addresses, reply_to,
                     subject, destination, status, lease_owner, lease_token, created_at, updated_at)";
    let lists = |pick: fn(&Mail) -> &[String]| -> Vec<String> {
        rows.iter().map(|row| postgres_array_literal(pick(&row.mail))).collect()
    };
    let (to, cc, bcc) = (lists(|mail| &mail.to), lists(|mail| &mail.cc), lists(|mail| &mail.bcc));
    let texts = |pick: fn(&Mail) -> &str| Bind::Texts(rows.iter().map(|row| pick(&row.mail)).collect());
    let optional = |pick: fn(&Mail) -> Option<&str>| {
        Bind::NullableTexts(rows.iter().map(|row| pick(&row.mail)).collect())
    };
    let binds = vec![
        texts(|mail| &mail.id),
        optional(|mail| mail.event_id.as_deref()),
        optional(|mail| mail.route_id.as_deref()),
        texts(|mail| &mail.template),
        Bind::Texts(rows.iter().map(|row| row.variables.as_str()).collect()),
        Bind::Texts(to.iter().map(String::as_str).collect()),
        Bind::Texts(cc.iter().map(String::as_str).collect()),
        Bind::Texts(bcc.iter().map(String::as_str).collect()),
        texts(|mail| &mail.reply_to),
        texts(|mail| &mail.subject),
        texts(|mail| mail.priority.lane()),
        Bind::Texts(rows.iter().map(NewMail::status).collect()),
        Bind::NullableBigInts(rows.iter().map(|row| row.lease_owner).collect()),
        Bind::BigInts(rows.iter().map(NewMail::token).collect()),
        Bind::Instants(rows.iter().map(|row| row.mail.created_at).collect()),
        Bind::Instants(rows.iter().map(|row| row.now).collect()),
    ];
    Statement::new(sql, binds).execute(conn).await.map(drop)
}

/// The mails of these ids.
pub(super) async fn load(conn: &mut Conn, ids: Vec<String>) -> Result<Vec<(String, Arc<Mail>)>> {
    let rows: Vec<MailRow> = on!(conn, |c| email_queue::table
        .filter(email_queue::id.eq_any(ids))
        .select(MailRow::as_select())
        .load(c)
        .await)?;
    Ok(rows.into_iter().map(|row| (row.id.clone(), Arc::new(row.into()))).collect())
}

/// Keeps what a mail looks like, instead of sending it.
pub(super) async fn capture(
    db: &Db,
    email_id: String,
    from: String,
    content: Content,
    now: Timestamp,
) -> Result<()> {
    db.transaction(move |conn| {
        Box::pin(async move {
            // An attempt whose result was lost may have captured it before.
            let old = diesel::delete(captured_emails::table.find(email_id.clone()));
            on!(conn, |c| old.execute(c).await)?;
            let values = (
                captured_emails::email_id.eq(email_id),
                captured_emails::from_address.eq(from),
                captured_emails::subject.eq(content.subject),
                captured_emails::html_body.eq(content.html),
                captured_emails::plain_body.eq(content.text),
                captured_emails::created_at.eq(now),
            );
            on!(conn, |c| diesel::insert_into(captured_emails::table).values(values).execute(c).await)?;
            Ok(())
        })
    })
    .await
}

/// How a mail stands.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = email_queue)]
pub struct Standing {
    pub status: String,
    pub attempts: i32,
    pub error_message: Option<String>,
    pub next_attempt_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What a captured mail looks like.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = captured_emails)]
pub struct Captured {
    pub from_address: String,
    pub subject: String,
    pub html_body: String,
    pub plain_body: String,
}

/// A mail in the queue.
#[derive(Debug, Clone)]
pub struct Queued {
    /// The mail.
    pub mail: Mail,
    /// How it stands.
    pub standing: Standing,
    /// What it looks like, when it was captured.
    pub captured: Option<Captured>,
}

/// Which mails to list.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct EmailFilter {
    pub states: Vec<State>,
    pub event_id: String,
    pub template: String,
    pub created_after: Option<Timestamp>,
    pub created_before: Option<Timestamp>,
    /// Those queued before this one.
    pub before: Option<String>,
}

type QueuedRow = (MailRow, Standing, Option<Captured>);

/// Mails, newest first.
pub(super) async fn list(conn: &mut Conn, filter: &EmailFilter, limit: i64) -> Result<Vec<Queued>> {
    use email_queue as e;
    let words: Vec<&str> = filter.states.iter().map(|state| state.word(Table::EmailQueue)).collect();
    macro_rules! query {
        () => {{
            let mut query = e::table
                .left_join(captured_emails::table.on(captured_emails::email_id.eq(e::id)))
                .order(e::id.desc())
                .limit(limit)
                .select((MailRow::as_select(), Standing::as_select(), Option::<Captured>::as_select()))
                .into_boxed();
            if !words.is_empty() {
                query = query.filter(e::status.eq_any(words.clone()));
            }
            if !filter.event_id.is_empty() {
                query = query.filter(e::event_id.eq(&filter.event_id));
            }
            if !filter.template.is_empty() {
                query = query.filter(e::template.eq(&filter.template));
            }
            if let Some(after) = filter.created_after {
                query = query.filter(e::created_at.ge(after));
            }
            if let Some(before) = filter.created_before {
                query = query.filter(e::created_at.lt(before));
            }
            if let Some(before) = &filter.before {
                query = query.filter(e::id.lt(before));
            }
            query
        }};
    }
    let rows: Vec<QueuedRow> = on!(conn, |c| query!().load(c).await)?;
    Ok(rows.into_iter().map(queued).collect())
}

/// One mail.
pub(super) async fn find(conn: &mut Conn, id: &str) -> Result<Queued> {
    let row: Option<QueuedRow> = on!(conn, |c| email_queue::table
        .left_join(captured_emails::table.on(captured_emails::email_id.eq(email_queue::id)))
        .filter(email_queue::id.eq(id))
        .select((MailRow::as_select(), Standing::as_select(), Option::<Captured>::as_select()))
        .first(c)
        .await
        .optional())?;
    row.map(queued).ok_or_else(|| Error::not_found("email", id))
}

fn queued((mail, standing, captured): QueuedRow) -> Queued {
    Queued { mail: mail.into(), standing, captured }
}
