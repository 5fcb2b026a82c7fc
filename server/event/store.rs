//! The queries of events, other than the log's own.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::log::EventRow;
use super::model::Event;
use super::pattern::Pattern;
use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::schema::{broadcasts, email_queue, events, notifications, webhook_deliveries, webhooks};
use crate::db::types::StringList;
use crate::delivery::{State, Table};
use crate::error::Result;
use crate::on;

/// Which events to list.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    /// Events of these types; empty means all.
    pub patterns: Vec<Pattern>,
    /// Events with this subject; empty means all.
    pub subject: String,
    /// Events of this topic; empty means all.
    pub topic: String,
    /// Events accepted at or after this time.
    pub created_after: Option<Timestamp>,
    /// Events accepted before this time.
    pub created_before: Option<Timestamp>,
    /// Events before this position.
    pub before: Option<i64>,
}

/// One event.
pub async fn find(conn: &mut Conn, event_id: &str) -> Result<Option<Event>> {
    let row: Option<EventRow> = on!(conn, |c| events::table
        .filter(events::id.eq(event_id))
        .select(EventRow::as_select())
        .first(c)
        .await
        .optional())?;
    Ok(row.map(Event::from))
}

/// Events, newest first.
pub async fn list(conn: &mut Conn, filter: &ListFilter, limit: i64) -> Result<Vec<Event>> {
    macro_rules! query {
        () => {{
            let mut query = events::table
                .order(events::position.desc())
                .limit(limit)
                .select(EventRow::as_select())
                .into_boxed();
            if let Some(before) = filter.before {
                query = query.filter(events::position.lt(before));
            }
            if !filter.subject.is_empty() {
                query = query.filter(events::subject.eq(&filter.subject));
            }
            if !filter.topic.is_empty() {
                query = query.filter(events::topic.eq(&filter.topic));
            }
            if let Some(after) = filter.created_after {
                query = query.filter(events::created_at.ge(after));
            }
            if let Some(before) = filter.created_before {
                query = query.filter(events::created_at.lt(before));
            }
            let mut patterns = filter.patterns.iter().map(type_range);
            if let Some((from, to)) = patterns.next() {
                let mut any: Box<dyn BoxableExpression<events::table, _, SqlType = diesel::sql_types::Bool>> =
                    Box::new(events::event_type.between(from, to));
                for (from, to) in patterns {
                    any = Box::new(any.or(events::event_type.between(from, to)));
                }
                query = query.filter(any);
            }
            query
        }};
    }
    let rows: Vec<EventRow> = on!(conn, |c| query!().load(c).await)?;
    Ok(rows.into_iter().map(Event::from).collect())
}

/// The first and the last event type that a pattern takes: types are ASCII, so that `~` comes after all of them.
fn type_range(pattern: &Pattern) -> (String, String) {
    match pattern {
        Pattern::All => (String::new(), "~".into()),
        Pattern::Below(prefix) => (prefix.clone(), format!("{prefix}~")),
        Pattern::Exactly(event_type) => (event_type.clone(), event_type.clone()),
    }
}

/// A way that events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "explained by the API")]
pub enum Way {
    Webhook,
    Email,
    Inbox,
}

/// What became of an event at one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The way it went.
    pub way: Way,
    /// The delivery's id.
    pub id: String,
    /// The endpoint or route that asked for it.
    pub source_id: String,
    /// The URL, or the mail addresses.
    pub destination: String,
    /// Where it stands.
    pub state: Option<State>,
    /// Attempts made.
    pub attempts: i32,
    /// Why the last one failed.
    pub last_error: Option<String>,
    /// When the next one is due.
    pub next_attempt_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

type WebhookOutcome = (String, String, String, String, i32, Option<String>, Timestamp, Timestamp);
type EmailOutcome = (String, Option<String>, StringList, String, i32, Option<String>, Timestamp, Timestamp);

/// What became of an event on every channel.
pub async fn outcomes(conn: &mut Conn, event_id: &str, limit: i64) -> Result<Vec<Outcome>> {
    use {email_queue as e, webhook_deliveries as d};
    let query = d::table
        .inner_join(webhooks::table.on(webhooks::id.eq(d::webhook_id)))
        .filter(d::event_id.eq(event_id))
        .order(d::id)
        .limit(limit)
        .select((
            d::id,
            d::webhook_id,
            webhooks::url,
            d::status,
            d::attempts,
            d::error_message,
            d::next_attempt_at,
            d::updated_at,
        ));
    let deliveries: Vec<WebhookOutcome> = on!(conn, |c| query.load(c).await)?;
    let query = e::table.filter(e::event_id.eq(event_id)).order(e::id).limit(limit).select((
        e::id,
        e::route_id,
        e::to_addresses,
        e::status,
        e::attempts,
        e::error_message,
        e::next_attempt_at,
        e::updated_at,
    ));
    let emails: Vec<EmailOutcome> = on!(conn, |c| query.load(c).await)?;
    let of_webhook = |(
        id,
        source_id,
        destination,
        status,
        attempts,
        last_error,
        next_attempt_at,
        updated_at,
    ): WebhookOutcome| {
        let state = State::of_word(&status, Table::WebhookDeliveries);
        Outcome {
            way: Way::Webhook,
            id,
            source_id,
            destination,
            state,
            attempts,
            last_error,
            next_attempt_at,
            updated_at,
        }
    };
    let of_email =
        |(id, source_id, to, status, attempts, last_error, next_attempt_at, updated_at): EmailOutcome| {
            let state = State::of_word(&status, Table::EmailQueue);
            let (source_id, destination) = (source_id.unwrap_or_default(), to.0.join(", "));
            Outcome {
                way: Way::Email,
                id,
                source_id,
                destination,
                state,
                attempts,
                last_error,
                next_attempt_at,
                updated_at,
            }
        };
    let notifications = inboxes(conn, event_id, limit).await?;
    let messages = deliveries.into_iter().map(of_webhook).chain(emails.into_iter().map(of_email));
    Ok(messages.chain(notifications).collect())
}

/// The notifications that an event brought: in the inbox of a user, or of everybody.
async fn inboxes(conn: &mut Conn, event_id: &str, limit: i64) -> Result<impl Iterator<Item = Outcome>> {
    use {broadcasts as b, notifications as n};
    let query = n::table.filter(n::event_id.eq(event_id)).order(n::id).limit(limit).select((
        n::id,
        n::user_id,
        n::created_at,
        n::updated_at,
    ));
    let mut rows: Vec<(String, String, Timestamp, Timestamp)> = on!(conn, |c| query.load(c).await)?;
    let query = b::table.filter(b::event_id.eq(event_id)).filter(b::withdrawn_at.is_null()).select((
        b::id,
        b::created_at,
        b::updated_at,
    ));
    let everybody: Vec<(String, Timestamp, Timestamp)> = on!(conn, |c| query.load(c).await)?;
    rows.extend(everybody.into_iter().map(|(id, made, changed)| (id, "*".to_owned(), made, changed)));
    Ok(rows.into_iter().map(|(id, destination, next_attempt_at, updated_at)| Outcome {
        way: Way::Inbox,
        id,
        source_id: String::new(),
        destination,
        state: Some(State::Succeeded),
        attempts: 1,
        last_error: None,
        next_attempt_at,
        updated_at,
    }))
}
