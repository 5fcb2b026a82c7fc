//! The tasks that keep a node up to date: with the settings, with other nodes, with time.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::db::{Db, revision};
use crate::delivery::{Engine, Node};
use crate::email::template::Branding;
use crate::email::{EmailChannel, EmailConfig, SharedConfig, Smtp, TlsMode};
use crate::event::PublishContext;
use crate::event::bus::Bus;
use crate::event::registry::Registry;
use crate::event::request;
use crate::settings::{SettingsService, Values};
use crate::telemetry::Metrics;
use crate::webhook::WebhookChannel;

/// How often a node looks whether another one changed something.
const POLL: Duration = Duration::from_secs(1);
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// What the settings say about mail.
pub(super) fn email_config(values: &Values) -> EmailConfig {
    let host = values.text("email.smtp_host");
    let smtp = (!host.is_empty()).then(|| Smtp {
        host: host.to_owned(),
        port: u16::try_from(values.integer("email.smtp_port")).unwrap_or(587),
        user: values.text("email.smtp_user").to_owned(),
        password: values.secret("email.smtp_password"),
        tls: match values.text("email.smtp_tls") {
            "implicit" => TlsMode::Implicit,
            "none" => TlsMode::None,
            _ => TlsMode::StartTls,
        },
    });
    let logo = values.text("general.logo_url");
    EmailConfig {
        smtp,
        from_address: values.text("email.from_address").to_owned(),
        from_name: values.text("email.from_name").to_owned(),
        branding: Branding {
            company_name: values.text("general.company_name").to_owned(),
            site_url: values.text("general.site_url").to_owned(),
            support_email: values.text("general.support_email").to_owned(),
            logo_url: (!logo.is_empty()).then(|| logo.to_owned()),
            colour: values.text("general.colour").to_owned(),
        },
    }
}

/// Hands the settings to whom they concern, now and whenever they change.
pub(super) fn settings(settings: &SettingsService, email: SharedConfig, registry: Arc<Registry>) {
    settings.follow(move |values| {
        email.store(Arc::new(email_config(values)));
        registry.set_strict(values.boolean("events.strict_types"));
    });
}

/// Reads what another node changed.
pub(super) async fn other_nodes(
    db: Db,
    settings: Arc<SettingsService>,
    context: Arc<PublishContext>,
    stop: CancellationToken,
) {
    while !cancelled_within(POLL, &stop).await {
        let read = async {
            settings.reload().await?;
            let mut conn = db.reader().await?;
            if revision::current(&mut conn, revision::SUBSCRIPTIONS).await? != context.registry.revision() {
                context.refresh(&mut conn).await?;
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
    }
}

/// What is measured from outside.
pub(super) struct Gauges {
    pub metrics: Arc<Metrics>,
    pub webhooks: Engine<WebhookChannel>,
    pub emails: Engine<EmailChannel>,
    pub bus: Arc<Bus>,
}

/// Keeps the gauges.
pub(super) async fn gauges(gauges: Gauges, stop: CancellationToken) {
    while !cancelled_within(POLL, &stop).await {
        gauges.metrics.set_in_hand("webhook", gauges.webhooks.in_hand());
        gauges.metrics.set_in_hand("email", gauges.emails.in_hand());
        gauges.metrics.set_subscribers(gauges.bus.watchers());
    }
}

async fn cancelled_within(wait: Duration, stop: &CancellationToken) -> bool {
    tokio::time::timeout(wait, stop.cancelled()).await.is_ok()
}
