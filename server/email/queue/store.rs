//! The queries of the queue.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::clock::Timestamp;
use crate::db::schema::{captured_emails, email_contents, email_queue, email_recipients};
use crate::db::{Conn, QueryResult};
use crate::delivery::{State, Table};
use crate::email::model::{Attachment, Mail};
use crate::email::store::{self, MailRow};
use crate::error::{Error, Result};
use crate::on;

/// How a mail stands.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = email_queue)]
#[expect(missing_docs, reason = "explained by the API")]
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
#[expect(missing_docs, reason = "explained by the API")]
pub struct Captured {
    pub from_address: String,
    pub subject: String,
    pub html_body: String,
    pub plain_body: String,
}

/// Where a mail stands with one recipient.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = email_recipients)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct RecipientRow {
    pub address: String,
    /// `None` while the recipient stands where the mail stands.
    pub status: Option<String>,
    pub reply: Option<String>,
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

impl Queued {
    /// Where it stands.
    pub fn state(&self) -> Option<State> {
        State::of_word(&self.standing.status, Table::EmailQueue)
    }
}

/// Which mails to list.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct EmailFilter {
    pub states: Vec<State>,
    pub event_id: String,
    pub template: String,
    /// The address, as it is compared.
    pub recipient: String,
    pub created_after: Option<Timestamp>,
    pub created_before: Option<Timestamp>,
    /// Those queued before this one.
    pub before: Option<String>,
}

/// Which mails to try again.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct RetryFilter {
    pub created_after: Timestamp,
    pub created_before: Timestamp,
    pub template: String,
    pub include_unknown: bool,
}

const fn word(state: State) -> &'static str {
    state.word(Table::EmailQueue)
}

/// The states that a mail can be withdrawn from.
const WAITING: [State; 4] = [State::Scheduled, State::Pending, State::Retrying, State::Held];

type QueuedRow = (MailRow, Standing, Option<Captured>);

