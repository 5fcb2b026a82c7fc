//! Live streams: what the settings say of them, and what looks after them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::apikey::ApiKeyService;
use crate::error::Result;
use crate::notification::registry::{Limits, Registry, Succession};
use crate::settings::{SettingsService, Values};

/// Hands the settings to whom they concern, now and whenever they change.
pub(super) fn settings(settings: &SettingsService, registry: Arc<Registry>) {
    settings.follow(move |values| registry.set_limits(limits(values)));
}

fn limits(values: &Values) -> Limits {
    let count = |key| usize::try_from(values.integer(key)).unwrap_or_default();
    let minutes = u64::try_from(values.integer("notifications.max_stream_age_minutes")).unwrap_or(1);
    Limits {
        enabled: values.boolean("notifications.live_enabled"),
        streams: count("notifications.max_streams"),
        per_user: count("notifications.max_streams_per_user"),
        per_address: Some(count("notifications.max_streams_per_address")).filter(|&most| most > 0),
        opens_per_second: values.integer("notifications.stream_opens_per_second"),
        max_age: Duration::from_secs(60 * minutes),
    }
}

/// Looks after streams that nobody reads, until `stop`; then ends all of them, within half of the time that requests under
/// way have.
pub(super) async fn look_after(registry: Arc<Registry>, drain: Duration, stop: CancellationToken) {
    while tokio::time::timeout(registry.sweep_interval(), stop.cancelled()).await.is_err() {
        registry.sweep();
    }
    registry.drain(drain / 2);
}

/// Has the streams look at their callers whenever some key or token may have ended or may do less, until `stop`.
pub(super) async fn recheck(
    registry: Arc<Registry>,
    mut revoked: watch::Receiver<u64>,
    stop: CancellationToken,
) {
    while tokio::select! {
        changed = revoked.changed() => changed.is_ok(),
        () = stop.cancelled() => false,
    } {
        registry.recheck();
    }
}

/// Knows which keys took the place of which.
pub(super) struct Keys(pub Arc<ApiKeyService>);

impl Succession for Keys {
    fn is_replaced_by<'a>(&'a self, key_id: &'a str, by: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.0.is_replaced_by(key_id, by))
    }
}
