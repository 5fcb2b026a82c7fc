//! What makes live notifications more than the streams of one node: presence, the dashboard, and the other nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Ground, Stops};
use crate::config::Config;
use crate::db::group::Lane;
use crate::db::hint::Hints;
use crate::delivery::{Node, State, Table};
use crate::error::Result;
use crate::event::bus::Bus;
use crate::event::ephemeral::EphemeralHub;
use crate::event::{PublishWrite, topic};
use crate::notification::cluster::mailbox::{self, Mailbox};
use crate::notification::cluster::relay::Relay;
use crate::notification::dashboard::{self, Attempts, Dashboard, NodeNumbers};
use crate::notification::presence::{self, Presence};
use crate::notification::registry::{Elsewhere, Nowhere, Registry};
use crate::settings::{SettingsService, Values};
use crate::telemetry::Metrics;

const LINGER: &str = "notifications.presence_linger_seconds";
const DASHBOARD: &str = "notifications.dashboard_interval_seconds";
/// The shortest time between two publishes of the server's own numbers.
const SHORTEST: Duration = Duration::from_secs(5);
const TIDY: Duration = Duration::from_secs(600);

/// These parts.
pub(super) struct Cluster {
    pub(super) presence: Arc<Presence>,
    dashboard: Arc<Dashboard>,
    others: Option<Others>,
}

/// What reaches other nodes, where there can be some.
struct Others {
    hints: Arc<Hints>,
    relay: Arc<Relay>,
    /// How far the relay has read.
    position: i64,
    mailbox: Mailbox,
}

impl Cluster {
    /// Makes them, and gives the hub what it needs to begin with.
    #[expect(clippy::too_many_arguments, reason = "it joins what all these have made")]
    pub(super) async fn open(
        ground: &Ground,
        config: &Config,
        node: &Arc<Node>,
        publishes: &Lane<PublishWrite>,
        bus: &Arc<Bus>,
        hub: &Arc<EphemeralHub>,
        streams: &Arc<Registry>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self> {
        let Ground { db, machine, ids, .. } = ground;
        let presence = Presence::new(presence::Parts {
            db: db.clone(),
            node: Arc::clone(node),
            publishes: publishes.clone(),
            ids: Arc::clone(ids),
            clock: machine.clock.clone(),
        });
        let (streams, metrics, to) = (Arc::clone(streams), Arc::clone(metrics), Arc::clone(hub));
        let watched = Arc::clone(&streams);
        let dashboard = Dashboard::new(dashboard::Parts {
            db: db.clone(),
            node_id: node.id(),
            numbers: Box::new(move || numbers(&streams, &metrics)),
            is_watched: Box::new(move || watched.is_asked_for(topic::DASHBOARD, dashboard::UPDATE)),
            publish: Box::new(move |event| to.publish(event)),
            ids: Arc::clone(ids),
            clock: machine.clock.clone(),
        });
        let mut others = None;
        if db.is_shared() {
            let hints = Arc::new(Hints::new(db, config.hints));
            bus.hint_with(Arc::clone(&hints));
            let relay = Relay::new(db.clone(), node.id(), Arc::clone(&hints));
            let (newest, position) = relay.newest().await?;
            newest.into_iter().for_each(|event| hub.publish_local(event));
            let forward = Arc::clone(&relay);
            hub.forward_with(Arc::new(move |event| forward.forward(event)));
            let mailbox = Mailbox {
                db: db.clone(),
                node_id: node.id(),
                hints: Arc::clone(&hints),
                random: machine.random.clone(),
            };
            others = Some(Others { hints, relay, position, mailbox });
        }
        Ok(Self { presence, dashboard, others })
    }

    /// What reaches the streams of other nodes.
    pub(super) fn elsewhere(&self) -> Arc<dyn Elsewhere> {
        match &self.others {
            Some(others) => Arc::new(others.mailbox.clone()),
            None => Arc::new(Nowhere),
        }
    }

    /// Hands the settings to whom they concern, and starts the tasks.
    pub(super) fn start(
        &self,
        settings: &SettingsService,
        hub: &Arc<EphemeralHub>,
        streams: &Arc<Registry>,
        stops: &Stops,
    ) {
        let (presence, dashboard) = (Arc::clone(&self.presence), Arc::clone(&self.dashboard));
        settings.follow(move |values| {
            presence.set_linger(seconds(values, LINGER));
            dashboard.set_interval(seconds(values, DASHBOARD));
        });
        let stop = || stops.delivery.clone();
        stops.tasks.spawn(Arc::clone(&self.presence).run(stop()));
        stops.tasks.spawn(tidy(Arc::clone(&self.presence), stop()));
        stops.tasks.spawn(Arc::clone(&self.dashboard).run(stop()));
        if let Some(Others { hints, relay, position, mailbox }) = &self.others {
            let (hints, until) = (Arc::clone(hints), stop());
            stops.tasks.spawn(async move { hints.run(until).await });
            let hub = Arc::clone(hub);
            let deliver = move |event| hub.publish_local(event);
            stops.tasks.spawn(Arc::clone(relay).write(stop()));
            stops.tasks.spawn(Arc::clone(relay).read(*position, deliver, stop()));
            stops.tasks.spawn(mailbox.clone().run(mailbox::carry(Arc::clone(streams)), stop()));
        }
    }
}

fn seconds(values: &Values, key: &str) -> Duration {
    Duration::from_secs(u64::try_from(values.integer(key)).unwrap_or_default())
}

/// What is wrong with values that the catalogue can not judge.
pub(super) fn check(values: &Values) -> Vec<(&'static str, String)> {
    let interval = seconds(values, DASHBOARD);
    let sane = interval.is_zero() || interval >= SHORTEST;
    (!sane).then(|| (DASHBOARD, "must be at least 5, or 0 for never".to_owned())).into_iter().collect()
}

/// What this node knows of itself.
fn numbers(streams: &Registry, metrics: &Metrics) -> NodeNumbers {
    let of = |table: Table| {
        let count = |state: State| metrics.attempts(table.channel(), state.word(table));
        let (succeeded, retrying, failed) =
            (count(State::Succeeded), count(State::Retrying), count(State::Failed));
        (table.channel().to_owned(), Attempts { succeeded, retrying, failed })
    };
    NodeNumbers {
        streams: streams.len() as u64,
        connections: u64::try_from(metrics.connections().get()).unwrap_or_default(),
        attempts: BTreeMap::from([Table::EmailQueue, Table::WebhookDeliveries].map(of)),
    }
}

/// Forgets users who went long ago.
async fn tidy(presence: Arc<Presence>, stop: CancellationToken) {
    while tokio::time::timeout(TIDY, stop.cancelled()).await.is_err() {
        if let Err(error) = presence.tidy().await {
            tracing::warn!(%error, "users who went long ago could not be forgotten");
        }
    }
}
