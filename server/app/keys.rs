//! From settings to what they say about API keys, and the tasks that look after keys.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::apikey::policy::{Policy, SharedPolicy};
use crate::apikey::{ANNOUNCE_INTERVAL, ApiKeyService, FOLLOW_INTERVAL};
use crate::settings::{SettingsService, Values};

const USAGE_INTERVAL: Duration = Duration::from_secs(1);

/// Hands the settings to whom they concern, now and whenever they change.
pub(super) fn settings(settings: &SettingsService, policy: SharedPolicy) {
    settings.follow(move |values| policy.store(Arc::new(of(values))));
}

fn of(values: &Values) -> Policy {
    let days = |key| u32::try_from(values.integer(key)).unwrap_or(1);
    Policy {
        default_days: days("apikeys.default_expiry_days"),
        max_days: days("apikeys.max_expiry_days"),
        log_days: days("apikeys.log_days"),
        usage_days: days("apikeys.usage_days"),
    }
}

/// Publishes that keys end soon, and what could not be published at its time; removes what is kept of uses for a limited time.
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
        if let Err(error) = keys.tidy_usage().await {
            tracing::warn!(%error, "old uses of keys could not be put together; it is tried again");
        }
    }
}

/// Writes what was counted of uses, once a second.
pub(super) async fn usage(keys: Arc<ApiKeyService>, stop: CancellationToken) {
    while tokio::time::timeout(USAGE_INTERVAL, stop.cancelled()).await.is_err() {
        if let Err(error) = keys.usage.flush(&keys.db).await {
            tracing::warn!(%error, "uses of API keys could not be written; their counts are kept for the next time");
        }
    }
}

/// Learns what other nodes change of keys.
pub(super) async fn follow(keys: Arc<ApiKeyService>, stop: CancellationToken) {
    loop {
        if let Err(error) = keys.verifier.follow().await {
            tracing::warn!(%error, "changes of keys could not be read: every key is read again now");
        }
        if tokio::time::timeout(FOLLOW_INTERVAL, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}
