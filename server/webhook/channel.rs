//! One attempt: sign, send, and judge the answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::Full;

use super::client::{Answer, Client};
use super::directory::{Directory, Endpoint};
use super::failure::Failure;
use super::guard::{Guard, Lookup};
use super::health;
use super::health::breaker::{FIRST_WAIT, Leave};
use super::policy::{Defaults, Ready, hold};
use super::stats::Tally;
use super::store;
use crate::clock::{SharedClock, Stopwatch, Timestamp};
use crate::db::{Conn, revision};
use crate::delivery::limit::{Limit, store as limits};
use crate::delivery::{Attempt, Channel, Leased, Outcome, Policy, Room, Table};
use crate::error::Result;
use crate::event::Fact;

const SIGNATURE: HeaderName = HeaderName::from_static("x-webhook-signature");
const DELIVERY: HeaderName = HeaderName::from_static("x-webhook-delivery");
const STANDARD_ID: HeaderName = HeaderName::from_static("webhook-id");
const STANDARD_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const STANDARD_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("Switchboard/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Makes requests to endpoints.
pub struct Sender {
    client: Client,
    clock: SharedClock,
    defaults: Arc<Defaults>,
}

impl Sender {
    /// A sender that connects where `guard` permits, to what `lookup` finds.
    ///
    /// # Errors
    /// When the system's root certificates can not be read.
    pub fn new(
        guard: Guard,
        lookup: Arc<dyn Lookup>,
        defaults: Arc<Defaults>,
        clock: SharedClock,
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { client: Client::new(guard, lookup)?, clock, defaults }))
    }

    /// Makes one request, and says what came of it.
    pub async fn send(&self, endpoint: &Endpoint, delivery: &str, fact: &Fact) -> Attempt {
        let request = request(endpoint, delivery, fact, self.clock.now());
        match self.client.send(request, endpoint.timeout).await {
            Ok(answer) => judge(&answer, &self.policy(endpoint), self.clock.now()),
            Err(Failure::Refused(error)) => failed(Outcome::Refused, error),
            Err(failure) => failed(Outcome::Retry { after: None }, failure.to_string()),
        }
    }

    fn policy(&self, endpoint: &Endpoint) -> Ready {
        endpoint.policy.clone().unwrap_or_else(|| self.defaults.policy())
    }
}

/// The webhook channel of the delivery engine.
pub struct WebhookChannel {
    /// The endpoints.
    pub directory: Arc<Directory>,
    /// Makes the requests.
    pub sender: Arc<Sender>,
    /// Counts them.
    pub tally: Arc<Tally>,
}

impl WebhookChannel {
    fn limit(&self, lane: &str) -> Option<Limit> {
        let own = self.directory.find(lane)?.rate_limit;
        self.sender.defaults.limit(lane, own)
    }

    /// Whether requests to an endpoint may go out.  What waits for an inactive one is withdrawn, which asks nobody.
    fn leave(&self, lane: &str, now: Timestamp) -> Leave {
        match self.directory.find(lane) {
            Some(endpoint) if endpoint.active => endpoint.pulse.ask(now),
            _ => Leave::Free,
        }
    }
}

impl Channel for WebhookChannel {
    type Payload = Arc<Fact>;

    fn table(&self) -> Table {
        Table::WebhookDeliveries
    }

    fn policy(&self, job: &Leased<Arc<Fact>>) -> Arc<Policy> {
        match self.directory.find(&job.lane) {
            Some(endpoint) => self.sender.policy(&endpoint).policy,
            None => self.sender.defaults.policy().policy,
        }
    }

    async fn attempt(&self, job: &Leased<Arc<Fact>>) -> Attempt {
        match self.directory.find(&job.lane) {
            Some(endpoint) if endpoint.active => {
                if let Leave::Wait(until) = endpoint.pulse.start(self.sender.clock.now()) {
                    return failed(Outcome::Held { until }, health::hold(until).why);
                }
                let stopwatch = Stopwatch::start();
                let attempt = self.sender.send(&endpoint, &job.id, &job.payload).await;
                let succeeded = attempt.outcome == Outcome::Succeeded;
                let now = self.sender.clock.now();
                self.tally.note(&endpoint.id, succeeded, stopwatch.elapsed(), now);
                self.directory.chart.note(&endpoint.pulse, &attempt, now);
                attempt
            }
            Some(_) => failed(Outcome::Withdrawn, "the endpoint is not active".into()),
            // It was deleted, and then its delivery is gone too; or its secret can not be opened, and that can be mended.
            None => failed(Outcome::Retry { after: None }, "the endpoint can not be used".into()),
        }
    }

    fn room<'a>(
        &'a self,
        conn: &'a mut Conn,
        lane: &'a str,
        wanted: usize,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Room>> {
        async move {
            let (wanted, held) = match self.leave(lane, now) {
                Leave::Free => (wanted, None),
                Leave::Wait(until) => return Ok(Room { granted: 0, hold: Some(health::hold(until)) }),
                // The others wait for what comes of it.
                Leave::Probe => (wanted.min(1), Some(health::hold(now + FIRST_WAIT))),
            };
            let Some(limit) = self.limit(lane) else {
                return Ok(Room { granted: wanted, hold: held });
            };
            let usage = limits::usage_of(conn, &limit, now).await?;
            let granted = usize::try_from(usage.left(limit.most)).unwrap_or(usize::MAX).min(wanted);
            Ok(Room { granted, hold: if granted < wanted { Some(hold(&limit, usage)) } else { held } })
        }
        .boxed()
    }

