//! Requests: the body of an event or of several, and the headers.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::Full;
use sha2::{Digest, Sha256};

use super::directory::Endpoint;
use crate::clock::Timestamp;
use crate::event::Fact;

/// The plain signature.
pub(super) const SIGNATURE: HeaderName = HeaderName::from_static("x-webhook-signature");
/// The delivery's id; a batch has none.
pub(super) const DELIVERY: HeaderName = HeaderName::from_static("x-webhook-delivery");
/// What the receiver knows a repeat by.
pub(super) const STANDARD_ID: HeaderName = HeaderName::from_static("webhook-id");
/// When the request was made, in seconds since 1970.
pub(super) const STANDARD_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// The signatures of Standard Webhooks.
pub(super) const STANDARD_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// This release.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The media type of every body.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("Switchboard/", env!("CARGO_PKG_VERSION")));

/// The request for one event.
pub(super) fn one(endpoint: &Endpoint, delivery: &str, fact: &Fact, now: Timestamp) -> Request<Full<Bytes>> {
    request(endpoint, &fact.id, Some(delivery), body(&endpoint.id, fact), now)
}

/// The request for several events: the same id for the same events, in whatever order they are given.
pub(super) fn batch(endpoint: &Endpoint, mut facts: Vec<&Fact>, now: Timestamp) -> Request<Full<Bytes>> {
    facts.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    request(endpoint, &batch_id(&facts), None, batch_body(&endpoint.id, &facts), now)
}

fn request(
    endpoint: &Endpoint,
    id: &str,
    delivery: Option<&str>,
    body: Bytes,
    now: Timestamp,
) -> Request<Full<Bytes>> {
    let value =
        |text: &str| HeaderValue::from_str(text).expect("ids, numbers and signatures are visible characters");
    let mut headers = HeaderMap::with_capacity(8 + endpoint.headers.len());
    headers.extend(endpoint.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::USER_AGENT, USER_AGENT);
    if let Some(signature) = endpoint.signer.plain(&body, now) {
        headers.insert(SIGNATURE, value(&signature));
    }
    if let Some(delivery) = delivery {
        headers.insert(DELIVERY, value(delivery));
    }
    headers.insert(STANDARD_ID, value(id));
    headers.insert(STANDARD_TIMESTAMP, HeaderValue::from(now.seconds()));
    headers.insert(STANDARD_SIGNATURE, value(&endpoint.signer.standard(id, &body, now)));
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = endpoint.uri.clone();
    *request.headers_mut() = headers;
    request
}

/// The body: the event's payload byte for byte, in its envelope.
pub(super) fn body(endpoint: &str, fact: &Fact) -> Bytes {
    let Fact { event_type, data, created_at, .. } = fact;
    // Types and ids have no characters that JSON would escape.
    format!(
        r#"{{"event":"{event_type}","timestamp":"{created_at}","webhook_id":"{endpoint}","data":{data}}}"#
    )
    .into()
}

/// The part of a batch's body for one event.
pub(super) fn element(endpoint: &str, fact: &Fact) -> String {
    let Fact { id, event_type, data, created_at, .. } = fact;
    format!(
        r#"{{"id":"{id}","event":"{event_type}","timestamp":"{created_at}","webhook_id":"{endpoint}","data":{data}}}"#
    )
}

fn batch_body(endpoint: &str, facts: &[&Fact]) -> Bytes {
    let elements: Vec<String> = facts.iter().map(|fact| element(endpoint, fact)).collect();
    format!("[{}]", elements.join(",")).into()
}

fn batch_id(facts: &[&Fact]) -> String {
    let mut digest = Sha256::new();
    for fact in facts {
        digest.update(fact.id.as_bytes());
        digest.update(b"\n");
    }
    let hex: String = digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("batch_{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(id: &str) -> Fact {
        Fact {
            id: id.into(),
            event_type: "ticket.created".into(),
            data: r#"{ "big": 12345678901234567890,"a":1.0 }"#.into(),
            actor: String::new(),
            subject: String::new(),
            topic: "events".into(),
            created_at: Timestamp::from_micros(1_763_893_800_000_000),
        }
    }

    #[test]
    fn the_body_holds_the_payload_byte_for_byte() {
        let expected = r#"{"event":"ticket.created","timestamp":"2025-11-23T10:30:00Z","webhook_id":"wh_1","data":{ "big": 12345678901234567890,"a":1.0 }}"#;
        assert_eq!(body("wh_1", &fact("evt_1")), expected);
    }

    #[test]
    fn a_batch_is_an_array_of_what_would_have_been_the_bodies_with_their_ids() {
        let (one, other) = (fact("evt_1"), fact("evt_2"));
        let body: serde_json::Value = serde_json::from_slice(&batch_body("wh_1", &[&one, &other])).unwrap();
        assert_eq!(body[0]["id"], "evt_1");
        assert_eq!(body[1]["data"]["a"], 1.0);
        let id = batch_id(&[&one, &other]);
        assert_eq!(id, batch_id(&[&one, &other]));
        assert!(id != batch_id(&[&one]) && id != batch_id(&[&other, &one]) && id.len() == 38);
    }
}
