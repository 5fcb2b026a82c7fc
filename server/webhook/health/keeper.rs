//! Writes what was noted of endpoints, decides what follows, and announces it: one task a node.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::notice::{self, Notice};
use super::pulse::Pulse;
use super::record::{Noted, Record};
use super::store;
use super::verdict::{Thresholds, Verdict, verdict};
use crate::audit::{Change, Recorder};
use crate::clock::{SharedClock, Timestamp};
use crate::db::group::Lane;
use crate::db::{Conn, Db, revision};
use crate::delivery::Engine;
use crate::error::Result;
use crate::event::PublishWrite;
use crate::id::IdGenerator;
use crate::telemetry::Metrics;
use crate::webhook::audited;
use crate::webhook::channel::WebhookChannel;
use crate::webhook::directory::Directory;
use crate::webhook::model::Webhook;
use crate::webhook::policy::Defaults;
use crate::webhook::store as webhooks;

const INTERVAL: Duration = Duration::from_secs(1);
/// How many endpoints are decided about in one transaction.
const BATCH: usize = 100;
/// How many records are written at a time.
const WRITTEN: usize = 1_000;

/// Keeps the health of endpoints.
pub struct Keeper {
    /// The database.
    pub db: Db,
    /// The endpoints in memory.
    pub directory: Arc<Directory>,
    /// When something follows.
    pub defaults: Arc<Defaults>,
    /// Has what waits for dead hosts.
    pub engine: Engine<WebhookChannel>,
    /// Where publishes go.
    pub publishes: Lane<PublishWrite>,
    /// Records what is changed.
    pub audit: Recorder,
    /// Makes ids.
    pub ids: Arc<IdGenerator>,
    /// The time.
    pub clock: SharedClock,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Keeper {
    /// Works until it is stopped: every second, and at once when something is urgent.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "the health of webhooks could not be looked after; it is tried again");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.directory.chart.urgent.notified() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    async fn look(&self) -> Result<()> {
        for lane in self.directory.chart.take_recovered() {
            tracing::info!(webhook = %lane, "the endpoint answers again: what waited goes out");
            if let Err(error) = self.engine.unblock_lane(&lane).await {
                tracing::warn!(webhook = %lane, %error, "held deliveries could not be released; they go at their time");
            }
        }
        self.flush().await?;
        let failing = store::failing(&mut self.db.reader().await?).await?;
        let endpoints = self.directory.endpoints();
        for endpoint in endpoints.all() {
            endpoint.pulse.know(failing.contains_key(&*endpoint.id));
        }
        let open = endpoints.all().iter().filter(|endpoint| endpoint.pulse.is_open()).count();
        self.metrics.set_open_breakers(open);
        let now = self.clock.now();
        self.decide(failing, now).await?;
        notice::publish_all(&self.db, &self.publishes, &self.ids, now).await
    }

    /// Writes what was noted.  What can not be written now is kept for the next time.
    ///
    /// # Errors
    /// When the database refuses it.
    pub async fn flush(&self) -> Result<()> {
        let changed = self.directory.chart.take_changed().into_iter();
        let mut noted: Vec<_> =
            changed.map(|pulse| (pulse.take(), pulse)).filter(|(noted, _)| !noted.is_empty()).collect();
        if noted.is_empty() {
            return Ok(());
        }
        // In one order on every node, so that no two wait for each other.
        noted.sort_unstable_by(|(_, one), (_, other)| one.id().cmp(other.id()));
        let noted = Arc::new(noted);
        let written = Arc::clone(&noted);
        let done =
            self.db.transaction(move |conn| Box::pin(async move { write(conn, &written).await })).await;
        if done.is_err() {
            for (noted, pulse) in noted.iter() {
                self.directory.chart.put_back(pulse, noted.clone());
            }
        }
        done
    }

    async fn decide(&self, failing: HashMap<String, (bool, Record)>, now: Timestamp) -> Result<()> {
        let thresholds = self.defaults.thresholds();
        let (mut told, mut disabled) = (Vec::new(), Vec::new());
        for (id, (active, record)) in failing {
            match verdict(&record, &thresholds, now).filter(|_| active) {
                None => {}
                Some(Verdict::Failing) => told.push(id),
                Some(Verdict::Disable(_)) => disabled.push(id),
            }
        }
        for ids in [&mut told, &mut disabled] {
            ids.sort_unstable();
            ids.truncate(BATCH);
        }
        if !told.is_empty() {
            self.db
                .transaction(move |conn| {
                    Box::pin(async move { act(conn, told, &thresholds, now).await.map(drop) })
                })
                .await?;
        }
        if !disabled.is_empty() {
            let audit = self.audit.clone();
            // Every node's publishes must see it.
            revision::change(&self.db, revision::SUBSCRIPTIONS, move |conn| {
                Box::pin(async move {
                    let disabled = act(conn, disabled, &thresholds, now).await?;
                    let entry = |(before, after): &(Webhook, Webhook)| {
                        let change = Change::new("webhook", &after.id, "disable");
                        change.from(audited::fields(before, &audit)).to(audited::fields(after, &audit))
                    };
                    audit.record_all(conn, disabled.iter().map(entry).collect()).await
                })
            })
            .await?;
            self.directory.refresh(&mut self.db.reader().await?).await?;
        }
        Ok(())
    }
}

async fn write(conn: &mut Conn, noted: &[(Noted, Arc<Pulse>)]) -> Result<()> {
    for noted in noted.chunks(WRITTEN) {
        let ids = noted.iter().map(|(_, pulse)| pulse.id().to_string()).collect();
        let mut records = store::hold(conn, ids).await?;
        let noted: HashMap<&str, &Noted> =
            noted.iter().map(|(noted, pulse)| (&**pulse.id(), noted)).collect();
        for (id, record) in &mut records {
            if let Some(noted) = noted.get(id.as_str()) {
                record.add(noted);
            }
        }
        store::put(conn, records).await?;
    }
    Ok(())
}

/// Decides about endpoints under the locks of their rows: another node may have done so, or one may have recovered.
/// Answers those that it disabled, as they were and as they are.
async fn act(
    conn: &mut Conn,
    ids: Vec<String>,
    thresholds: &Thresholds,
    now: Timestamp,
) -> Result<Vec<(Webhook, Webhook)>> {
    let (mut disabled, mut decided) = (Vec::new(), Vec::new());
    for (id, mut record) in store::hold(conn, ids).await? {
        let mut webhook = webhooks::find(conn, &id).await?;
        if !webhook.active {
            continue;
        }
        let notice = match verdict(&record, thresholds, now) {
            None => continue,
            Some(Verdict::Failing) => {
                tracing::warn!(
                    webhook = id,
                    error = record.last_error,
                    "the endpoint has only failed for a while"
                );
                record.announced = true;
                Notice::failing(&webhook, &record)
            }
            Some(Verdict::Disable(reason)) => {
                tracing::warn!(webhook = id, reason, "the endpoint is disabled");
                let before = webhook.clone();
                webhook.active = false;
                webhook.disabled_reason = reason;
                webhook.version += 1;
                webhook.updated_at = now;
                webhooks::update(conn, &webhook).await?;
                disabled.push((before, webhook.clone()));
                Notice::disabled(&webhook, &record)
            }
        };
        store::keep_notice(conn, &notice).await?;
        decided.push((id, record));
    }
    store::put(conn, decided).await?;
    Ok(disabled)
}
