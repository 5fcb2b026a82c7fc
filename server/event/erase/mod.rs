//! Removes what is known of a subject: its events, and everything that every channel made of them.
//!
//! It works in short transactions, deliveries before their events: when it breaks off in the middle, the events that are
//! left still lead to what is left, and the same call again does the rest.  What was published after the call had begun
//! is left alone.
//!
//! An event that is gone leaves a hole in the log.  Subscribers pass over it as over an event that they did not ask for.

mod store;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::log;
use super::model;
use super::service::EventService;
use crate::audit::{Change, Recorder};
use crate::clock::Stopwatch;
use crate::db::{Conn, Db, overwrite, revision};
use crate::error::{Error, Result, Violations};

/// How many events are looked at, and how many deliveries removed, in one transaction.
const BATCH: i64 = 200;
/// How long to wait for the events of other nodes to be known here.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is counted when a subject is erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// Webhook deliveries.
    Deliveries,
    /// Mails.
    Emails,
    /// Notifications, with what else is kept of a user's inbox.
    Notifications,
    /// What is remembered of who was online.
    Presence,
}

/// What a channel has made of events.
pub trait Traces: Send + Sync + 'static {
    /// What its deliveries count as.
    fn trace(&self) -> Trace;

    /// How many deliveries these events have.
    fn count<'a>(&'a self, conn: &'a mut Conn, event_ids: &'a [String]) -> BoxFuture<'a, Result<i64>>;

    /// Removes up to `limit` deliveries of these events, whatever their state, with all that belongs to them; answers how
    /// many.
    fn erase<'a>(
        &'a self,
        conn: &'a mut Conn,
        event_ids: &'a [String],
        limit: i64,
    ) -> BoxFuture<'a, Result<i64>>;
}

/// What is kept of a subject beside its events.
pub trait Belongings: Send + Sync + 'static {
    /// What it counts as.
    fn trace(&self) -> Trace;

    /// How much there is of this subject.
    fn count<'a>(&'a self, conn: &'a mut Conn, subject: &'a str) -> BoxFuture<'a, Result<i64>>;

    /// Removes up to `limit` of this subject; answers how many, which is less than `limit` when nothing is left.
    fn erase<'a>(&'a self, conn: &'a mut Conn, subject: &'a str, limit: i64) -> BoxFuture<'a, Result<i64>>;

    /// What was removed is gone: the transactions are committed.
    fn erased(&self) {}
}

/// How much was removed, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// Events.
    pub events: i64,
    /// Their webhook deliveries.
    pub deliveries: i64,
    /// The mails that they caused.
    pub emails: i64,
    /// Notifications in inboxes.
    pub notifications: i64,
    /// What was remembered of who was online; nobody is told how much, but that something went is on record.
    pub presence: i64,
}

impl Erased {
    fn add(&mut self, trace: Trace, count: i64) {
        match trace {
            Trace::Deliveries => self.deliveries += count,
            Trace::Emails => self.emails += count,
            Trace::Notifications => self.notifications += count,
            Trace::Presence => self.presence += count,
        }
    }
}