/// Mails, newest first.
pub(super) async fn list(conn: &mut Conn, filter: &EmailFilter, limit: i64) -> Result<Vec<Queued>> {
    use email_queue as e;
    let words: Vec<&str> = filter.states.iter().map(|state| word(*state)).collect();
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
            if !filter.recipient.is_empty() {
                let to = email_recipients::table
                    .filter(email_recipients::address.eq(&filter.recipient))
                    .select(email_recipients::email_id);
                query = query.filter(e::id.eq_any(to));
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
    let mut mails: Vec<Queued> = rows.into_iter().map(queued).collect();
    let ids: Vec<String> = mails.iter().map(|queued| queued.mail.id.clone()).collect();
    for row in store::attachments(conn, &ids).await? {
        if let Some(queued) = mails.iter_mut().find(|queued| queued.mail.id == row.email_id) {
            queued.mail.attachments.push(row.into());
        }
    }
    Ok(mails)
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
    let mut queued = row.map(queued).ok_or_else(|| Error::not_found("email", id))?;
    let files = store::attachments(conn, &[id.to_owned()]).await?;
    queued.mail.attachments = files.into_iter().map(Attachment::from).collect();
    Ok(queued)
}

fn queued((mail, standing, captured): QueuedRow) -> Queued {
    Queued { mail: mail.into(), standing, captured }
}

/// The bodies of a mail without a template; empty for others.
pub(super) async fn bodies(conn: &mut Conn, id: &str) -> Result<(String, String)> {
    let query =
        email_contents::table.find(id).select((email_contents::html_body, email_contents::plain_body));
    let row: Option<(String, String)> = on!(conn, |c| query.first(c).await.optional())?;
    Ok(row.unwrap_or_default())
}

/// The recipients of a mail.
pub(super) async fn recipients(conn: &mut Conn, id: &str) -> Result<Vec<RecipientRow>> {
    Ok(on!(conn, |c| email_recipients::table
        .filter(email_recipients::email_id.eq(id))
        .order(email_recipients::address)
        .select(RecipientRow::as_select())
        .load(c)
        .await)?)
}

/// Withdraws a mail that waits; `false` when it does not wait (any more).
pub(super) async fn cancel(conn: &mut Conn, id: &str, now: Timestamp) -> Result<bool> {
    use email_queue as e;
    let update = diesel::update(e::table.find(id)).filter(e::status.eq_any(WAITING.map(word))).set((
        e::status.eq(word(State::Cancelled)),
        e::error_message.eq("cancelled by a caller"),
        e::updated_at.eq(now),
    ));
    Ok(on!(conn, |c| update.execute(c).await)? == 1)
}

/// Puts mails in one of these states back into the queue; answers how many were.  Their recipients that have them keep
/// that.
pub(super) async fn requeue(
    conn: &mut Conn,
    ids: &[String],
    from: &[State],
    now: Timestamp,
) -> Result<usize> {
    use {email_queue as e, email_recipients as r};
    let from: Vec<&str> = from.iter().map(|state| word(*state)).collect();
    let update = diesel::update(e::table.filter(e::id.eq_any(ids)).filter(e::status.eq_any(from))).set((
        e::status.eq(word(State::Pending)),
        e::attempts_before.eq(e::attempts),
        e::error_message.eq(None::<String>),
        e::response_status.eq(None::<i32>),
        e::next_attempt_at.eq(now),
        e::updated_at.eq(now),
    ));
    let count = on!(conn, |c| update.execute(c).await)?;
    let again = [State::Failed, State::Unknown, State::Cancelled].map(word);
    // A subquery: only those of mails that wait now.
    let waiting = e::table.filter(e::id.eq_any(ids)).filter(e::status.eq(word(State::Pending))).select(e::id);
    let reset = diesel::update(r::table.filter(r::email_id.eq_any(waiting)).filter(r::status.eq_any(again)))
        .set((r::status.eq(None::<String>), r::reply.eq(None::<String>), r::updated_at.eq(now)));
    on!(conn, |c| reset.execute(c).await)?;
    Ok(count)
}

/// Up to `limit` mails that a retry of many takes, after the id `after`.
pub(super) async fn failed(
    conn: &mut Conn,
    filter: &RetryFilter,
    after: &str,
    limit: i64,
) -> Result<Vec<String>> {
    use email_queue as e;
    let mut states = vec![word(State::Failed)];
    states.extend(filter.include_unknown.then_some(word(State::Unknown)));
    macro_rules! query {
        () => {{
            let mut query = e::table
                .filter(e::status.eq_any(states.clone()))
                .filter(e::created_at.ge(filter.created_after))
                .filter(e::created_at.lt(filter.created_before))
                .filter(e::id.gt(after))
                .order(e::id)
                .limit(limit)
                .select(e::id)
                .into_boxed();
            if !filter.template.is_empty() {
                query = query.filter(e::template.eq(&filter.template));
            }
            query
        }};
    }
    Ok(on!(conn, |c| query!().load(c).await)?)
}

/// How many mails of a time are in which state; ids narrow what has to be read.
pub(super) async fn counts(
    conn: &mut Conn,
    ids: (&str, &str),
    created: (Timestamp, Timestamp),
) -> Result<Vec<(String, i64)>> {
    use email_queue as e;
    let query = e::table
        .filter(e::id.ge(ids.0))
        .filter(e::id.lt(ids.1))
        .filter(e::created_at.ge(created.0))
        .filter(e::created_at.lt(created.1))
        .group_by(e::status)
        .select((e::status, diesel::dsl::count_star()));
    let rows: QueryResult<Vec<(String, i64)>> = on!(conn, |c| query.load(c).await);
    Ok(rows?)
}

/// When the mail was due that has waited longest in this lane.
pub(super) async fn oldest_due(conn: &mut Conn, lane: &str, now: Timestamp) -> Result<Option<Timestamp>> {
    use email_queue as e;
    let query = e::table
        .filter(e::destination.eq(lane))
        // In the words of the index, which the databases use only for this very condition.
        .filter(diesel::dsl::sql::<diesel::sql_types::Bool>(
            "status IN ('scheduled', 'pending', 'retrying', 'held')",
        ))
        .filter(e::next_attempt_at.le(now))
        .order(e::next_attempt_at)
        .select(e::next_attempt_at);
    Ok(on!(conn, |c| query.first(c).await.optional())?)
}
