//! One attempt: sign, send, and judge the answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, header};
use http_body_util::Full;

use super::client::{Answer, BODY_LIMIT};
use super::directory::{Directory, Endpoint};
use super::failure::Failure;
use super::log::Details;
use super::message;
use super::mode::DeliveryMode;
use super::policy::{Defaults, Ready, hold};
use super::stats::Tally;
use super::store;
use crate::clock::{SharedClock, Stopwatch, Timestamp};
use crate::db::{Conn, Db, revision};
use crate::delivery::limit::{Limit, store as limits};
use crate::delivery::{Attempt, Batching, Channel, Leased, Outcome, Policy, Room, Table};
use crate::error::Result;
use crate::event::Fact;

const INACTIVE: &str = "the endpoint is not active";
const UNUSABLE: &str = "the endpoint can not be used";
/// How much of an answer each delivery of a batch keeps at the least.
const LEAST_BODY: usize = 1_024;
/// When to try again when a limit can not be read.
const UNCOUNTED_WAIT: Duration = Duration::from_secs(1);

/// Makes requests to endpoints.
pub struct Sender {
    clock: SharedClock,
    defaults: Arc<Defaults>,
}

impl Sender {
    /// A sender with these defaults for endpoints that say nothing.
    pub fn new(defaults: Arc<Defaults>, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self { clock, defaults })
    }

    /// Makes one request over the endpoint's client, and says what came of it.
    pub async fn send(&self, endpoint: &Endpoint, delivery: &str, fact: &Fact) -> Attempt {
        self.exchange(endpoint, message::one(endpoint, delivery, fact, self.clock.now())).await
    }

    /// Makes one request for several events, and says what came of it.
    pub async fn send_batch(&self, endpoint: &Endpoint, facts: Vec<&Fact>) -> Attempt {
        self.exchange(endpoint, message::batch(endpoint, facts, self.clock.now())).await
    }

    async fn exchange(&self, endpoint: &Endpoint, request: Request<Full<Bytes>>) -> Attempt {
        let mut details = Details::of(endpoint.version, request.headers());
        let mut attempt = match endpoint.client.send(request, endpoint.timeout).await {
            Ok(answer) => {
                details.answered(&answer);
                judge(&answer, &self.policy(endpoint), self.clock.now())
            }
            Err(failure) => {
                details.failed(&failure);
                let outcome = match failure {
                    Failure::Refused(_) => Outcome::Refused,
                    _ => Outcome::Retry { after: None },
                };
                failed(outcome, failure.to_string())
            }
        };
        attempt.details = Some(details.to_text());
        attempt
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
    /// Counts the requests of batches.
    pub db: Db,
}

impl WebhookChannel {
    fn limit(&self, lane: &str) -> Option<Limit> {
        let own = self.directory.find(lane)?.rate_limit;
        self.sender.defaults.limit(lane, own)
    }

    fn is_batched(&self, lane: &str) -> bool {
        self.directory.find(lane).is_some_and(|endpoint| endpoint.mode == DeliveryMode::Batched)
    }

    /// Counts a request of an endpoint.
    async fn counted(&self, endpoint: &Endpoint, request: impl Future<Output = Attempt>) -> Attempt {
        let stopwatch = Stopwatch::start();
        let attempt = request.await;
        let succeeded = attempt.outcome == Outcome::Succeeded;
        self.tally.note(&endpoint.id, succeeded, stopwatch.elapsed(), self.sender.clock.now());
        attempt
    }

    /// Takes one request of the endpoint's limit; answers when to look again if it is used up.
    ///
    /// Deliveries that share a request are counted here, where it is known how many do.
    async fn take_request(&self, lane: &str) -> Result<Option<Timestamp>> {
        let Some(limit) = self.limit(lane) else {
            return Ok(None);
        };
        let now = self.sender.clock.now();
        let take = self.db.transaction(move |conn| {
            Box::pin(async move {
                let mut usage = limits::usage_of(conn, &limit, now).await?;
                if usage.left(limit.most) == 0 {
                    return Ok(Some(usage.end()));
                }
                usage.used += 1;
                limits::put(conn, &limit, usage).await.map(|()| None)
            })
        });
        take.await
    }
}

