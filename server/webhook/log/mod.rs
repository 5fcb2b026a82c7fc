//! The log: deliveries, and of each attempt the request as it was sent and the answer.
//!
//! A request is not kept whole, because nearly all of it stands elsewhere: the payload in the event, the URL and the names of
//! the endpoint's own headers in `webhook_versions`, one row for each change of an endpoint.  What is left ([`Details`]) is a
//! few words beside the attempt.  [`Exchange`] puts them together again; what may be secret is masked.

pub(super) mod store;

use http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::client::Answer;
use super::failure::Failure;
use super::message::{self, DELIVERY, SIGNATURE, STANDARD_ID, STANDARD_SIGNATURE, STANDARD_TIMESTAMP};
use super::service::WebhookService;
use crate::clock::Timestamp;
use crate::db::Db;
use crate::delivery::attempt::{AttemptRow, attempts};
use crate::error::Result;
use crate::event::Fact;

use store::{Delivery, DeliveryFilter, Version};

/// What stands for a value that may be secret.
const MASK: &str = "***";
/// How much of an answer's headers is kept, in bytes.
const HEADER_BYTES: usize = 8 * 1024;
/// What the id of a batch begins with.
const BATCH: &str = "batch_";

/// What is kept of an attempt that stands nowhere else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// The endpoint's version.
    version: i64,
    /// The server's release.
    release: String,
    /// `webhook-timestamp`.
    sent_at: i64,
    /// The schemes of the signatures, without them.
    signatures: String,
    /// The id of the batch, if it was one.
    #[serde(skip_serializing_if = "String::is_empty")]
    batch_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    response_headers: Vec<(String, String)>,
    /// The address that answered.
    #[serde(skip_serializing_if = "String::is_empty")]
    remote: String,
    /// How it failed, in a word, if there was no answer.
    #[serde(skip_serializing_if = "String::is_empty")]
    failure: String,
}

impl Details {
    /// Those of a request with these headers.
    pub(super) fn of(version: i64, headers: &HeaderMap) -> Self {
        let text = |value: Option<&http::HeaderValue>| {
            value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let id = text(headers.get(STANDARD_ID));
        let signatures = text(headers.get(STANDARD_SIGNATURE));
        let schemes: Vec<_> =
            signatures.split(' ').filter_map(|one| one.split_once(',')).map(|(scheme, _)| scheme).collect();
        Self {
            version,
            release: message::VERSION.to_owned(),
            sent_at: text(headers.get(STANDARD_TIMESTAMP)).parse().unwrap_or_default(),
            signatures: schemes.join(" "),
            batch_id: if id.starts_with(BATCH) { id } else { String::new() },
            ..Self::default()
        }
    }

    /// Notes the answer.
    pub(super) fn answered(&mut self, answer: &Answer) {
        self.remote = answer.remote.map(|remote| remote.to_string()).unwrap_or_default();
        let mut left = HEADER_BYTES;
        for (name, value) in &answer.headers {
            let value = String::from_utf8_lossy(value.as_bytes()).replace('\0', "\u{fffd}");
            let Some(rest) = left.checked_sub(name.as_str().len() + value.len()) else {
                break;
            };
            left = rest;
            self.response_headers.push((name.as_str().to_owned(), value));
        }
    }

    /// Notes that there was none.
    pub(super) fn failed(&mut self, failure: &Failure) {
        failure.class().clone_into(&mut self.failure);
    }

    /// The form that is kept.
    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("plain values")
    }

    fn read(text: Option<&str>) -> Option<Self> {
        serde_json::from_str(text?).ok()
    }
}

/// A request and its answer, as people see them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Where the request went; empty when it is not known.
    pub url: String,
    /// The request's headers, with what may be secret masked.
    pub request_headers: Vec<(String, String)>,
    /// The request's body; of a batch, the part of this event.  Empty when the event is no longer kept.
    pub request_body: String,
    /// The answer's headers.
    pub response_headers: Vec<(String, String)>,
    /// The address that answered.
    pub remote_address: String,
    /// How it failed, in a word, if there was no answer.
    pub failure: String,
}

