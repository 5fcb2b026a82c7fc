//! From settings to what they say about webhooks.

use crate::settings::Values;
use crate::webhook::RetryPolicy;
use crate::webhook::policy::parse_schedule;

const SCHEDULE: &str = "webhook.retry_schedule";

/// What holds for endpoints that say nothing.
pub(super) fn retry_policy(values: &Values) -> RetryPolicy {
    RetryPolicy {
        // What is kept was checked; a pinned one too, at the start.
        schedule: parse_schedule(values.text(SCHEDULE)).unwrap_or_default(),
        retry_client_errors: values.boolean("webhook.retry_client_errors"),
    }
}

/// What is wrong with values that the catalogue can not judge.
pub(super) fn check(values: &Values) -> Vec<(&'static str, String)> {
    let wrong = parse_schedule(values.text(SCHEDULE)).err();
    wrong.into_iter().map(|reason| (SCHEDULE, reason)).collect()
}
