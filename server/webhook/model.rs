//! What an endpoint is, and what may be asked of one.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use url::Url;

use super::guard::Guard;
use super::health::Record;
use super::mode::DeliveryMode;
use super::policy::Options;
use super::secret::Signing;
use crate::clock::Timestamp;
use crate::error::Violations;
use crate::event::pattern::parse_all;

const NAME_LIMIT: usize = 128;
const URL_LIMIT: usize = 2_048;
const DESCRIPTION_LIMIT: usize = 1_024;
const EVENT_TYPE_LIMIT: usize = 100;
const HEADER_LIMIT: usize = 20;
const HEADER_VALUE_LIMIT: usize = 4_096;

/// An endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Webhook {
    pub id: String,
    pub name: String,
    pub url: String,
    pub event_types: Vec<String>,
    pub description: String,
    pub active: bool,
    pub headers: BTreeMap<String, String>,
    pub options: Options,
    /// Empty for HMAC.
    pub public_key: String,
    /// Until when an earlier secret signs as well.
    pub previous_secret_expires_at: Option<Timestamp>,
    /// Why the server made it inactive; empty when it did not.
    pub disabled_reason: String,
    /// How it fares; kept beside it, not with it.
    pub health: Record,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Headers that the server or HTTP itself sets.
const RESERVED: [HeaderName; 10] = [
    header::HOST,
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::EXPECT,
    header::USER_AGENT,
];

impl Webhook {
    /// Checks everything that a caller can set.
    pub fn check(&self, guard: &Guard, https_only: bool, violations: &mut Violations) {
        let name_ok =
            (1..=NAME_LIMIT).contains(&self.name.chars().count()) && !self.name.chars().any(char::is_control);
        violations.require(
            name_ok,
            "webhook.name",
            "must have 1 to 128 characters, without control characters",
        );
        let short = self.description.chars().count() <= DESCRIPTION_LIMIT && !self.description.contains('\0');
        violations.require(short, "webhook.description", "must have at most 1024 characters");
        // A pulled endpoint's URL is for a later change of mode.
        if !self.url.is_empty() || self.options.delivery_mode != DeliveryMode::Pulled {
            violations.check("webhook.url", check_url(&self.url, guard, https_only));
        }
        let count_ok = (1..=EVENT_TYPE_LIMIT).contains(&self.event_types.len());
        violations.require(count_ok, "webhook.event_types", "must have 1 to 100 entries");
        parse_all(violations, "webhook.event_types", &self.event_types);
        violations.require(
            self.headers.len() <= HEADER_LIMIT,
            "webhook.headers",
            "must have at most 20 entries",
        );
        for (name, value) in &self.headers {
            violations.check(&format!("webhook.headers[{name}]"), check_header(name, value));
        }
        self.options.check(violations);
    }

    /// How its requests are signed.
    pub fn signing(&self) -> Signing {
        if self.public_key.is_empty() { Signing::Hmac } else { Signing::Ed25519 }
    }

    /// The headers for a request.
    pub fn header_map(&self) -> HeaderMap {
        let header = |(name, value): (&String, &String)| check_header(name, value).ok();
        self.headers.iter().filter_map(header).collect()
    }
}

/// Checks where requests go; the answer is the URL in its one written form.
pub(super) fn check_url(text: &str, guard: &Guard, https_only: bool) -> Result<Url, String> {
    if text.is_empty() {
        return Err("is required".into());
    }
    if text.len() > URL_LIMIT {
        return Err(format!("must have at most {URL_LIMIT} characters"));
    }
    let url = Url::parse(text).map_err(|error| format!("is not a URL with a scheme: {error}"))?;
    match url.scheme() {
        "https" => {}
        "http" if !https_only => {}
        "http" => return Err("must be https in production mode".into()),
        other => return Err(format!("must be http or https, and is {other}")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not carry a user name or password: use a header".into());
    }
    if url.fragment().is_some() {
        return Err("must not have a fragment".into());
    }
    // A URL may have characters in its host that no request can carry.
    if url.as_str().parse::<Uri>().is_err() {
        return Err("has a character that a request can not carry".into());
    }
    // Both schemes have a host and a port.
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
    guard.check(host, port).map_err(|refused| format!("leads nowhere: {refused}"))?;
    Ok(url)
}

/// The URL in its one written form, in which `http://2130706433/` is `http://127.0.0.1/`.
pub fn normal_url(text: &str) -> String {
    Url::parse(text).map_or_else(|_| text.to_owned(), String::from)
}

pub(super) fn check_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let name: HeaderName = name.parse().map_err(|_| "is not a header name".to_owned())?;
    let own =
        ["webhook-", "x-webhook-", "proxy-", ":"].iter().any(|prefix| name.as_str().starts_with(prefix));
    if own || RESERVED.contains(&name) {
        return Err("is set by the server".into());
    }
    if value.len() > HEADER_VALUE_LIMIT {
        return Err(format!("must have at most {HEADER_VALUE_LIMIT} characters"));
    }
    let value =
        HeaderValue::from_str(value).map_err(|_| "must be visible characters and spaces".to_owned())?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_lead_nowhere_good_are_refused() {
        let guard = Guard::default();
        let check = |url: &str| check_url(url, &guard, false);
        for good in ["https://example.com/hook", "http://example.com:8080/a?b=c", "https://93.184.216.34/"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "example.com",
            "/hook",
            "ftp://example.com/",
            "javascript:alert(1)",
            "https://",
            "https://user@example.com/",
            "https://user:pass@example.com/",
            "https://example.com/#part",
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://017700000001/",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://169.254.169.254/",
            "http://[fe80::1%25eth0]/",
            "http://example.com:0/",
            "http://example.com:25/",
            "https://example.com:6667/",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check_url("http://example.com/", &guard, true).is_err());
        assert!(check_url("https://example.com/", &guard, true).is_ok());
    }

    #[test]
    fn headers_that_the_server_sets_can_not_be_set() {
        assert!(check_header("X-Tenant", "a b").is_ok());
        assert!(check_header("authorization", "Bearer x").is_ok());
        for (name, value) in [
            ("host", "x"),
            ("Content-Length", "1"),
            ("webhook-id", "x"),
            ("X-Webhook-Signature", "x"),
            ("a b", "x"),
            ("", "x"),
            ("x", "a\r\nb: c"),
            ("x", "ä\u{0}"),
        ] {
            assert!(check_header(name, value).is_err(), "{name}");
        }
    }
}