impl Exchange {
    /// Puts a request together again.
    pub(super) fn of(
        details: Option<&str>,
        version: Option<&Version>,
        webhook_id: &str,
        delivery_id: &str,
        fact: Option<&Fact>,
    ) -> Self {
        let Some(details) = Details::read(details) else {
            return Self::default();
        };
        let mut headers = Vec::new();
        let mut add = |name: &str, value: String| headers.push((name.to_owned(), value));
        for name in version.map(|version| version.header_names.0.as_slice()).unwrap_or_default() {
            add(&name.to_ascii_lowercase(), MASK.into());
        }
        add("content-type", message::JSON.to_str().unwrap_or_default().into());
        add("user-agent", format!("Switchboard/{}", details.release));
        add(STANDARD_TIMESTAMP.as_str(), details.sent_at.to_string());
        let schemes = details.signatures.split(' ').filter(|scheme| !scheme.is_empty());
        let masked: Vec<_> = schemes.clone().map(|scheme| format!("{scheme},{MASK}")).collect();
        add(STANDARD_SIGNATURE.as_str(), masked.join(" "));
        if schemes.clone().any(|scheme| scheme == "v1") {
            add(SIGNATURE.as_str(), format!("sha256={MASK}"));
        }
        let batched = !details.batch_id.is_empty();
        if batched {
            add(STANDARD_ID.as_str(), details.batch_id);
        } else {
            add(DELIVERY.as_str(), delivery_id.to_owned());
            if let Some(fact) = fact {
                add(STANDARD_ID.as_str(), fact.id.to_string());
            }
        }
        let body = |fact: &Fact| match batched {
            true => message::element(webhook_id, fact),
            false => String::from_utf8_lossy(&message::body(webhook_id, fact)).into_owned(),
        };
        Self {
            url: version.map(|version| version.url.clone()).unwrap_or_default(),
            request_headers: headers,
            request_body: fact.map(body).unwrap_or_default(),
            response_headers: details.response_headers,
            remote_address: details.remote,
            failure: details.failure,
        }
    }

    pub(super) fn version_of(details: Option<&str>) -> Option<i64> {
        Details::read(details).map(|details| details.version)
    }
}

/// Forgets what endpoints were like when the requests were made that are older than this.
///
/// # Errors
/// When the database refuses it.
pub async fn forget_versions(db: &Db, before: Timestamp) -> Result<()> {
    db.transaction(move |conn| Box::pin(async move { store::forget_versions(conn, before).await })).await
}

impl WebhookService {
    /// Deliveries, newest first.
    pub async fn deliveries(&self, filter: &DeliveryFilter, limit: i64) -> Result<Vec<Delivery>> {
        store::list(&mut self.db.reader().await?, filter, limit).await
    }

    /// One delivery with its attempts.
    pub async fn delivery(&self, id: &str) -> Result<(Delivery, Vec<(AttemptRow, Exchange)>)> {
        let mut conn = self.db.reader().await?;
        let delivery = store::find(&mut conn, id).await?;
        let attempts = attempts(&mut conn, id).await?;
        let fact = super::store::load_facts(&mut conn, vec![id.to_owned()]).await?.pop();
        let fact = fact.map(|(_, fact)| fact);
        let numbers = attempts.iter().filter_map(|attempt| Exchange::version_of(attempt.details.as_deref()));
        let versions = store::versions(&mut conn, &delivery.webhook_id, numbers.collect()).await?;
        let with_exchange = |attempt: AttemptRow| {
            let details = attempt.details.as_deref();
            let number = Exchange::version_of(details);
            let version = versions.iter().find(|version| Some(version.version) == number);
            let exchange = Exchange::of(details, version, &delivery.webhook_id, id, fact.as_deref());
            (attempt, exchange)
        };
        let attempts = attempts.into_iter().map(with_exchange).collect();
        Ok((delivery, attempts))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn headers_of_an_answer_are_kept_up_to_a_limit_and_without_nul() {
        let mut headers = HeaderMap::new();
        headers.insert("x-first", HeaderValue::from_bytes(b"a\xffb").unwrap());
        headers.insert("x-large", HeaderValue::from_str(&"x".repeat(HEADER_BYTES)).unwrap());
        let answer =
            Answer { status: http::StatusCode::OK, headers, body: bytes::Bytes::new(), remote: None };
        let mut details = Details::default();
        details.answered(&answer);
        assert_eq!(details.response_headers, [("x-first".to_owned(), "a\u{fffd}b".to_owned())]);
    }

    #[test]
    fn signatures_are_kept_by_their_schemes_only() {
        let header = |name: HeaderName, value: &'static str| (name, HeaderValue::from_static(value));
        let headers: HeaderMap = [
            header(STANDARD_SIGNATURE, "v1,aaaa v1a,bbbb"),
            header(STANDARD_TIMESTAMP, "1764076606"),
            header(STANDARD_ID, "batch_1"),
        ]
        .into_iter()
        .collect();
        let details = Details::of(3, &headers);
        assert!(!details.to_text().contains("aaaa") && !details.to_text().contains("bbbb"));
        let exchange = Exchange::of(Some(&details.to_text()), None, "wh_1", "whd_1", None);
        let value = |name: &str| exchange.request_headers.iter().find(|(known, _)| known == name);
        assert_eq!(value("webhook-signature").unwrap().1, "v1,*** v1a,***");
        assert_eq!(value("x-webhook-signature").unwrap().1, "sha256=***");
        assert_eq!(value("webhook-id").unwrap().1, "batch_1");
        assert_eq!(value("x-webhook-delivery"), None);
    }
}
