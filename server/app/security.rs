//! From settings to what they say about who may come to the port.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::apikey::Verifier;
use crate::rpc::admission::quota::Quota;
use crate::rpc::admission::{Admission, Networks, Policy};
use crate::settings::{SettingsService, Values};

const TRUSTED_PROXIES: &str = "security.trusted_proxies";
const ALLOW: &str = "security.ip_allow";
const DENY: &str = "security.ip_deny";
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// Hands the settings to whom they concern, now and whenever they change.
pub(super) fn settings(settings: &SettingsService, admission: Arc<Admission>, keys: Arc<Verifier>) {
    settings.follow(move |values| {
        if admission.set(policy(values)) {
            // Calls that last ask again whether they may be from where they are.
            keys.endings().tell();
        }
        keys.set_default_limit(Quota::new("default", values.integer("security.rate_limit_per_key"), HOUR));
    });
}

pub(super) fn policy(values: &Values) -> Policy {
    // What is kept was checked.
    let networks = |key| Networks::parse(values.text(key)).unwrap_or_default();
    Policy {
        trusted_proxies: networks(TRUSTED_PROXIES),
        allowed: networks(ALLOW),
        denied: networks(DENY),
        requests: Quota::new("address", values.integer("security.rate_limit_per_ip"), MINUTE),
        users: Quota::new("user", values.integer("security.rate_limit_per_key"), HOUR),
        under_way: usize::try_from(values.integer("server.max_calls_under_way")).ok(),
        failed_keys: Quota::new("failed_keys", values.integer("security.failed_keys_per_minute"), MINUTE),
    }
}

/// What is wrong with values that the catalogue can not judge.
pub(super) fn check(values: &Values) -> Vec<(&'static str, String)> {
    // Then the first entry of the header would count, which anybody can write.
    let all = policy(values).trusted_proxies.have_everything();
    all.then(|| (TRUSTED_PROXIES, "must not have all addresses".to_owned())).into_iter().collect()
}

/// What would lock out the one who makes a change.
pub(super) fn check_caller(values: &Values, address: IpAddr) -> Vec<(&'static str, String)> {
    let policy = policy(values);
    if policy.admits(Some(address)) {
        return Vec::new();
    }
    let wrong = format!("would lock out {address}, which this change comes from");
    vec![(ALLOW, wrong.clone()), (DENY, wrong)]
}
