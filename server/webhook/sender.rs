//! Makes requests, and judges the answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::Full;

use super::client::{Answer, BODY_LIMIT};
use super::directory::Endpoint;
use super::failure::Failure;
use super::log::Details;
use super::message;
use super::policy::{Defaults, Ready};
use crate::clock::{SharedClock, Timestamp};
use crate::delivery::{Attempt, Outcome};
use crate::event::Fact;

/// Makes requests to endpoints.
pub struct Sender {
    pub(super) clock: SharedClock,
    pub(super) defaults: Arc<Defaults>,
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

    async fn exchange(&self, endpoint: &Endpoint, mut request: Request<Full<Bytes>>) -> Attempt {
        self.defaults.schemes().keep(request.headers_mut());
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

    /// When a request to an endpoint is made again.
    pub(super) fn policy(&self, endpoint: &Endpoint) -> Ready {
        endpoint.policy.clone().unwrap_or_else(|| self.defaults.policy())
    }
}

/// An attempt that failed so.
pub(super) fn failed(outcome: Outcome, error: String) -> Attempt {
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
    let text = shown(&answer.body);
    let response_body = (!text.is_empty()).then_some(text);
    let response_status = Some(i32::from(status.as_u16()));
    Attempt { response_status, response_body, error, ..Attempt::new(outcome) }
}

/// A body as text, as long as a body may be: what is not text takes three bytes for one to show.
fn shown(body: &[u8]) -> String {
    // PostgreSQL's text can not hold NUL.
    let mut text = String::from_utf8_lossy(body).replace('\0', "\u{fffd}");
    text.truncate(text.floor_char_boundary(BODY_LIMIT));
    text.shrink_to_fit();
    text
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
    #[test]
    fn a_body_that_is_not_text_is_kept_as_far_as_any_other() {
        for bytes in [b"\0".as_slice(), b"\xff", b"x"] {
            let text = super::shown(&bytes.repeat(super::BODY_LIMIT));
            assert!((super::BODY_LIMIT - 2..=super::BODY_LIMIT).contains(&text.len()), "{}", text.len());
        }
        assert_eq!(super::shown(b"a\0b"), "a\u{fffd}b");
    }

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
