//! The load: callers that publish events and send mails at an even pace, and administrators who change settings and revoke
//! keys. What fails is asked again with the same request id, until it is acknowledged.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use switchboard::event::cursor::Cursor;
use switchboard_client::Client;
use switchboard_client::apikey::v1::{CreateApiKeyRequest, RevokeApiKeyRequest, VerifyApiKeyRequest};
use switchboard_client::email::v1::SendEmailRequest;
use switchboard_client::event::v1::PublishEventRequest;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::{Code, Response, Status};

use super::journal::{Asked, Journal, Kind, Moment, Place, RunClock};
use crate::settings::change;

/// Calls at a time, and so the most whose answer a kill can swallow.
const CALLERS: u32 = 24;
/// How often a setting is changed, and a key made and revoked.
const ADMINISTRATION: Duration = Duration::from_millis(250);
/// How long a call may take before it is asked again: a server that is gone says so at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long something may go without an answer, in microseconds.
const LONGEST: Moment = 120_000_000;

/// What the callers share.
pub struct Load {
    journal: Arc<Journal<Asked>>,
    clock: RunClock,
    server: watch::Receiver<Client>,
    next: AtomicU64,
    ended: AtomicBool,
    /// What is to arrive where.
    expected: Mutex<HashSet<(Place, u64)>>,
    streams: usize,
}

impl Load {
    /// A load on whatever server there is, of which so many streams are to tell.
    pub fn new(
        journal: Arc<Journal<Asked>>,
        clock: RunClock,
        server: watch::Receiver<Client>,
        streams: usize,
    ) -> Arc<Self> {
        let (next, ended, expected) = (AtomicU64::new(1), AtomicBool::new(false), Mutex::default());
        Arc::new(Self { journal, clock, server, next, ended, expected, streams })
    }

