//! What makes live notifications more than the streams of one node: presence, the dashboard, and the other nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Ground, Stops};
use crate::db::group::Lane;
use crate::db::hint::Hints;
use crate::delivery::{Node, State, Table};
use crate::event::PublishWrite;
use crate::event::bus::Bus;
use crate::notification::cluster::relay::Relay;
use crate::notification::dashboard::{self, Attempts, Dashboard, NodeNumbers};
use crate::notification::presence::{self, Presence};
use crate::settings::{SettingsService, Values};
use crate::telemetry::Metrics;

const LINGER: &str = "notifications.presence_linger_seconds";
const DASHBOARD: &str = "notifications.dashboard_interval_seconds";
/// The shortest time between two publishes of the server's own numbers.
const SHORTEST: Duration = Duration::from_secs(5);
const TIDY: Duration = Duration::from_secs(600);

/// These parts.
pub(super) struct Live {
    pub(super) presence: Arc<Presence>,
    dashboard: Arc<Dashboard>,
    hints: Arc<Hints>,
    relay: Arc<Relay>,
    is_shared: bool,
}

impl Live {
    pub(super) fn new(
        ground: &Ground,
        node: &Arc<Node>,
        publishes: &Lane<PublishWrite>,
        bus: &Arc<Bus>,
        metrics: &Arc<Metrics>,
        hints: Arc<Hints>,
    ) -> Self {
        let Ground { db, machine, ids, .. } = ground;
        let presence = Presence::new(presence::Parts {
            db: db.clone(),
            node: Arc::clone(node),
            publishes: publishes.clone(),
            ids: Arc::clone(ids),
            clock: machine.clock.clone(),
        });
        let relay = Relay::new(db.clone(), node.id(), Arc::clone(&hints));
        let (bus, metrics) = (Arc::clone(bus), Arc::clone(metrics));
        let forward = Arc::clone(&relay);
        let dashboard = Dashboard::new(dashboard::Parts {
            db: db.clone(),
            node_id: node.id(),
            numbers: Box::new(move || numbers(&bus, &metrics)),
            publish: Box::new(move |event| forward.forward(&event)),
            ids: Arc::clone(ids),
            clock: machine.clock.clone(),
        });
        Self { presence, dashboard, hints, relay, is_shared: db.is_shared() }
    }

    /// Hands the settings to whom they concern, and starts the tasks.
    pub(super) fn start(&self, settings: &SettingsService, stops: &Stops) {
        let (presence, dashboard) = (Arc::clone(&self.presence), Arc::clone(&self.dashboard));
        settings.follow(move |values| {
            presence.set_linger(seconds(values, LINGER));
            dashboard.set_interval(seconds(values, DASHBOARD));
        });
        let stop = || stops.delivery.clone();
        stops.tasks.spawn(Arc::clone(&self.presence).run(stop()));
        stops.tasks.spawn(tidy(Arc::clone(&self.presence), stop()));
        stops.tasks.spawn(Arc::clone(&self.dashboard).run(stop()));
        if self.is_shared {
            let (hints, stop_hints) = (Arc::clone(&self.hints), stop());
            stops.tasks.spawn(async move { hints.run(stop_hints).await });
            stops.tasks.spawn(Arc::clone(&self.relay).write(stop()));
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
fn numbers(bus: &Bus, metrics: &Metrics) -> NodeNumbers {
    let of = |table: Table| {
        let count = |state: State| metrics.attempts(table.channel(), state.word(table));
        let (succeeded, retrying, failed) =
            (count(State::Succeeded), count(State::Retrying), count(State::Failed));
        (table.channel().to_owned(), Attempts { succeeded, retrying, failed })
    };
    NodeNumbers {
        streams: bus.watchers() as u64,
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