impl EventService {
    /// Removes the events of a subject with everything that was made from them.  With `validate_only` it counts them and
    /// changes nothing.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` without a subject; `UNAVAILABLE` when it broke off, and the same call does the rest.
    pub async fn erase(&self, subject: &str, validate_only: bool) -> Result<Erased> {
        let mut violations = Violations::default();
        violations.require(!subject.is_empty(), "subject", "is required");
        model::check_text(&mut violations, "subject", subject);
        violations.finish()?;
        let (_, last) = log::head(&mut self.db.reader().await?).await?;
        if validate_only {
            return self.count(subject, last).await;
        }
        // What is put in memory after the commit that made it must not come there after it was forgotten.
        if tokio::time::timeout(PATIENCE, self.bus.reached(last)).await.is_err() {
            return Err(Error::unavailable("this node is far behind the log", format!("before {last}")));
        }
        let mut erased = Erased::default();
        // Once, and with the first that goes: what breaks off later has its entry, too.
        let mut audit = Some(self.audit.clone());
        loop {
            let stopwatch = Stopwatch::start();
            let (part, more) =
                erase_some(&self.db, &self.traces, &self.belongings, subject.to_owned(), last, audit.clone())
                    .await?;
            audit = audit.filter(|_| part == Erased::default());
            erased.events += part.events;
            erased.deliveries += part.deliveries;
            erased.emails += part.emails;
            erased.notifications += part.notifications;
            erased.presence += part.presence;
            if !more {
                break;
            }
            // Publishes have their turn.
            tokio::time::sleep(stopwatch.elapsed()).await;
        }
        self.belongings.iter().for_each(|belongings| belongings.erased());
        // Also when nothing was found: an earlier call may have broken off before this.
        self.bus.forget();
        self.hub.forget();
        let subject = subject.to_owned();
        revision::change(&self.db, revision::ERASURES, move |conn| {
            Box::pin(async move { store::forget_ephemeral(conn, &subject).await })
        })
        .await?;
        Ok(erased)
    }

    async fn count(&self, subject: &str, last: i64) -> Result<Erased> {
        let mut conn = self.db.reader().await?;
        let (mut counted, mut after) = (Erased::default(), 0);
        loop {
            let events = store::of_subject(&mut conn, subject, after, last, BATCH).await?;
            let Some((position, _)) = events.last() else { break };
            after = *position;
            counted.events += events.len() as i64;
            let ids: Vec<String> = events.into_iter().map(|(_, id)| id).collect();
            for traces in &*self.traces {
                counted.add(traces.trace(), traces.count(&mut conn, &ids).await?);
            }
        }
        for belongings in &*self.belongings {
            counted.add(belongings.trace(), belongings.count(&mut conn, subject).await?);
        }
        Ok(counted)
    }
}

/// Removes the first events of a subject up to the position `last`, or some of what was made from them, or else of what is
/// kept beside them; answers whether there may be more.
async fn erase_some(
    db: &Db,
    traces: &Arc<[Arc<dyn Traces>]>,
    belongings: &Arc<[Arc<dyn Belongings>]>,
    subject: String,
    last: i64,
    audit: Option<Recorder>,
) -> Result<(Erased, bool)> {
    let (traces, belongings) = (Arc::clone(traces), Arc::clone(belongings));
    db.transaction(move |conn| {
        Box::pin(async move {
            overwrite(conn, true).await?;
            let done = erase_in(conn, &traces, &belongings, &subject, last).await;
            overwrite(conn, false).await?;
            let done = done?;
            if let Some(audit) = audit.filter(|_| done.0 != Erased::default()) {
                // Whoever is to be forgotten must not be remembered by the log.
                let subject = audit.fingerprint("events/subject", &subject);
                audit.record(conn, Change::new("subject", subject, "erase")).await?;
            }
            Ok(done)
        })
    })
    .await
}

async fn erase_in(
    conn: &mut Conn,
    traces: &[Arc<dyn Traces>],
    belongings: &[Arc<dyn Belongings>],
    subject: &str,
    last: i64,
) -> Result<(Erased, bool)> {
    let mut erased = Erased::default();
    let events = store::of_subject(conn, subject, 0, last, BATCH).await?;
    let ids: Vec<String> = events.into_iter().map(|(_, id)| id).collect();
    if ids.is_empty() {
        for belongings in belongings {
            let count = belongings.erase(conn, subject, BATCH).await?;
            erased.add(belongings.trace(), count);
            if count >= BATCH {
                return Ok((erased, true));
            }
        }
        return Ok((erased, false));
    }
    let mut left = BATCH;
    for traces in traces {
        let count = traces.erase(conn, &ids, left).await?;
        erased.add(traces.trace(), count);
        left -= count;
        if left <= 0 {
            return Ok((erased, true));
        }
    }
    erased.events = store::remove(conn, &ids).await?;
    Ok((erased, true))
}
