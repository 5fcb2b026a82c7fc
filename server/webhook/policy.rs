//! When a failed request is made again, and how long one may take.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::health::Thresholds;
use super::mode::{Batching, DeliveryMode};
use super::signature::Schemes;
use crate::delivery::limit::{Limit, Usage};
use crate::delivery::{Hold, Policy};
use crate::error::Violations;

/// How long a request may take when its endpoint does not say.
pub const TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=TIMEOUT;
const WAITS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 60 * 60);
const PERIODS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
const WAIT_COUNT: usize = 20;
/// The most that a receiver's `Retry-After` puts off the next request.
const LONGEST_WAIT: Duration = HOUR;
const HOUR: Duration = Duration::from_secs(60 * 60);

/// What few endpoints have, as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// How long a request may take; `None` is [`TIMEOUT`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// When a failed request is made again; `None` is as the settings say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_policy: Option<RetryPolicy>,
    /// How many requests go to it; `None` is as the settings say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// How events get to it.
    #[serde(skip_serializing_if = "DeliveryMode::is_concurrent")]
    pub delivery_mode: DeliveryMode,
    /// When a batch is sent, if they get to it so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batching: Option<Batching>,
    /// Authorities that are trusted beside the system's, as PEM.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca_certificates: String,
    /// The certificate that is shown to it, with its chain, as PEM.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_certificate: String,
}

/// How many requests go to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// So many.
    pub requests: u32,
    /// In each such time.
    pub period: Duration,
}

/// When a failed request is made again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// The waits before the second, third, … request.
    pub schedule: Vec<Duration>,
    /// Whether every status from 400 to 499 but 410 is tried again.
    pub retry_client_errors: bool,
}

impl Options {
    /// Checks what a caller set.
    pub fn check(&self, violations: &mut Violations) {
        let fits = self.timeout.is_none_or(|timeout| TIMEOUTS.contains(&timeout));
        violations.require(fits, "webhook.timeout", "must be from 1 to 30 seconds");
        if let Some(policy) = &self.retry_policy {
            violations.check("webhook.retry_policy.schedule", check_schedule(&policy.schedule));
        }
        if let Some(limit) = &self.rate_limit {
            violations.require(limit.requests > 0, "webhook.rate_limit.requests", "must be 1 or more");
            let fits = PERIODS.contains(&limit.period);
            violations.require(fits, "webhook.rate_limit.period", "must be from 1 second to 1 day");
        }
        if let Some(batching) = &self.batching {
            batching.check(violations);
            let batched = self.delivery_mode == DeliveryMode::Batched;
            violations.require(batched, "webhook.batching", "needs the delivery mode BATCHED");
        }
    }
}

fn check_schedule(schedule: &[Duration]) -> Result<(), String> {
    if schedule.len() > WAIT_COUNT {
        return Err(format!("must have at most {WAIT_COUNT} entries"));
    }
    match schedule.iter().position(|wait| !WAITS.contains(wait)) {
        Some(index) => {
            Err(format!("must have waits from 1 second to 7 days, and number {} is not", index + 1))
        }
        None => Ok(()),
    }
}

/// Reads the waits of a setting: numbers with `s`, `m`, `h` or `d`, with commas between.
///
/// # Errors
/// What is wrong with them.
pub fn parse_schedule(text: &str) -> Result<Vec<Duration>, String> {
    let wait = |part: &str| {
        let part = part.trim();
        let split = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let (number, unit) = part.split_at(split);
        let seconds = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            _ => return Err(format!("{part:?} must be a number with s, m, h or d")),
        };
        let number: u64 =
            number.parse().map_err(|_| format!("{part:?} must be a number with s, m, h or d"))?;
        Ok(Duration::from_secs(number.saturating_mul(seconds)))
    };
    let parts = text.split(',').filter(|part| !part.trim().is_empty());
    let schedule = parts.map(wait).collect::<Result<Vec<_>, _>>()?;
    check_schedule(&schedule).map(|()| schedule)
}

/// A policy as the engine and the judge of answers use it.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The engine's part.
    pub policy: Arc<Policy>,
    retry_client_errors: bool,
}

impl From<&RetryPolicy> for Ready {
    fn from(policy: &RetryPolicy) -> Self {
        let schedule = policy.schedule.clone();
        let retry_client_errors = policy.retry_client_errors;
        Self { policy: Arc::new(Policy { schedule, longest_wait: LONGEST_WAIT }), retry_client_errors }
    }
}

