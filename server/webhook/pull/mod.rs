//! Endpoints that can not be reached: their receivers read the log, and acknowledge what they have taken.
//!
//! An endpoint has a **place** in the log, kept in the database: everything before it is acknowledged.  A read begins
//! there, or after any cursor, takes events from the bus, and leaves out what the endpoint does not want.  Nothing is
//! written for an event and an endpoint, so that a pulled one costs a publish nothing.
//!
//! # Guarantees
//! * Every event published after the endpoint became pulled is read in the order of the log, again and again until it
//!   is acknowledged; none is left out but those that are no longer kept, and then the answer says so.
//! * The place moves forward only.  What lies before it comes again only to who asks with a cursor.

mod page;
mod store;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::mode::DeliveryMode;
use super::model::Webhook;
use super::service::WebhookService;
use super::store as webhooks;
use crate::clock::Stopwatch;
use crate::db::Conn;
use crate::error::{Error, Kind, Result, Violations};
use crate::event::bus::{Bus, Read, Record};
use crate::event::cursor::Cursor;
use crate::event::log;
use crate::event::pattern::Pattern;
use page::Found;
use waiting::Waiting;

const LONGEST_WAIT: Duration = Duration::from_secs(30);
const DEFAULT_SIZE: usize = 50;
const SIZE_LIMIT: usize = 500;
/// How many events are read at a time when more of them than fit are needed.
const BATCH: usize = 512;
/// The place follows by itself over so many events that are not wanted: a receiver of rare events, whose answers are
/// empty, must not look through the same ones for ever.
const FOLLOWS: i64 = 1_000;

/// What reads need.
pub struct Pulls {
    bus: Arc<Bus>,
    stop: CancellationToken,
    waiting: Arc<Waiting>,
}

impl Pulls {
    /// Reads of this bus, which wait no longer once `stop` says so.
    pub fn new(bus: Arc<Bus>, stop: CancellationToken) -> Self {
        Self { bus, stop, waiting: Arc::default() }
    }

    /// The epoch of the log.
    pub fn epoch(&self) -> i64 {
        self.bus.epoch()
    }
}

/// What a receiver asks for.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Pull {
    pub webhook_id: String,
    pub cursor: String,
    pub page_size: i32,
    pub wait: Duration,
}

/// What a receiver gets.
#[expect(missing_docs, reason = "explained by the API")]
pub struct Pulled {
    pub records: Vec<Arc<Record>>,
    pub cursor: Cursor,
    pub gap: bool,
}

impl WebhookService {
    /// Reads what a pulled endpoint wants, after its place or after a cursor.
    ///
    /// # Errors
    /// `NOT_FOUND`; `FAILED_PRECONDITION` with the reason `WEBHOOK_NOT_PULLED` or `WEBHOOK_INACTIVE`;
    /// `RESOURCE_EXHAUSTED` with `PULLS_WAITING` when too many wait already.
    pub async fn pull(&self, pull: Pull) -> Result<Pulled> {
        let Pulls { bus, stop, waiting } = &self.pulls;
        let stopwatch = Stopwatch::start();
        let mut violations = Violations::default();
        let limit = match usize::try_from(pull.page_size) {
            Err(_) => violations.check("page_size", Err("must not be negative".into())),
            Ok(0) => Some(DEFAULT_SIZE),
            Ok(size) => Some(size.min(SIZE_LIMIT)),
        };
        violations.require(pull.wait <= LONGEST_WAIT, "wait", "must be from 0 to 30 seconds");
        let cursor = match pull.cursor.as_str() {
            "" => None,
            text => violations.check("cursor", self.read_cursor(text)),
        };
        violations.finish()?;
        let limit = limit.unwrap_or(DEFAULT_SIZE);

        let watcher = bus.watch();
        let mut known = self.directory.revision();
        let mut conn = self.db.reader().await?;
        let (mut wanted, place) = read_endpoint(&mut conn, &pull.webhook_id).await?;
        if let Some(cursor) = cursor {
            check_end(&mut conn, cursor).await?;
        }
        // Before it, events may be gone that were wanted.
        let start = log::start(&mut conn).await?;
        drop(conn);

        let from = cursor.map_or(place, |cursor| cursor.position);
        let gap = from < start;
        let mut found = Found::after(from.max(start), limit);
        let (mut seat, mut batch) = (None, limit.min(BATCH));
        loop {
            let head = watcher.head();
            let read = watcher.after_at_most(found.position, batch).await?;
            let read = read.ok_or_else(|| {
                Error::unavailable("the log begins later by now", format!("after {}", found.position))
            })?;
            let Read { records, through } = read;
            // What is missing in between was erased.
            let before = records.first().map_or(through, |record| record.event.position - 1);
            found.position = found.position.max(before);
            let end = through >= head;
            let enough = found.take(records, |event_type| wants(&wanted, event_type));
            if enough {
                break;
            }
            found.position = found.position.max(through);
            if end && (gap || !found.records.is_empty()) {
                break;
            }
            if !end {
                batch = BATCH;
                tokio::task::yield_now().await;
                continue;
            }
            let left = pull.wait.saturating_sub(stopwatch.elapsed());
            if left.is_zero() || stop.is_cancelled() {
                break;
            }
            if seat.is_none() {
                seat = Some(waiting.enter(&pull.webhook_id)?);
            }
            tokio::select! {
                () = watcher.changed() => {}
                () = tokio::time::sleep(left) => {}
                () = stop.cancelled() => {}
            }
            let revision = self.directory.revision();
            if revision != known {
                known = revision;
                (wanted, _) = read_endpoint(&mut self.db.reader().await?, &pull.webhook_id).await?;
            }
        }
        if cursor.is_none() && !gap && found.unwanted() - place >= FOLLOWS {
            self.follow(&pull.webhook_id, found.unwanted()).await;
        }
        let cursor = Cursor { epoch: bus.epoch(), position: found.position };
        Ok(Pulled { records: found.records, cursor, gap })
    }

