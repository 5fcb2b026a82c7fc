//! From settings to what they say about webhooks.

use crate::settings::Values;
use crate::webhook::RetryPolicy;
use crate::webhook::health::Thresholds;
use crate::webhook::policy::{Settings, parse_schedule};

const SCHEDULE: &str = "webhook.retry_schedule";

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
    Settings { retry_policy, hourly_limit, thresholds }
}

/// What is wrong with values that the catalogue can not judge.
pub(super) fn check(values: &Values) -> Vec<(&'static str, String)> {
    let wrong = parse_schedule(values.text(SCHEDULE)).err();
    wrong.into_iter().map(|reason| (SCHEDULE, reason)).collect()
}