    /// Starts so many calls in a second, and the administrators.
    pub fn start(self: &Arc<Self>, rate: u32) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for _ in 0..CALLERS {
            tasks.spawn(Arc::clone(self).calls(Duration::from_secs(1) * CALLERS / rate));
        }
        tasks.spawn(Arc::clone(self).changes_settings());
        tasks.spawn(Arc::clone(self).revokes_keys());
        tasks
    }

    /// Lets everybody end with what they are at.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    /// What is to arrive where.
    pub fn expected(&self) -> HashSet<(Place, u64)> {
        self.expected.lock().expect("no panic holds it").clone()
    }

    fn goes_on(&self) -> bool {
        !self.ended.load(Ordering::SeqCst)
    }

    /// Asks until there is an answer.
    async fn until_answered<T, F>(&self, what: &str, ask: impl Fn(Client) -> F) -> T
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut server = self.server.clone();
        let began = self.clock.now();
        loop {
            assert!(self.clock.now() - began < LONGEST, "{what}: there is no answer");
            let client = server.borrow_and_update().clone();
            match tokio::time::timeout(PATIENCE, ask(client)).await {
                Ok(Ok(answer)) => return answer.into_inner(),
                Ok(Err(status)) => {
                    // What a server says that dies or is not there, or whoever has got its port; all else would be its fault.
                    let dying = [
                        Code::Unavailable,
                        Code::Unknown,
                        Code::Cancelled,
                        Code::Internal,
                        Code::Unauthenticated,
                    ];
                    assert!(dying.contains(&status.code()), "{what}: {status:?}");
                }
                Err(_) => {}
            }
            // Another server takes over, or the same one after a moment.
            let _ = tokio::time::timeout(Duration::from_millis(50), server.changed()).await;
        }
    }

    async fn calls(self: Arc<Self>, every: Duration) {
        let mut pace = tokio::time::interval(every);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.goes_on() {
            pace.tick().await;
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let kind = match number % 20 {
                0 => Kind::Slow,
                1..=5 => Kind::Mail,
                _ => Kind::Quick,
            };
            self.journal.add(Asked::Sent { number, kind });
            let (id, position) = match kind {
                Kind::Mail => (self.mail(number).await, 0),
                _ => self.event(number, kind).await,
            };
            let at = self.clock.now();
            self.journal.add(Asked::Acknowledged { number, id, position, at });
            let streams = if kind == Kind::Mail { 0 } else { self.streams };
            let places = kind.places().iter().copied().chain((0..streams).map(Place::Stream));
            let mut expected = self.expected.lock().expect("no panic holds it");
            expected.extend(places.map(|place| (place, number)));
        }
    }

    async fn event(&self, number: u64, kind: Kind) -> (String, i64) {
        let request = PublishEventRequest {
            event_type: if kind == Kind::Slow { "torture.slow" } else { "torture.quick" }.into(),
            data: format!(r#"{{"n":{number}}}"#),
            request_id: format!("event {number}"),
            ..Default::default()
        };
        let ask = |client: Client| {
            let request = request.clone();
            async move { client.events().publish_event(request).await }
        };
        let answer = self.until_answered("publish", ask).await;
        let position = Cursor::decode(&answer.cursor).map_or(0, |cursor| cursor.position);
        (answer.event_id, position)
    }

    async fn mail(&self, number: u64) -> String {
        let request = SendEmailRequest {
            to: vec!["jo@example.com".into()],
            subject: format!("torture {number}"),
            plain_body: format!("This is number {number}."),
            request_id: format!("mail {number}"),
            ..Default::default()
        };
        let ask = |client: Client| {
            let request = request.clone();
            async move { client.emails().send_email(request).await }
        };
        self.until_answered("send", ask).await.email_id
    }

    /// Each change is asked for once: whether one was made whose answer did not come, the audit log knows.
    async fn changes_settings(self: Arc<Self>) {
        let mut pace = tokio::time::interval(ADMINISTRATION);
        let mut number = 0;
        while self.goes_on() {
            pace.tick().await;
            number += 1;
            self.journal.add(Asked::Change { number });
            let mut request = change(&json!({"general.company_name": format!("Company {number}")}));
            request.reason = format!("torture {number}");
            let client = self.server.borrow().clone();
            let mut asking = client.settings();
            if let Ok(Ok(_)) = tokio::time::timeout(PATIENCE, asking.update_settings(request)).await {
                self.journal.add(Asked::Changed { number });
            }
        }
    }

    async fn revokes_keys(self: Arc<Self>) {
        let mut pace = tokio::time::interval(ADMINISTRATION);
        let mut revoked: Vec<(String, String)> = Vec::new();
        while self.goes_on() {
            pace.tick().await;
            let ask = |client: Client| async move {
                let request = CreateApiKeyRequest {
                    name: "torture".into(),
                    scopes: vec!["events:read".into()],
                    ..Default::default()
                };
                client.api_keys().create_api_key(request).await
            };
            let made = self.until_answered("create key", ask).await;
            let (id, key) = (made.api_key.unwrap_or_default().id, made.key);
            // In memory, and so something that must be forgotten.
            self.verify(&id, &key).await;
            let ask = |client: Client| {
                let request = RevokeApiKeyRequest { api_key_id: id.clone() };
                async move { client.api_keys().revoke_api_key(request).await }
            };
            self.until_answered("revoke key", ask).await;
            self.journal.add(Asked::Revoked { key: id.clone(), at: self.clock.now() });
            revoked.push((id, key));
            // Also one from before, which another process revoked.
            for place in [0, revoked.len() - 1] {
                let (id, key) = revoked[place].clone();
                self.verify(&id, &key).await;
            }
            if revoked.len() > 20 {
                revoked.remove(0);
            }
        }
    }

    async fn verify(&self, id: &str, key: &str) {
        let began = self.clock.now();
        let request = VerifyApiKeyRequest { key: key.into(), ..Default::default() };
        let client = self.server.borrow().clone();
        let mut asking = client.api_keys();
        if let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, asking.verify_api_key(request)).await {
            self.journal.add(Asked::Verified { key: id.into(), began, valid: answer.into_inner().valid });
        }
    }
}
