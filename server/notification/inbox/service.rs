//! The use cases of those who tell, and of those who look.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::apply::Change;
use super::fanout::Results;
use super::herald::Herald;
use super::mails::Mails;
use super::model::{Content, Counts, KEY_LIMIT, Priority, USER_LIMIT, check_line};
use super::preferences;
use super::store::{self, Row};
use super::word::{self, Fallback, WAIT};
use crate::clock::{SharedClock, Timestamp};
use crate::db::Db;
use crate::db::group::Lane;
use crate::error::{Error, Result, Violations};
use crate::event::cursor::Cursor;
use crate::event::request::{RequestKey, check_request_id};
use crate::event::{Fact, PublishWrite, Published, log, topic};
use crate::id::{self, IdGenerator, Kind as IdKind};

/// How many users' events are published in one commit.
const BATCH: i64 = 500;

/// A notification that somebody wants to send.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct NewNotification {
    pub user_ids: Vec<String>,
    pub content: Content,
    pub fallback: Option<Fallback>,
    pub replace_key: String,
    pub request_id: String,
}

/// A notification that was sent, now or by an earlier request with the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its id.
    pub notification_id: String,
    /// Whether an earlier request had sent it.
    pub replayed: bool,
}

/// Which notifications of whom to list.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Listing {
    pub user_id: String,
    pub unread_only: bool,
    pub archived: bool,
    pub category: String,
    /// Those that came before this place.
    pub before: Option<i64>,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The notifications, newest first.
    pub rows: Vec<Row>,
    /// How many wait, of all.
    pub counts: Counts,
    /// A place in the log before they were read.
    pub cursor: String,
}

/// The use cases.
pub struct InboxService {
    /// The database.
    pub db: Db,
    /// Where changes are published.
    pub publishes: Lane<PublishWrite>,
    /// What became of them.
    pub results: Arc<Results>,
    /// Tells the counts.
    pub herald: Arc<Herald>,
    /// Knows mail addresses.
    pub mails: Arc<dyn Mails>,
    /// Makes ids.
    pub ids: Arc<IdGenerator>,
    /// The time.
    pub clock: SharedClock,
}

impl InboxService {
    /// Puts a notification into the inboxes of users; those who do not want it are left out.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with all that is wrong.
    pub async fn send(&self, principal: &str, new: NewNotification) -> Result<Sent> {
        let now = self.clock.now();
        let mut violations = Violations::default();
        violations.require(
            (1..=USER_LIMIT).contains(&new.user_ids.len()),
            "user_ids",
            "must have 1 to 500 entries",
        );
        for (index, user_id) in new.user_ids.iter().enumerate() {
            violations.check(&format!("user_ids[{index}]"), topic::check_user_id(user_id));
        }
        new.content.check(&mut violations, now, |_| true);
        violations.check("replace_key", check_line(&new.replace_key, KEY_LIMIT));
        let fallback = self.fallback(&mut violations, new.fallback);
        check_request_id(&mut violations, "request_id", &new.request_id);
        violations.finish()?;

        let data = word::sent("", &new.content, &new.replace_key, fallback.as_ref());
        let named = new.user_ids.join(" ");
        let parts = [named.as_bytes(), data.as_bytes()];
        let key = RequestKey::new(principal, &new.request_id, "SendNotification", &parts);
        let mut users: BTreeSet<String> = new.user_ids.into_iter().collect();
        if new.content.priority != Priority::Critical {
            // The fan-out looks again; here it keeps their devices from being told.
            let all: Vec<String> = users.iter().cloned().collect();
            let wishes = preferences::mutes(&mut self.db.reader().await?, &all, preferences::INBOX).await?;
            let category = if new.content.category.is_empty() { "general" } else { &new.content.category };
            users.retain(|user_id| wishes.want(user_id, category));
        }
        let event_ids: Vec<String> = users.iter().map(|_| self.ids.next(IdKind::Event)).collect();
        let Some(first) = event_ids.first() else {
            let notification_id = self.ids.next(IdKind::Notification);
            return Ok(Sent { notification_id, replayed: false });
        };
        let data = word::sent(&word::id_of(first), &new.content, &new.replace_key, fallback.as_ref());
        let fact = |(user_id, id): (&String, String)| {
            let topic = topic::of_user(user_id);
            fact(id, word::SENT, topic.clone(), topic, data.clone(), now)
        };
        let facts = users.iter().zip(event_ids).map(fact).collect();
        self.sent(self.publish(facts, key).await?)
    }

    /// Puts one notification into the inbox of everybody.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with all that is wrong.
    pub async fn broadcast(&self, principal: &str, content: Content, request_id: &str) -> Result<Sent> {
        let now = self.clock.now();
        let mut violations = Violations::default();
        content.check(&mut violations, now, |_| true);
        check_request_id(&mut violations, "request_id", request_id);
        violations.finish()?;
        let data = word::sent("", &content, "", None);
        let key = RequestKey::new(principal, request_id, "BroadcastNotification", &[data.as_bytes()]);
        let id = self.ids.next(IdKind::Event);
        let data = word::sent(&word::id_of(&id), &content, "", None);
        let fact = fact(id, word::SENT, topic::BROADCAST.into(), String::new(), data, now);
        self.sent(self.publish(vec![fact], key).await?)
    }

