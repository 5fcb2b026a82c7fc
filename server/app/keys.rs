//! From settings to what they say about API keys, and the tasks that look after keys.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::apikey::policy::{Policy, SharedPolicy};
use crate::apikey::{ANNOUNCE_INTERVAL, ApiKeyService};
use crate::settings::{SettingsService, Values};

/// Hands the settings to whom they concern, now and whenever they change.
pub(super) fn settings(settings: &SettingsService, policy: SharedPolicy) {
    settings.follow(move |values| policy.store(Arc::new(of(values))));
}

fn of(values: &Values) -> Policy {
    let days = |key| u32::try_from(values.integer(key)).unwrap_or(1);
    Policy { default_days: days("apikeys.default_expiry_days"), max_days: days("apikeys.max_expiry_days") }
}

/// Publishes that keys end soon, and what could not be published at its time.
pub(super) async fn announce(keys: Arc<ApiKeyService>, watch: Arc<Notify>, stop: CancellationToken) {
    // Other nodes start at the same time, after an update: whoever comes second finds it done.
    let mut wait = Duration::from_secs(1);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = watch.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
        wait = ANNOUNCE_INTERVAL;
        if let Err(error) = keys.announce_due().await {
            tracing::warn!(%error, "events of keys could not be published; it is tried again");
        }
    }
}
