//! What a key may say of itself beside its scopes, and what makes it valid.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::Violations;
use crate::rpc::admission::parse_network;

const NAME_LIMIT: usize = 128;
const DESCRIPTION_LIMIT: usize = 1_024;
const SCOPE_LIMIT: usize = 100;
const EXTERNAL_ID_LIMIT: usize = 256;
/// Metadata, in bytes of JSON.
const METADATA_LIMIT: usize = 4 * 1024;
const RATE_LIMITS: usize = 10;
const NETWORKS: usize = 100;
const USES: i64 = 1_000_000_000;
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);
const LONGEST_PERIOD: Duration = Duration::from_secs(31 * 24 * 60 * 60);
const CREDITS: i64 = 1_000_000_000_000;

/// What a key is used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyKind {
    /// The real thing.
    #[default]
    Live,
    /// Tests.
    Test,
}

/// How often a key may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Its name.
    pub name: String,
    /// How many uses.
    pub limit: i64,
    /// In how much time.
    pub period: Duration,
}

/// What limits a key beside its scopes, as the database keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rules {
    /// How often it may be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<RateLimit>,
    /// The networks that it may be used from; none means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_networks: Vec<String>,
    /// The networks that it must not be used from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denied_networks: Vec<String>,
}

/// How often credits are filled up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RefillInterval {
    /// Never.
    #[default]
    Never,
    /// At each midnight.
    Daily,
    /// At midnight of each first day of a month.
    Monthly,
}

impl RefillInterval {
    /// The first moment after `now` at which credits are filled up, in UTC.
    pub fn next(self, now: Timestamp) -> Option<Timestamp> {
        let at = jiff::Timestamp::from_microsecond(now.micros()).ok()?.to_zoned(jiff::tz::TimeZone::UTC);
        let next = match self {
            Self::Never => return None,
            Self::Daily => at.date().tomorrow().ok()?,
            Self::Monthly => at.date().last_of_month().tomorrow().ok()?,
        };
        let midnight = next.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(Timestamp::from_micros(midnight.timestamp().as_microsecond()))
    }
}

/// A stock of uses that somebody sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewCredits {
    /// How many there are.
    pub remaining: i64,
    /// To how many they are filled up; 0 means never.
    pub refill_amount: i64,
    /// How often.
    pub refill_interval: RefillInterval,
}

impl NewCredits {
    /// Checks them.
    pub fn check(&self, violations: &mut Violations) {
        let fits = |number: i64| (0..=CREDITS).contains(&number);
        violations.require(fits(self.remaining), "credits.remaining", "must be 0 to 1000000000000");
        violations.require(fits(self.refill_amount), "credits.refill_amount", "must be 0 to 1000000000000");
        let together = (self.refill_amount > 0) == (self.refill_interval != RefillInterval::Never);
        violations.require(
            together,
            "credits.refill_interval",
            "must be set with a refill amount, and only with one",
        );
    }
}

/// What to set of a key; `None` leaves it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct KeyChange {
    pub name: Option<String>,
    pub description: Option<String>,
    pub scopes: Option<Vec<String>>,
    pub expires_at: Option<Option<Timestamp>>,
    pub external_id: Option<String>,
    /// JSON.
    pub metadata: Option<String>,
    pub disabled: Option<bool>,
    pub rate_limits: Option<Vec<RateLimit>>,
    /// `Some(None)` takes the credits away: any number of uses.
    pub credits: Option<Option<NewCredits>>,
    pub allowed_networks: Option<Vec<String>>,
    pub denied_networks: Option<Vec<String>>,
    pub version: Option<i64>,
}

impl KeyChange {
    /// Whether it can make a key able to do more, or only says what it is for or stops it.
    pub fn may_widen(&self) -> bool {
        self.scopes.is_some()
            || self.expires_at.is_some()
            || self.disabled == Some(false)
            || self.rate_limits.is_some()
            || self.credits.is_some()
            || self.allowed_networks.is_some()
            || self.denied_networks.is_some()
    }

