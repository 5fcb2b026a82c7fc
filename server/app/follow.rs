//! The tasks that keep a node up to date: with the settings, with other nodes, with time.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{mail, webhooks};
use crate::clock::SharedClock;
use crate::db::trouble::Trouble;
use crate::db::{Db, revision};
use crate::delivery::{Engine, Node};
use crate::email::library::Library;
use crate::email::smtp::SmtpTransport;
use crate::email::suppression;
use crate::email::{EmailChannel, SharedConfig};
use crate::event::PublishContext;
use crate::event::ephemeral::EphemeralHub;
use crate::event::registry::Registry;
use crate::event::request;
use crate::notification::registry::Registry as LiveStreams;
use crate::rpc::http::Health;
use crate::settings::{SettingsService, history};
use crate::telemetry::Metrics;
use crate::webhook::stats::{self, Tally};
use crate::webhook::{Clients, Defaults, WebhookChannel, rotation};

/// How often a node looks whether another one changed something.
const POLL: Duration = Duration::from_secs(1);
/// How often a node looks whether another one changed settings: one row by its key.
const SETTINGS_POLL: Duration = Duration::from_millis(250);
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// Hands the settings to whom they concern, now and whenever they change.
pub(super) fn settings(
    settings: &SettingsService,
    email: SharedConfig,
    transport: Arc<SmtpTransport>,
    emails: Engine<EmailChannel>,
    registry: Arc<Registry>,
    webhook_defaults: Arc<Defaults>,
    webhook_engine: Engine<WebhookChannel>,
) {
    settings.follow(move |values| {
        let config = mail::config(values);
        transport.reconfigure(&config.providers);
        if **email.load() != config {
            email.store(Arc::new(config));
            // What kept mails waiting may have been mended.
            let emails = emails.clone();
            tokio::spawn(async move {
                if let Err(error) = emails.unblock().await {
                    tracing::warn!(%error, "held mails could not be released; they go at their time");
                }
            });
        }
        registry.set_strict(values.boolean("events.strict_types"));
        if webhook_defaults.set(webhooks::settings(values)) {
            // What waits for the old limit may go out under the new one.
            let engine = webhook_engine.clone();
            tokio::spawn(async move {
                if let Err(error) = engine.unblock().await {
                    tracing::warn!(%error, "held deliveries could not be released; they go at their time");
                }
            });
        }
    });
}

/// Has the requests of webhooks go through the proxy of the settings, now and whenever that changes.
pub(super) fn proxy(settings: &SettingsService, clients: Arc<Clients>) {
    settings.follow(move |values| clients.set_proxy(webhooks::proxy(values)));
}

/// Reads the settings that another node changed: on their own and often, so that nothing else holds them up and a change
/// is everywhere well within a second.
pub(super) async fn settings_of_other_nodes(settings: Arc<SettingsService>, stop: CancellationToken) {
    while !cancelled_within(SETTINGS_POLL, &stop).await {
        if let Err(error) = settings.reload().await {
            tracing::warn!(%error, "settings of other nodes could not be read");
        }
    }
}

/// Reads what another node changed.
pub(super) async fn other_nodes(
    db: Db,
    context: Arc<PublishContext>,
    hub: Arc<EphemeralHub>,
    library: Arc<Library>,
    webhook_engine: Engine<WebhookChannel>,
    stop: CancellationToken,
) {
    let mut erasures = None;
    while !cancelled_within(POLL, &stop).await {
        let read = async {
            let mut conn = db.reader().await?;
            library.follow(&mut conn).await?;
            let current = revision::current(&mut conn, revision::ERASURES).await?;
            if erasures.replace(current).is_none_or(|before| before != current) {
                context.bus.forget();
                hub.forget();
            }
            if revision::current(&mut conn, revision::SUBSCRIPTIONS).await? != context.registry.revision() {
                context.refresh(&mut conn).await?;
                // An endpoint's limit may have changed.
                webhook_engine.unblock().await?;
            }
            crate::error::Result::<()>::Ok(())
        };
        if let Err(error) = read.await {
            tracing::warn!(%error, "changes of other nodes could not be read");
        }
    }
}

/// Renews the node's lease.
pub(super) async fn lease(node: Arc<Node>, db: Db, clock: SharedClock, stop: CancellationToken) {
    while !cancelled_within(node.renewal_interval(), &stop).await {
        if let Err(error) = node.renew(&db, &clock).await {
            tracing::warn!(%error, "the lease could not be renewed");
        }
    }
}

/// Forgets what is kept for a limited time.
pub(super) async fn housekeeping(db: Db, clock: SharedClock, stop: CancellationToken) {
    while !cancelled_within(HOUSEKEEPING, &stop).await {
        if let Err(error) = request::forget_old(&db, clock.now()).await {
            tracing::warn!(%error, "old request ids could not be forgotten");
        }
        if let Err(error) = suppression::forget_expired(&db, clock.now()).await {
            tracing::warn!(%error, "suppressions that have ended could not be forgotten");
        }
        if let Err(error) = history::forget_old(&db, clock.now()).await {
            tracing::warn!(%error, "old revisions of the settings could not be forgotten");
        }
        if let Err(error) = stats::tidy(&db, clock.now()).await {
            tracing::warn!(%error, "old statistics could not be put together");
        }
        if let Err(error) = rotation::forget_ended(&db, clock.now()).await {
            tracing::warn!(%error, "webhook secrets that have ended could not be forgotten");
        }
    }
}

/// Writes what was counted of webhooks, once a second.
pub(super) async fn tally(tally: Arc<Tally>, db: Db, stop: CancellationToken) {
    while !cancelled_within(POLL, &stop).await {
        if let Err(error) = tally.flush(&db).await {
            tracing::warn!(%error, "the statistics of webhooks could not be written; they are kept for the next time");
        }
    }
}

/// Says whether the database lets this node do all of its work.
pub(super) async fn readiness(db: Db, health: Health, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut troubles = db.troubles();
    loop {
        let trouble = *troubles.borrow_and_update();
        metrics.set_database_usable(trouble.is_none());
        health.set_trouble(trouble.map(Trouble::explanation)).await;
        tokio::select! {
            changed = troubles.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// What is measured from outside.
pub(super) struct Gauges {
    pub metrics: Arc<Metrics>,
    pub webhooks: Engine<WebhookChannel>,
    pub emails: Engine<EmailChannel>,
    pub live: Arc<LiveStreams>,
}

/// Keeps the gauges.
pub(super) async fn gauges(gauges: Gauges, stop: CancellationToken) {
    while !cancelled_within(POLL, &stop).await {
        gauges.metrics.set_in_hand("webhook", gauges.webhooks.in_hand());
        gauges.metrics.set_in_hand("email", gauges.emails.in_hand());
        gauges.metrics.set_subscribers(gauges.live.len());
    }
}

async fn cancelled_within(wait: Duration, stop: &CancellationToken) -> bool {
    tokio::time::timeout(wait, stop.cancelled()).await.is_ok()
}