    /// Notes that everything up to a cursor has been taken.
    ///
    /// # Errors
    /// `NOT_FOUND`, or `FAILED_PRECONDITION` with the reason `WEBHOOK_NOT_PULLED`.
    pub async fn acknowledge(&self, webhook_id: &str, cursor: &str) -> Result<()> {
        let cursor = self.read_cursor(cursor).map_err(|reason| Error::field("cursor", reason))?;
        let mut conn = self.db.reader().await?;
        let webhook = webhooks::find(&mut conn, webhook_id).await?;
        let place = place(&mut conn, &webhook).await?;
        check_end(&mut conn, cursor).await?;
        drop(conn);
        if cursor.position > place { self.advance(webhook_id, cursor.position).await } else { Ok(()) }
    }

    fn read_cursor(&self, text: &str) -> Result<Cursor, String> {
        if text.is_empty() {
            return Err("is required".into());
        }
        match Cursor::decode(text) {
            Some(cursor) if cursor.epoch != self.pulls.epoch() => {
                Err("is a cursor of another database".into())
            }
            Some(cursor) if cursor.position >= 0 => Ok(cursor),
            _ => Err("is not a cursor of this server".into()),
        }
    }

    async fn advance(&self, webhook_id: &str, position: i64) -> Result<()> {
        let (webhook_id, now) = (webhook_id.to_owned(), self.clock.now());
        self.db
            .transaction(move |conn| {
                Box::pin(async move { store::advance(conn, &webhook_id, position, now).await })
            })
            .await
    }

    async fn follow(&self, webhook_id: &str, position: i64) {
        if let Err(error) = self.advance(webhook_id, position).await {
            tracing::warn!(%error, "the place of a pulled endpoint stays where it was; the next read moves it");
        }
    }
}

impl Webhook {
    /// Refuses what can not be done with an endpoint that nothing is sent to.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` with the reason `WEBHOOK_PULLED`.
    pub(super) fn refuse_pulled(&self) -> Result<()> {
        if self.options.delivery_mode != DeliveryMode::Pulled {
            return Ok(());
        }
        let message = "the endpoint is pulled: nothing is sent to it";
        Err(Error::new(Kind::FailedPrecondition, "WEBHOOK_PULLED", message))
    }

    /// Refuses what can not be done with an endpoint that gets no events.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` with the reason `WEBHOOK_INACTIVE`.
    pub(super) fn refuse_inactive(&self) -> Result<()> {
        if self.active {
            return Ok(());
        }
        Err(Error::new(Kind::FailedPrecondition, "WEBHOOK_INACTIVE", "the endpoint is not active"))
    }
}

/// Gives an endpoint that becomes pulled its place, and takes it from one that no longer is; part of the change's own
/// transaction.
///
/// The place is the end of the log, exactly: a change of endpoints keeps the publishes of all nodes out until it
/// commits, so that none can take a position behind that end before the endpoint is there.
pub(super) async fn mode_changed(
    conn: &mut Conn,
    before: Option<DeliveryMode>,
    webhook: &Webhook,
) -> Result<()> {
    let pulled = |mode| mode == Some(DeliveryMode::Pulled);
    match (pulled(before), pulled(Some(webhook.options.delivery_mode))) {
        (false, true) => {
            let (_, end) = log::head(conn).await?;
            store::put(conn, &webhook.id, end, webhook.updated_at).await
        }
        (true, false) => store::forget(conn, &webhook.id).await,
        _ => Ok(()),
    }
}

/// What an active, pulled endpoint wants, and its place.
async fn read_endpoint(conn: &mut Conn, webhook_id: &str) -> Result<(Vec<Pattern>, i64)> {
    let webhook = webhooks::find(conn, webhook_id).await?;
    let place = place(conn, &webhook).await?;
    webhook.refuse_inactive()?;
    let patterns = webhook.event_types.iter().filter_map(|text| Pattern::parse(text).ok()).collect();
    Ok((patterns, place))
}

async fn place(conn: &mut Conn, webhook: &Webhook) -> Result<i64> {
    // The endpoint says it and not the row: one may have changed since the other was read.
    let place = match webhook.options.delivery_mode {
        DeliveryMode::Pulled => store::place(conn, &webhook.id).await?,
        _ => None,
    };
    let message = "the endpoint is not pulled: events are sent to it";
    place.ok_or_else(|| Error::new(Kind::FailedPrecondition, "WEBHOOK_NOT_PULLED", message))
}

/// Refuses a cursor behind the end of the log, which this database never gave out.
async fn check_end(conn: &mut Conn, cursor: Cursor) -> Result<()> {
    let (_, end) = log::head(conn).await?;
    if cursor.position <= end { Ok(()) } else { Err(Error::field("cursor", "is beyond the end of the log")) }
}

fn wants(patterns: &[Pattern], event_type: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(event_type))
}