/// One for each delivery of a batch.  What was answered is kept with each of them, with a share of the limit for each.
fn shared(attempt: Attempt, count: usize) -> Vec<Attempt> {
    let limit = (BODY_LIMIT / count.max(1)).max(LEAST_BODY);
    let body = attempt.response_body.map(|mut body| {
        body.truncate(body.floor_char_boundary(limit));
        body
    });
    let one = || Attempt {
        response_status: attempt.response_status,
        response_body: body.clone(),
        error: attempt.error.clone(),
        details: attempt.details.clone(),
        ..Attempt::new(attempt.outcome.clone())
    };
    std::iter::repeat_with(one).take(count).collect()
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
            Some(endpoint) if endpoint.mode == DeliveryMode::Pulled => {
                failed(Outcome::Withdrawn, "the endpoint is pulled: nothing is sent to it".into())
            }
            Some(endpoint) if endpoint.active => {
                self.counted(&endpoint, self.sender.send(&endpoint, &job.id, &job.payload)).await
            }
            Some(_) => failed(Outcome::Withdrawn, INACTIVE.into()),
            // It was deleted, and then its delivery is gone too; or its secret can not be opened, and that can be mended.
            None => failed(Outcome::Retry { after: None }, UNUSABLE.into()),
        }
    }

    fn batching(&self, lane: &str) -> Option<Batching> {
        let endpoint = self.directory.find(lane)?;
        (endpoint.mode == DeliveryMode::Batched).then_some(endpoint.batching)
    }

    fn weight(&self, job: &Leased<Arc<Fact>>) -> usize {
        job.payload.data.len()
    }

    async fn attempt_together(&self, jobs: &[Leased<Arc<Fact>>]) -> Vec<Attempt> {
        let Some(first) = jobs.first() else {
            return Vec::new();
        };
        let attempt = match self.directory.find(&first.lane) {
            Some(endpoint) if endpoint.active => match self.take_request(&first.lane).await {
                Ok(None) => {
                    let facts = jobs.iter().map(|job| &*job.payload).collect();
                    self.counted(&endpoint, self.sender.send_batch(&endpoint, facts)).await
                }
                Ok(Some(until)) => failed(Outcome::Held { until }, "the limit of requests is used up".into()),
                Err(error) => {
                    tracing::warn!(webhook = &*first.lane, %error, "a limit could not be read");
                    let until = self.sender.clock.now() + UNCOUNTED_WAIT;
                    failed(Outcome::Held { until }, "the limit of requests could not be read".into())
                }
            },
            Some(_) => failed(Outcome::Withdrawn, INACTIVE.into()),
            None => failed(Outcome::Retry { after: None }, UNUSABLE.into()),
        };
        shared(attempt, jobs.len())
    }

    fn room<'a>(
        &'a self,
        conn: &'a mut Conn,
        lane: &'a str,
        wanted: usize,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Room>> {
        async move {
            let Some(limit) = self.limit(lane) else {
                return Ok(Room { granted: wanted, hold: None });
            };
            let usage = limits::usage_of(conn, &limit, now).await?;
            let left = usize::try_from(usage.left(limit.most)).unwrap_or(usize::MAX);
            let granted = if left > 0 && self.is_batched(lane) { wanted } else { left.min(wanted) };
            Ok(Room { granted, hold: (granted < wanted).then(|| hold(&limit, usage)) })
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
            // What shares a request is counted when that is made.
            let counts = count > 0 && !self.is_batched(lane);
            let Some(limit) = self.limit(lane).filter(|_| counts) else {
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
    use http::{HeaderName, HeaderValue, StatusCode};

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
}
