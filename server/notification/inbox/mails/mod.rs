//! Mails for what was not seen in time.
//!
//! A row says when a mail is due.  Whoever finds it due takes it away in the very transaction that queues the mail, or that
//! finds that none is to go: the notification was seen or is gone, the user wants no mail, or there is no address.  So there
//! is one mail, whatever nodes do at the same time and whenever one dies.  What decides is whether it was seen, and not
//! whether somebody is online.

mod store;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

use super::model::Priority;
use super::preferences::{self, EMAIL};
use super::service::InboxService;
use crate::clock::Timestamp;
use crate::db::Conn;
use crate::error::Result;

/// How many are looked at in one transaction.
const BATCH: i64 = 100;
/// The template of these mails.
const TEMPLATE: &str = "notification";

/// A mail about a notification.
#[derive(Debug, Clone, PartialEq)]
pub struct FallbackMail {
    /// The event that brought the notification.
    pub event_id: String,
    /// Where it goes.
    pub email_address: String,
    /// The template.
    pub template: &'static str,
    /// What the template gets; `action_url` may be a path of the application's site.
    pub variables: Map<String, Value>,
}

/// What is to be done once the transaction is committed.
pub type AfterCommit = Box<dyn FnOnce() + Send>;

/// The way to mailboxes.
pub trait Mails: Send + Sync + 'static {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check_address(&self, text: &str) -> Result<String, String>;

    /// Queues mails in the transaction of this connection.
    fn queue<'a>(
        &'a self,
        conn: &'a mut Conn,
        mails: Vec<FallbackMail>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<AfterCommit>>;
}

impl InboxService {
    /// Sends the mails that are due; answers how many were looked at.
    ///
    /// # Errors
    /// When the database refuses it; they are due still.
    pub async fn send_due(&self) -> Result<usize> {
        let (now, mails) = (self.clock.now(), std::sync::Arc::clone(&self.mails));
        if !store::any_due(&mut self.db.reader().await?, now).await? {
            return Ok(0);
        }
        let (count, after_commit) = self
            .db
            .transaction(move |conn| {
                Box::pin(async move {
                    let due = store::take_due(conn, now, BATCH).await?;
                    let count = due.len();
                    let new = wanted(conn, due, now).await?;
                    let after_commit: AfterCommit =
                        if new.is_empty() { Box::new(|| ()) } else { mails.queue(conn, new, now).await? };
                    Ok((count, after_commit))
                })
            })
            .await?;
        after_commit();
        Ok(count)
    }
}

/// The mails that are to go, of those that are due.
async fn wanted(conn: &mut Conn, due: Vec<store::DueRow>, now: Timestamp) -> Result<Vec<FallbackMail>> {
    let users: Vec<String> = due.iter().map(|row| row.user_id.clone()).collect();
    let wishes = preferences::mutes(conn, &users, EMAIL).await?;
    let mut mails = Vec::new();
    for row in due {
        let Some(unseen) = store::unseen(conn, &row.user_id, &row.notification_id, now).await? else {
            continue;
        };
        let priority = Priority::of_number(unseen.priority);
        if priority != Priority::Critical && !wishes.want(&row.user_id, &unseen.category) {
            continue;
        }
        let email_address = if row.email_address.is_empty() {
            preferences::find(conn, &row.user_id).await?.email_address
        } else {
            row.email_address
        };
        if email_address.is_empty() {
            continue;
        }
        let values = json!({
            "title": unseen.title,
            "message": unseen.message,
            "category": unseen.category,
            "priority": priority.word(),
            "action_url": unseen.action_url,
            "sent_at": unseen.created_at.to_string(),
        });
        let Value::Object(variables) = values else { continue };
        mails.push(FallbackMail { event_id: unseen.event_id, email_address, template: TEMPLATE, variables });
    }
    Ok(mails)
}
