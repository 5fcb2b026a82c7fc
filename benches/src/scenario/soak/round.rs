//! The rounds: what an application does again and again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use switchboard_client::Authenticated;
use switchboard_client::apikey::v1::VerifyApiKeyRequest;
use switchboard_client::apikey::v1::api_key_service_client::ApiKeyServiceClient;
use tonic::transport::Channel;

use super::ENDPOINTS;
use crate::client::{Events, PublishCaller, WANTED, client};
use crate::error::{Context, Result};
use crate::key::admin_key;
use crate::load::Caller;
use crate::mail::{Mailer, Mails};
use crate::scenario::reconcile::Sent;

/// The topic of the events.
pub const TOPIC: &str = "bench:soak";
/// Each round with a number that this divides has a mail.
const MAIL_EVERY: u64 = 8;
/// Deliveries that may be under way before callers who go as fast as they can wait.
const BACKLOG_LIMIT: u64 = 20_000;

/// What all rounds have in common.
#[derive(Clone, Default)]
pub struct Rounds(Arc<Shared>);

#[derive(Default)]
struct Shared {
    events: Events,
    mails: Mails,
    next: AtomicU64,
    acknowledged: AtomicU64,
    queued: AtomicU64,
    sent: Mutex<Vec<Sent>>,
}

impl Rounds {
    /// How many events were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.0.acknowledged.load(Ordering::Relaxed)
    }

    /// How many mails were acknowledged.
    pub fn mails(&self) -> u64 {
        self.0.queued.load(Ordering::Relaxed)
    }

    /// Takes the events that were acknowledged since the last time.
    pub fn take(&self) -> Vec<Sent> {
        std::mem::take(&mut self.0.sent.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Makes rounds.
#[derive(Clone)]
pub struct Round {
    rounds: Rounds,
    publisher: PublishCaller,
    keys: ApiKeyServiceClient<Authenticated>,
    mailer: Mailer,
}

impl Round {
    /// One that uses this connection.
    pub fn new(channel: Channel, rounds: &Rounds) -> Result<Self> {
        Ok(Self {
            rounds: rounds.clone(),
            publisher: PublishCaller::new(channel.clone(), &rounds.0.events)?,
            keys: client(channel.clone())?.api_keys(),
            mailer: Mailer::new(channel, &rounds.0.mails)?,
        })
    }

    /// Makes one that was due at this time.
    pub async fn make(&mut self, due: Instant) -> Result<()> {
        let event = self.publisher.publish_on(TOPIC, WANTED).await?;
        let shared = &*self.rounds.0;
        shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        let sent = Sent { event, at: due, acknowledged: Instant::now() };
        shared.sent.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
        let request = VerifyApiKeyRequest { key: admin_key(), ..VerifyApiKeyRequest::default() };
        let answer = self.keys.verify_api_key(request).await.context("VerifyApiKey")?;
        if !answer.into_inner().valid {
            return Err("the key is not valid any more".into());
        }
        if shared.next.fetch_add(1, Ordering::Relaxed).is_multiple_of(MAIL_EVERY) {
            self.mailer.queue(1).await?;
            shared.queued.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Makes rounds as fast as it can, and waits while too many deliveries are under way.
pub struct HeldBack {
    round: Round,
    arrived: Arc<AtomicU64>,
}

impl HeldBack {
    /// One that is held back by what has arrived.
    pub fn new(round: Round, arrived: &Arc<AtomicU64>) -> Self {
        Self { round, arrived: Arc::clone(arrived) }
    }

    fn under_way(&self) -> u64 {
        let due = self.round.rounds.acknowledged() * u64::from(ENDPOINTS);
        due.saturating_sub(self.arrived.load(Ordering::Relaxed))
    }
}

impl Caller for HeldBack {
    async fn call(&mut self) -> Result<()> {
        while self.under_way() > BACKLOG_LIMIT {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.round.make(Instant::now()).await
    }
}