    /// Changes what a notification says, in every inbox that it is in; answers what it says then.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with all that is wrong, or `NOT_FOUND` when it is in no inbox.
    pub async fn update(&self, id: &str, change: Change, mark_unread: bool) -> Result<Content> {
        let now = self.clock.now();
        check_id(id)?;
        let missing = || Error::not_found("notification", id);
        let (content, _) = store::content(&mut self.db.reader().await?, id).await?.ok_or_else(missing)?;
        let mut violations = Violations::default();
        let is_changed = |field: &str| match field {
            "category" => change.category.is_some(),
            "title" => change.title.is_some(),
            "message" => change.message.is_some(),
            "action_url" => change.action_url.is_some(),
            "data" => change.data.is_some(),
            "expire_time" => change.expires_at.is_some(),
            _ => false,
        };
        changed(content, &change).check(&mut violations, now, is_changed);
        violations.finish()?;
        let data = word::changed(id, &change, mark_unread, now);
        self.everywhere(id, word::UPDATED, &data).await?;
        let found = store::content(&mut self.db.reader().await?, id).await?;
        // Withdrawn since.
        found.map(|(content, _)| content).ok_or_else(missing)
    }

    /// Takes a notification out of every inbox that it is in.  One that is in none is out already.
    ///
    /// # Errors
    /// `NOT_FOUND` for what is no id of a notification.
    pub async fn withdraw(&self, id: &str) -> Result<()> {
        check_id(id)?;
        self.everywhere(id, word::WITHDRAWN, &word::withdrawn(id, "withdrawn")).await
    }

    /// Publishes an event about a notification to all who have it.
    async fn everywhere(&self, id: &str, event_type: &str, data: &str) -> Result<()> {
        let now = self.clock.now();
        let mut conn = self.db.reader().await?;
        if store::is_broadcast(&mut conn, id).await? {
            drop(conn);
            let topic = topic::BROADCAST.to_owned();
            let fact = fact(self.ids.next(IdKind::Event), event_type, topic, String::new(), data.into(), now);
            return self.publish(vec![fact], None).await.map(drop);
        }
        drop(conn);
        let mut after = String::new();
        loop {
            let users = store::users_with(&mut self.db.reader().await?, id, &after, BATCH).await?;
            let Some(last) = users.last().cloned() else { return Ok(()) };
            let fact = |user_id: String| {
                let topic = topic::of_user(&user_id);
                fact(self.ids.next(IdKind::Event), event_type, topic.clone(), topic, data.into(), now)
            };
            self.publish(users.into_iter().map(fact).collect(), None).await?;
            after = last;
        }
    }

    /// What a user has.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with all that is wrong.
    pub async fn list(&self, listing: &Listing, limit: i64) -> Result<Listed> {
        let mut violations = Violations::default();
        violations.check("user_id", topic::check_user_id(&listing.user_id));
        if !listing.category.is_empty() {
            violations.check("category", super::model::check_category(&listing.category));
        }
        violations.finish()?;
        let now = self.clock.now();
        let mut conn = self.db.reader().await?;
        // First the place, then what is there: what comes in between comes again on the stream, and nothing is missed.
        let (epoch, position) = log::head(&mut conn).await?;
        let rows = store::list(&mut conn, listing, limit, now).await?;
        let counts = store::counts(&mut conn, &listing.user_id, now).await?;
        Ok(Listed { rows, counts, cursor: Cursor { epoch, position }.encode() })
    }

    /// How many notifications of a user wait.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an id that no user can have.
    pub async fn counts(&self, user_id: &str) -> Result<Counts> {
        topic::check_user_id(user_id).map_err(|wrong| Error::field("user_id", wrong))?;
        store::counts(&mut self.db.reader().await?, user_id, self.clock.now()).await
    }

    pub(super) async fn publish(
        &self,
        facts: Vec<Arc<Fact>>,
        key: Option<RequestKey>,
    ) -> Result<Vec<Published>> {
        self.publishes.write(PublishWrite { facts, keys: vec![key] }).await?
    }

    fn sent(&self, published: Vec<Published>) -> Result<Sent> {
        let first = published.into_iter().next().ok_or_else(|| Error::internal("a publish has no answer"))?;
        Ok(Sent { notification_id: word::id_of(&first.event_id), replayed: first.replayed })
    }

    fn fallback(&self, violations: &mut Violations, fallback: Option<Fallback>) -> Option<Fallback> {
        let mut fallback = fallback?;
        let ok = WAIT.contains(&fallback.after_seconds);
        violations.require(ok, "email_fallback.after", "must be one minute to seven days, in whole seconds");
        if !fallback.email_address.is_empty() {
            let read = self.mails.check_address(&fallback.email_address);
            fallback.email_address = violations.check("email_fallback.email_address", read)?;
        }
        Some(fallback)
    }
}

/// Refuses what can not be the id of a notification, before the database is asked.
pub(super) fn check_id(id: &str) -> Result<()> {
    if id::is_valid(IdKind::Notification, id) { Ok(()) } else { Err(Error::not_found("notification", id)) }
}

pub(super) fn fact(
    id: String,
    event_type: &str,
    topic: String,
    subject: String,
    data: String,
    created_at: Timestamp,
) -> Arc<Fact> {
    Arc::new(Fact {
        id: id.into(),
        event_type: event_type.into(),
        data,
        actor: String::new(),
        subject,
        topic: topic.into(),
        created_at,
    })
}

/// What a notification says after a change.
fn changed(content: Content, change: &Change) -> Content {
    let change = change.clone();
    Content {
        category: change.category.unwrap_or(content.category),
        title: change.title.unwrap_or(content.title),
        message: change.message.unwrap_or(content.message),
        priority: change.priority.unwrap_or(content.priority),
        action_url: change.action_url.unwrap_or(content.action_url),
        data: change.data.unwrap_or(content.data),
        expires_at: change.expires_at.unwrap_or(content.expires_at),
    }
}
