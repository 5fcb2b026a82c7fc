//! What recipients ask by HTTP: to unsubscribe, for the picture that counts an open, for the detour that counts a click.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::agent::Agent;
use super::token::{Claim, Links, Purpose};
use crate::clock::SharedClock;
use crate::db::group::Lane;
use crate::email::activity::{ActivityKind, ActivityWrite, NewActivity};
use crate::email::config::SharedConfig;
use crate::email::suppression::{self, NewSuppression, Origin, Reason};
use crate::email::template::page::page;
use crate::id::{IdGenerator, Kind};

/// A form with one field, whatever its encoding.
const BODY_LIMIT: usize = 1_024;
const BODY_TIME: Duration = Duration::from_secs(10);
/// One transparent pixel.
const PICTURE: &[u8; 43] = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\0\0\0\x21\xf9\x04\x01\0\0\0\0\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0\x3b";
/// Nothing is loaded, run or framed, and a form goes nowhere else.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; \
    base-uri 'none'";

/// What the routes need.
pub struct Recipients {
    /// Reads links.
    pub links: Links,
    /// Where what recipients do is written.
    pub activities: Lane<ActivityWrite>,
    /// The branding.
    pub config: SharedConfig,
    /// Makes ids.
    pub ids: Arc<IdGenerator>,
    /// The time.
    pub clock: SharedClock,
}

/// The routes: `/u/{token}`, `/o/{token}` and `/c/{token}`.
///
/// They need no key: whoever has a link got it by mail.  A link to unsubscribe acts on POST alone, because scanners
/// follow every link of a mail before its reader does (RFC 8058, section 1).
pub fn routes(recipients: Recipients) -> Router {
    Router::new()
        .route("/u/{token}", get(confirm).post(unsubscribe))
        .route("/o/{token}", get(open))
        .route("/c/{token}", get(click))
        .with_state(Arc::new(recipients))
}

type Shared = State<Arc<Recipients>>;

async fn confirm(State(recipients): Shared, Path(token): Path<String>) -> Response {
    let Some(claim) = recipients.links.read(Purpose::Unsubscribe, &token) else {
        return recipients.unknown();
    };
    let text = match claim.subject.as_str() {
        "" => format!("{} will get no more mails from us.", claim.address),
        topic => format!("{} will get no more mails about \"{topic}\" from us.", claim.address),
    };
    recipients.page(StatusCode::OK, "Stop these mails?", &text, Some("Unsubscribe"))
}

async fn unsubscribe(State(recipients): Shared, Path(token): Path<String>, body: Body) -> Response {
    let Some(claim) = recipients.links.read(Purpose::Unsubscribe, &token) else {
        return recipients.unknown();
    };
    // What a mail program posts says nothing that the link does not (RFC 8058, 3.2): it is read to be polite, and so
    // that the connection can be used again.
    match tokio::time::timeout(BODY_TIME, to_bytes(body, BODY_LIMIT)).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) => {
            return recipients.page(
                StatusCode::PAYLOAD_TOO_LARGE,
                "That was too much",
                "Please open the link again.",
                None,
            );
        }
        Err(_) => {
            return recipients.page(
                StatusCode::REQUEST_TIMEOUT,
                "That took too long",
                "Please open the link again.",
                None,
            );
        }
    }
    let text = match claim.subject.as_str() {
        "" => format!("{} gets no more mails from us.", claim.address),
        topic => format!("{} gets no more mails about \"{topic}\" from us.", claim.address),
    };
    match recipients.activities.write(recipients.unsubscribed(claim)).await {
        Ok(()) => recipients.page(StatusCode::OK, "You are unsubscribed", &text, None),
        Err(error) => {
            tracing::error!(%error, "somebody could not unsubscribe");
            let (title, text) = ("That did not work", "Please try again in a few minutes.");
            recipients.page(StatusCode::SERVICE_UNAVAILABLE, title, text, None)
        }
    }
}

async fn open(
    State(recipients): Shared,
    Path(token): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let Some(claim) = recipients.links.read(Purpose::Open, &token) else {
        return recipients.unknown();
    };
    if method == Method::GET {
        let agent = Agent::of(&headers);
        recipients.record(
            ActivityKind::Opened,
            claim.email_id,
            claim.address,
            agent.name,
            agent.is_automated,
        );
    }
    (private(), [(header::CONTENT_TYPE, "image/gif")], PICTURE).into_response()
}

async fn click(
    State(recipients): Shared,
    Path(token): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let claim = recipients.links.read(Purpose::Click, &token);
    let target =
        claim.and_then(|claim| HeaderValue::from_str(&claim.subject).ok().map(|target| (claim, target)));
    let Some((claim, target)) = target else {
        return recipients.unknown();
    };
    if method == Method::GET {
        let agent = Agent::of(&headers);
        let Claim { email_id, address, subject } = claim;
        recipients.record(ActivityKind::Clicked, email_id, address, subject, agent.is_automated);
    }
    (StatusCode::FOUND, private(), [(header::LOCATION, target)]).into_response()
}

/// Not kept by anybody, not found by search engines, and the link is not told to where it leads.
fn private() -> [(HeaderName, HeaderValue); 3] {
    [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store, private")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("x-robots-tag"), HeaderValue::from_static("noindex")),
    ]
}

impl Recipients {
    fn unknown(&self) -> Response {
        let text = "It may have been cut off. Please copy the whole link from the mail.";
        self.page(StatusCode::NOT_FOUND, "This link is not valid", text, None)
    }

    fn page(&self, status: StatusCode, title: &str, text: &str, button: Option<&str>) -> Response {
        let html = page(&self.config.load().branding, title, text, button);
        let headers = [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        (status, private(), headers, html).into_response()
    }

    fn activity(&self, kind: ActivityKind, email_id: String, address: String) -> NewActivity {
        let (id, at) = (self.ids.next(Kind::EmailActivity), self.clock.now());
        NewActivity { id, email_id, address, kind, detail: String::new(), automated: false, at }
    }

    fn unsubscribed(&self, claim: Claim) -> ActivityWrite {
        let Claim { email_id, address, subject: topic } = claim;
        let address = suppression::key(&address).unwrap_or(address);
        let activity = self.activity(ActivityKind::Unsubscribed, email_id.clone(), address.clone());
        let suppression = NewSuppression {
            address,
            topic,
            reason: Reason::Unsubscribe,
            origin: Origin::Link,
            detail: String::new(),
            email_id: Some(email_id),
            expires_at: None,
            now: activity.at,
        };
        ActivityWrite { activity, suppression: Some(suppression) }
    }

    /// Notes what happened, soon: a reader does not wait for it, and one more or less does not matter.
    fn record(&self, kind: ActivityKind, email_id: String, address: String, detail: String, automated: bool) {
        let activity = NewActivity { detail, automated, ..self.activity(kind, email_id, address) };
        self.activities.submit(ActivityWrite { activity, suppression: None }, |_, result| {
            if let Err(error) = result {
                tracing::warn!(%error, "what a recipient did could not be noted");
            }
        });
    }
}
