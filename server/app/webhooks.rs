//! From settings to what they say about webhooks.

use crate::settings::Values;
use crate::webhook::health::Thresholds;
use crate::webhook::policy::{Settings, parse_schedule};
use crate::webhook::signature::Schemes;
use crate::webhook::{Proxy, RetryPolicy};

const SCHEDULE: &str = "webhook.retry_schedule";
const PROXY_URL: &str = "webhook.proxy_url";
const PROXY_USERNAME: &str = "webhook.proxy_username";

/// What holds for endpoints that say nothing.
pub(super) fn settings(values: &Values) -> Settings {
    let retry_policy = RetryPolicy {
        // What is kept was checked; a pinned one too, at the start.
        schedule: parse_schedule(values.text(SCHEDULE)).unwrap_or_default(),
        retry_client_errors: values.boolean("webhook.retry_client_errors"),
    };
    let count = |key| u32::try_from(values.integer(key)).unwrap_or(0);
    let hourly_limit = count("webhook.hourly_limit");
    let thresholds =
        Thresholds::new(count("webhook.failing_after_hours"), count("webhook.disable_after_days"));
    let schemes = Schemes::named(values.text("security.webhook_signature"));
    Settings { retry_policy, hourly_limit, thresholds, schemes }
}

/// The proxy that requests go through, if there is one.
pub(super) fn proxy(values: &Values) -> Option<Proxy> {
    // What is kept was checked.
    parse_proxy(values).unwrap_or_default()
}

fn parse_proxy(values: &Values) -> Result<Option<Proxy>, String> {
    let password = values.secret("webhook.proxy_password");
    Proxy::new(values.text(PROXY_URL), values.text(PROXY_USERNAME), &password)
}

/// What is wrong with values that the catalogue can not judge.
pub(super) fn check(values: &Values) -> Vec<(&'static str, String)> {
    let colon = values.text(PROXY_USERNAME).contains(':');
    let wrong = [
        (SCHEDULE, parse_schedule(values.text(SCHEDULE)).err()),
        (PROXY_URL, parse_proxy(values).err()),
        // It would end the name (RFC 7617, 2).
        (PROXY_USERNAME, colon.then(|| "must not have a colon".to_owned())),
    ];
    wrong.into_iter().filter_map(|(key, reason)| Some((key, reason?))).collect()
}