impl Ready {
    /// Whether a request that was answered so is made again.
    pub fn retries(&self, status: StatusCode) -> bool {
        match status {
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => true,
            // Who says so does not want to be asked again (RFC 9110, 15.5.11).
            StatusCode::GONE => false,
            _ => status.is_server_error() || status.is_client_error() && self.retry_client_errors,
        }
    }
}

/// What the settings say, for endpoints that say nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// When a failed request is made again.
    pub retry_policy: RetryPolicy,
    /// How many requests go to each endpoint in an hour; 0 means any number.
    pub hourly_limit: u32,
    /// When one that only fails is told of, and disabled.
    pub thresholds: Thresholds,
    /// What requests are signed with.
    pub schemes: Schemes,
}

/// The settings, ready to use.
pub struct Defaults(ArcSwap<(Settings, Ready)>);

impl Defaults {
    /// Defaults that are these settings.
    pub fn new(settings: Settings) -> Arc<Self> {
        let ready = Ready::from(&settings.retry_policy);
        Arc::new(Self(ArcSwap::from_pointee((settings, ready))))
    }

    /// Sets them; answers whether that changed anything.
    pub fn set(&self, settings: Settings) -> bool {
        if self.0.load().0 == settings {
            return false;
        }
        let ready = Ready::from(&settings.retry_policy);
        self.0.store(Arc::new((settings, ready)));
        true
    }

    /// The policy now.
    pub fn policy(&self) -> Ready {
        self.0.load().1.clone()
    }

    /// What requests are signed with.
    pub fn schemes(&self) -> Schemes {
        self.0.load().0.schemes
    }

    /// When something follows for an endpoint that only fails.
    pub fn thresholds(&self) -> Thresholds {
        self.0.load().0.thresholds
    }

    /// The limit of an endpoint, given its own; `None` when there is none.
    pub fn limit(&self, webhook_id: &str, own: Option<RateLimit>) -> Option<Limit> {
        let hourly = || match self.0.load().0.hourly_limit {
            0 => None,
            requests => Some(RateLimit { requests, period: HOUR }),
        };
        let RateLimit { requests, period } = own.or_else(hourly)?;
        Some(Limit { name: limit_name(webhook_id), most: requests.into(), window: period })
    }
}

/// The name of the row that counts an endpoint's requests.
pub fn limit_name(webhook_id: &str) -> String {
    format!("webhook:{webhook_id}")
}

/// Why deliveries wait that are over a limit.
pub fn hold(limit: &Limit, usage: Usage) -> Hold {
    let (most, seconds, until) = (limit.most, limit.window.as_secs_f64(), usage.end());
    let why = format!("the limit of {most} requests in {seconds} s is used up: more go out at {until}");
    Hold { why, until }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_read_with_its_units() {
        let seconds = |text: &str| {
            parse_schedule(text).map(|waits| waits.iter().map(Duration::as_secs).collect::<Vec<_>>())
        };
        assert_eq!(seconds("30s, 5m,2h, 7d"), Ok(vec![30, 300, 7_200, 604_800]));
        assert_eq!(seconds(""), Ok(vec![]));
        for bad in ["5", "m", "5 minutes", "0s", "8d", "-1m", "1.5h", "99999999999999999999d", "1m 5m"] {
            assert!(parse_schedule(bad).is_err(), "{bad}");
        }
        assert!(parse_schedule(&"1s,".repeat(20)).is_ok() && parse_schedule(&"1s,".repeat(21)).is_err());
    }

    #[test]
    fn client_errors_are_tried_again_only_when_asked_for() {
        let retries = |status: u16, retry_client_errors| {
            let policy = RetryPolicy { schedule: Vec::new(), retry_client_errors };
            Ready::from(&policy).retries(StatusCode::from_u16(status).unwrap())
        };
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert!(retries(status, false) && retries(status, true), "{status}");
        }
        for status in [400, 401, 403, 404, 422] {
            assert!(!retries(status, false) && retries(status, true), "{status}");
        }
        for status in [301, 302, 307, 410] {
            assert!(!retries(status, false) && !retries(status, true), "{status}");
        }
    }
}