    fn claimed<'a>(
        &'a self,
        conn: &'a mut Conn,
        lane: &'a str,
        count: usize,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            let Some(limit) = self.limit(lane).filter(|_| count > 0) else {
                return Ok(());
            };
            let mut usage = limits::usage_of(conn, &limit, now).await?;
            usage.used += count as u64;
            limits::put(conn, &limit, usage).await
        }
        .boxed()
    }

    fn load<'a>(
        &'a self,
        conn: &'a mut Conn,
        ids: Vec<String>,
    ) -> BoxFuture<'a, Result<Vec<(String, Arc<Fact>)>>> {
        async move {
            // Another node may have changed the endpoints since this one read them: what is claimed now must not be
            // judged by what they were.
            if revision::current(conn, revision::SUBSCRIPTIONS).await? != self.directory.revision() {
                self.directory.refresh(conn).await?;
            }
            store::load_facts(conn, ids).await
        }
        .boxed()
    }
}

fn failed(outcome: Outcome, error: String) -> Attempt {
    Attempt::failed(outcome, error)
}

/// The body: the event's payload byte for byte, in its envelope.
fn body(endpoint: &str, fact: &Fact) -> Bytes {
    let Fact { event_type, data, created_at, .. } = fact;
    // Types and ids have no characters that JSON would escape.
    format!(
        r#"{{"event":"{event_type}","timestamp":"{created_at}","webhook_id":"{endpoint}","data":{data}}}"#
    )
    .into()
}

fn request(endpoint: &Endpoint, delivery: &str, fact: &Fact, now: Timestamp) -> Request<Full<Bytes>> {
    let body = body(&endpoint.id, fact);
    let value =
        |text: &str| HeaderValue::from_str(text).expect("ids, numbers and signatures are visible characters");
    let mut headers = HeaderMap::with_capacity(8 + endpoint.headers.len());
    headers.extend(endpoint.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::USER_AGENT, USER_AGENT);
    if let Some(signature) = endpoint.signer.plain(&body, now) {
        headers.insert(SIGNATURE, value(&signature));
    }
    headers.insert(DELIVERY, value(delivery));
    headers.insert(STANDARD_ID, value(&fact.id));
    headers.insert(STANDARD_TIMESTAMP, HeaderValue::from(now.seconds()));
    headers.insert(STANDARD_SIGNATURE, value(&endpoint.signer.standard(&fact.id, &body, now)));
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = endpoint.uri.clone();
    *request.headers_mut() = headers;
    request
}

/// What an answer means: 2xx is success; what the policy says is tried again may pass; everything else, redirects too, is
/// final.
fn judge(answer: &Answer, policy: &Ready, now: Timestamp) -> Attempt {
    let status = answer.status;
    let outcome = match status {
        _ if status.is_success() => Outcome::Succeeded,
        _ if policy.retries(status) => Outcome::Retry { after: retry_after(&answer.headers, now) },
        _ => Outcome::Refused,
    };
    let error = match &outcome {
        Outcome::Succeeded => None,
        _ if status.is_redirection() => Some(format!("answered {status}: redirects are not followed")),
        _ => Some(format!("answered {status}")),
    };
    // PostgreSQL's text can not hold NUL.
    let text = String::from_utf8_lossy(&answer.body).replace('\0', "\u{fffd}");
    let response_body = (!text.is_empty()).then_some(text);
    let response_status = Some(i32::from(status.as_u16()));
    Attempt { response_status, response_body, error, ..Attempt::new(outcome) }
}

/// `Retry-After` in seconds or as a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(Timestamp::from_micros(date.timestamp().as_microsecond()).since(now))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::super::policy::RetryPolicy;
    use super::*;

    fn policy() -> Ready {
        Ready::from(&RetryPolicy::default())
    }

    fn answer(status: u16, headers: &[(HeaderName, &'static str)]) -> Answer {
        let headers =
            headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: Bytes::from_static(b"a\0b"),
            remote: None,
        }
    }

    #[test]
    fn answers_are_judged_by_their_status() {
        let now = Timestamp::from_micros(0);
        let outcome = |status| judge(&answer(status, &[]), &policy(), now).outcome;
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(outcome(status), Outcome::Succeeded, "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert_eq!(outcome(status), Outcome::Retry { after: None }, "{status}");
        }
        for status in [301, 302, 307, 400, 401, 403, 404, 410, 422] {
            assert_eq!(outcome(status), Outcome::Refused, "{status}");
        }
        assert_eq!(judge(&answer(200, &[]), &policy(), now).response_body.as_deref(), Some("a\u{fffd}b"));
    }

    #[test]
    fn a_destination_can_say_when_to_come_back() {
        let now = Timestamp::from_micros(1_445_412_420_000_000);
        let after = |value| retry_after(&answer(503, &[(header::RETRY_AFTER, value)]).headers, now);
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(after("soon"), None);
    }

    #[test]
    fn the_body_holds_the_payload_byte_for_byte() {
        let fact = Fact {
            id: "evt_1".into(),
            event_type: "ticket.created".into(),
            data: r#"{ "big": 12345678901234567890,"a":1.0 }"#.into(),
            actor: String::new(),
            subject: String::new(),
            created_at: Timestamp::from_micros(1_763_893_800_000_000),
        };
        let body = body("wh_1", &fact);
        let expected = r#"{"event":"ticket.created","timestamp":"2025-11-23T10:30:00Z","webhook_id":"wh_1","data":{ "big": 12345678901234567890,"a":1.0 }}"#;
        assert_eq!(body, expected);
    }
}