    /// Checks what it sets.
    pub fn check(&self, violations: &mut Violations) {
        if let Some(name) = &self.name {
            let ok = (1..=NAME_LIMIT).contains(&name.chars().count()) && !name.chars().any(char::is_control);
            violations.require(ok, "name", "must have 1 to 128 characters, without control characters");
        }
        if let Some(text) = &self.description {
            let ok = text.chars().count() <= DESCRIPTION_LIMIT && !text.contains('\0');
            violations.require(ok, "description", "must have at most 1024 characters");
        }
        if let Some(scopes) = &self.scopes {
            let ok = (1..=SCOPE_LIMIT).contains(&scopes.len());
            violations.require(ok, "scopes", "must have 1 to 100 entries");
            for (index, scope) in scopes.iter().enumerate() {
                violations.check(&format!("scopes[{index}]"), crate::scope::check(scope));
            }
        }
        if let Some(id) = &self.external_id {
            let ok = id.chars().count() <= EXTERNAL_ID_LIMIT && !id.chars().any(char::is_control);
            violations.require(
                ok,
                "external_id",
                "must have at most 256 characters, without control characters",
            );
        }
        if let Some(metadata) = &self.metadata {
            let ok = metadata.len() <= METADATA_LIMIT && !metadata.contains("\\u0000");
            violations.require(
                ok,
                "metadata",
                "must have at most 4096 bytes as JSON, without NUL characters",
            );
        }
        if let Some(limits) = &self.rate_limits {
            check_rate_limits(limits, violations);
        }
        if let Some(Some(credits)) = &self.credits {
            credits.check(violations);
        }
        for (field, networks) in
            [("allowed_networks", &self.allowed_networks), ("denied_networks", &self.denied_networks)]
        {
            let Some(networks) = networks else { continue };
            violations.require(networks.len() <= NETWORKS, field, "must have at most 100 entries");
            for (index, network) in networks.iter().enumerate() {
                let what = "must be a network such as 10.1.0.0/16 or 2001:db8::/32";
                violations.require(parse_network(network).is_some(), &format!("{field}[{index}]"), what);
            }
        }
    }
}

fn check_rate_limits(limits: &[RateLimit], violations: &mut Violations) {
    violations.require(limits.len() <= RATE_LIMITS, "rate_limits", "must have at most 10 entries");
    for (index, limit) in limits.iter().enumerate() {
        let at = |field: &str| format!("rate_limits[{index}].{field}");
        let mut bytes = limit.name.bytes();
        let name_ok = limit.name.len() <= 32
            && bytes.next().is_some_and(|b| b.is_ascii_lowercase())
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        let what = "must be a small letter, then up to 31 small letters, digits, _ and -";
        violations.require(name_ok, &at("name"), what);
        let first = limits.iter().position(|other| other.name == limit.name);
        violations.require(first == Some(index), &at("name"), "is used by another limit of this key");
        violations.require((1..=USES).contains(&limit.limit), &at("limit"), "must be 1 to 1000000000");
        let period_ok = (SHORTEST_PERIOD..=LONGEST_PERIOD).contains(&limit.period);
        violations.require(period_ok, &at("period"), "must be 1 second to 31 days");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    #[test]
    fn credits_are_filled_up_at_midnight() {
        let now = at("2028-02-29T10:30:00Z");
        assert_eq!(RefillInterval::Daily.next(now), Some(at("2028-03-01T00:00:00Z")));
        assert_eq!(RefillInterval::Monthly.next(now), Some(at("2028-03-01T00:00:00Z")));
        assert_eq!(
            RefillInterval::Monthly.next(at("2027-12-31T23:59:59Z")),
            Some(at("2028-01-01T00:00:00Z"))
        );
        let midnight = at("2028-03-01T00:00:00Z");
        assert_eq!(RefillInterval::Daily.next(midnight), Some(at("2028-03-02T00:00:00Z")));
        assert_eq!(RefillInterval::Never.next(now), None);
    }

    #[test]
    fn a_network_has_one_form() {
        let of = |text: &str| parse_network(text).map(|network| network.to_string());
        assert_eq!(of("10.1.2.3/16").as_deref(), Some("10.1.0.0/16"));
        assert_eq!(of("192.0.2.7").as_deref(), Some("192.0.2.7/32"));
        assert_eq!(of("::ffff:10.0.0.0/104").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(of("2001:db8::1/32").as_deref(), Some("2001:db8::/32"));
        for bad in ["", "10.0.0.0/33", "ten", "10.0.0/8", "2001:db8::/129", "10.0.0.0/-1"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
