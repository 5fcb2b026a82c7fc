//! The use cases of the queue.

use std::sync::Arc;

use super::Stats;
use super::store::{self, EmailFilter, Queued, RecipientRow, RetryFilter};
use crate::clock::{SharedClock, Timestamp};
use crate::db::Db;
use crate::delivery::attempt::{AttemptRow, attempts};
use crate::delivery::limit::store as limits;
use crate::delivery::{Engine, Hold, State, Table};
use crate::email::activity::{self, Activity};
use crate::email::channel::EmailChannel;
use crate::email::config::SharedConfig;
use crate::email::limit;
use crate::email::model::Priority;
use crate::email::transport::Transport;
use crate::error::{Error, Kind, Result};
use crate::id;

/// How many mails one transaction of a retry of many changes.
const BATCH: i64 = 500;
/// How far the time in an id may be from the time of the mail: clocks are set back, and ids never are.
const SLACK: std::time::Duration = std::time::Duration::from_secs(60 * 60);

/// The use cases.
pub struct QueueService {
    /// The database.
    pub db: Db,
    /// Carries the mails.
    pub engine: Engine<EmailChannel>,
    /// Knows whether anybody can take mail now.
    pub transport: Arc<dyn Transport>,
    /// The limits.
    pub config: SharedConfig,
    /// The time.
    pub clock: SharedClock,
}

/// One mail with everything that is known of it.
#[derive(Debug)]
pub struct Detail {
    /// The mail.
    pub queued: Queued,
    /// Its HTML body, if it has no template or was captured.
    pub html: String,
    /// Its text body, if it has no template or was captured.
    pub text: String,
    /// Its attempts, first one first.
    pub attempts: Vec<AttemptRow>,
    /// Its recipients.
    pub recipients: Vec<RecipientRow>,
    /// What happened after it was sent, first one first.
    pub activities: Vec<Activity>,
}

impl QueueService {
    /// One mail.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn get(&self, id: &str) -> Result<Detail> {
        let mut conn = self.db.reader().await?;
        let queued = store::find(&mut conn, id).await?;
        let (html, text) = match &queued.captured {
            Some(captured) => (captured.html_body.clone(), captured.plain_body.clone()),
            None => store::bodies(&mut conn, id).await?,
        };
        let attempts = attempts(&mut conn, id).await?;
        let recipients = store::recipients(&mut conn, id).await?;
        let activities = activity::activities(&mut conn, id).await?;
        Ok(Detail { queued, html, text, attempts, recipients, activities })
    }

    /// Mails, newest first.
    pub async fn list(&self, filter: &EmailFilter, limit: i64) -> Result<Vec<Queued>> {
        store::list(&mut self.db.reader().await?, filter, limit).await
    }

    /// How many mails of a time are in which state.
    pub async fn stats(&self, after: Timestamp, before: Timestamp) -> Result<Stats> {
        let now = self.clock.now();
        let mut conn = self.db.reader().await?;
        let ids = (
            id::lower_bound(id::Kind::Email, after - SLACK),
            id::lower_bound(id::Kind::Email, before + SLACK),
        );
        let counts = store::counts(&mut conn, (&ids.0, &ids.1), (after, before)).await?;
        let known =
            |(status, count): (String, i64)| Some((State::of_word(&status, Table::EmailQueue)?, count));
        let mut oldest_due = None;
        for priority in Priority::ALL {
            let due = store::oldest_due(&mut conn, priority.lane(), now).await?;
            oldest_due = [oldest_due, due].into_iter().flatten().min();
        }
        drop(conn);
        let counts = counts.into_iter().filter_map(known).collect();
        Ok(Stats { counts, oldest_due, holds: self.holds(now).await? })
    }

    /// What keeps mails waiting.
    async fn holds(&self, now: Timestamp) -> Result<Vec<Hold>> {
        let config = self.config.load_full();
        if !config.sends() {
            return Ok(Vec::new());
        }
        let of_transport = self.transport.holds().into_iter();
        let mut holds: Vec<Hold> =
            of_transport.map(|hold| Hold { why: hold.why, until: now + hold.retry_in }).collect();
        if let Some(limit) = limit::of_lane(&config, Priority::Transactional) {
            let usage = limits::look(&mut self.db.reader().await?, &limit::hourly(limit), now).await?;
            if usage.left(limit) == 0 {
                holds.push(limit::hold(&config, usage));
            }
        }
        for hold in self.engine.holds() {
            if !holds.iter().any(|known| known.why == hold.why) {
                holds.push(hold);
            }
        }
        Ok(holds)
    }

    /// Withdraws a mail that waits.  One that is cancelled already is answered as it is.
    ///
    /// # Errors
    /// `NOT_FOUND`, or `FAILED_PRECONDITION` with the reason `TOO_LATE` when it is being sent or has ended.
    pub async fn cancel(&self, id: &str) -> Result<Queued> {
        let (key, now) = (id.to_owned(), self.clock.now());
        self.db
            .transaction(move |conn| {
                Box::pin(async move {
                    let cancelled = store::cancel(conn, &key, now).await?;
                    let queued = store::find(conn, &key).await?;
                    if cancelled || queued.state() == Some(State::Cancelled) {
                        return Ok(queued);
                    }
                    let state = queued.standing.status;
                    let message = format!("it is too late to cancel the mail: it is {state}");
                    Err(Error::new(Kind::FailedPrecondition, "TOO_LATE", message).with("state", state))
                })
            })
            .await
    }

    /// Puts a mail that did not reach everybody back into the queue.
    ///
    /// # Errors
    /// `NOT_FOUND`, or `FAILED_PRECONDITION` with the reason `NOT_RETRYABLE` when it waits, is being sent, or everybody
    /// has it.
    pub async fn retry(&self, id: &str) -> Result<Queued> {
        let (key, now) = (id.to_owned(), self.clock.now());
        let queued = self
            .db
            .transaction(move |conn| {
                Box::pin(async move {
                    let queued = store::find(conn, &key).await?;
                    let mut from = vec![State::Failed, State::Cancelled, State::Unknown];
                    let missed = |row: &RecipientRow| {
                        row.status.as_deref() == Some(State::Failed.word(Table::EmailQueue))
                    };
                    if store::recipients(conn, &key).await?.iter().any(missed) {
                        from.push(State::Succeeded);
                    }
                    if store::requeue(conn, std::slice::from_ref(&key), &from, now).await? == 1 {
                        return store::find(conn, &key).await;
                    }
                    let state = queued.standing.status;
                    let message = format!("the mail is {state}: there is nothing to try again");
                    Err(Error::new(Kind::FailedPrecondition, "NOT_RETRYABLE", message).with("state", state))
                })
            })
            .await?;
        self.engine.wake();
        Ok(queued)
    }

    /// Puts every mail of a time that failed back into the queue; answers how many were.
    pub async fn retry_failed(&self, filter: RetryFilter) -> Result<i64> {
        let (mut total, mut after) = (0, String::new());
        loop {
            let (batch, now) = (filter.clone(), self.clock.now());
            // From id to id: one that has failed again meanwhile is not taken twice.
            let (count, last) = self
                .db
                .transaction(move |conn| {
                    Box::pin(async move {
                        let ids = store::failed(conn, &batch, &after, BATCH).await?;
                        let count = store::requeue(conn, &ids, &[State::Failed, State::Unknown], now).await?;
                        Ok((count, ids.into_iter().next_back()))
                    })
                })
                .await?;
            total += count as i64;
            let Some(last) = last else { return Ok(total) };
            after = last;
            self.engine.wake();
        }
    }
}
