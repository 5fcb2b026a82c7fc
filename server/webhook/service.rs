//! The use cases of webhooks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::audited;
use super::channel::WebhookChannel;
use super::directory::{Directory, secret_place};
use super::guard::Guard;
use super::health::{self, Record};
pub use super::log::store::DeliveryFilter;
use super::mode::{Batching, DeliveryMode};
use super::model::{Webhook, normal_url};
use super::policy::{Options, RateLimit, RetryPolicy};
use super::pull::{self, Pulls};
use super::secret::{self, Signing};
use super::sender::Sender;
use super::stats::Tally;
use super::store;
pub use super::store::RetryFilter;
use super::trust::{self, KeyChange};
use crate::audit::{Change, Recorder};
use crate::clock::{SharedClock, Timestamp};
use crate::db::{Conn, Db, keyring, revision};
use crate::delivery::Engine;
use crate::error::{Error, Result, Violations};
use crate::event::pattern::Pattern;
use crate::event::registry::RegistryService;
use crate::id::{IdGenerator, Kind as IdKind};
use crate::secret::{Sealer, SecretText, SharedRandom};

/// What to set of an endpoint; `None` leaves it.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct WebhookChange {
    pub name: Option<String>,
    pub url: Option<String>,
    pub event_types: Option<Vec<String>>,
    pub description: Option<String>,
    pub active: Option<bool>,
    pub headers: Option<BTreeMap<String, String>>,
    pub timeout: Option<Option<Duration>>,
    pub retry_policy: Option<Option<RetryPolicy>>,
    pub rate_limit: Option<Option<RateLimit>>,
    pub delivery_mode: Option<DeliveryMode>,
    pub batching: Option<Option<Batching>>,
    pub ca_certificates: Option<String>,
    pub client_certificate: Option<String>,
    pub client_key: Option<SecretText>,
    pub version: Option<i64>,
}

impl WebhookChange {
    /// The endpoint that it makes, not checked yet, with the client key that goes with it.
    pub(super) fn into_new(self, id: String, now: Timestamp) -> (Webhook, Option<SecretText>) {
        let webhook = Webhook {
            id,
            name: self.name.unwrap_or_default(),
            url: normal_url(&self.url.unwrap_or_default()),
            event_types: self.event_types.unwrap_or_default(),
            description: self.description.unwrap_or_default(),
            active: self.active.unwrap_or(true),
            headers: self.headers.unwrap_or_default(),
            options: Options {
                timeout: self.timeout.flatten(),
                retry_policy: self.retry_policy.flatten(),
                rate_limit: self.rate_limit.flatten(),
                delivery_mode: self.delivery_mode.unwrap_or_default(),
                batching: self.batching.flatten(),
                ca_certificates: self.ca_certificates.unwrap_or_default(),
                client_certificate: self.client_certificate.unwrap_or_default(),
            },
            public_key: String::new(),
            previous_secret_expires_at: None,
            disabled_reason: String::new(),
            health: Record::default(),
            version: 1,
            created_at: now,
            updated_at: now,
        };
        (webhook, self.client_key)
    }
}

/// What endpoints must satisfy.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Where requests may go.
    pub guard: Guard,
    /// Whether they must go over TLS.
    pub https_only: bool,
}

/// The secret of a new endpoint.
#[derive(Debug)]
pub struct NewSecret {
    /// The caller's own; empty means that one is made.
    pub secret: SecretText,
    /// How its requests are signed.
    pub signing: Signing,
    /// Checks everything and keeps nothing.
    pub validate_only: bool,
}

/// The use cases.
pub struct WebhookService {
    /// The database.
    pub db: Db,
    /// The endpoints in memory.
    pub directory: Arc<Directory>,
    /// Seals their secrets.
    pub sealer: Sealer,
    /// Makes their secrets.
    pub random: SharedRandom,
    /// What they must satisfy.
    pub rules: Rules,
    /// Carries the deliveries.
    pub engine: Engine<WebhookChannel>,
    /// Makes the requests of tests.
    pub sender: Arc<Sender>,
    /// Counts requests.
    pub tally: Arc<Tally>,
    /// What reads of pulled endpoints need.
    pub pulls: Pulls,
    /// Has the samples that tests send.
    pub event_types: RegistryService,
    /// Records what is changed.
    pub audit: Recorder,
    /// Makes ids.
    pub ids: Arc<IdGenerator>,
    /// The time.
    pub clock: SharedClock,
}

impl WebhookService {
    /// Adds an endpoint; answers it with its secret, which is shown nowhere else.  With `validate_only` it only checks.
    pub async fn create(&self, change: WebhookChange, new: NewSecret) -> Result<(Webhook, SecretText)> {
        let NewSecret { secret, signing, validate_only } = new;
        let (mut webhook, client_key) = change.into_new(self.ids.next(IdKind::Webhook), self.clock.now());
        let mut violations = Violations::default();
        webhook.check(&self.rules.guard, self.rules.https_only, &mut violations);
        let client_key = trust::check(&webhook, "", client_key, &mut violations);
        let chosen = violations.check("secret", secret::choose(secret, signing, &*self.random));
        violations.finish()?;
        let (secret, key) = chosen.expect("what is wrong with a secret is a violation");
        webhook.public_key = key.public_text();
        if validate_only {
            return Ok((webhook, SecretText::default()));
        }
        let (sealer, kept, audit) = (self.sealer.clone(), secret.clone(), self.audit.clone());
        let after = audited::fields_with(&webhook, &audit, "secret", &secret);
        let webhook = self
            .changed(move |conn| {
                Box::pin(async move {
                    let sealed = sealer.seal(secret_place(&webhook.id), kept.reveal().as_bytes())?;
                    store::insert(conn, &webhook, sealed).await?;
                    pull::mode_changed(conn, None, &webhook).await?;
                    client_key.apply(conn, &webhook.id, &sealer).await?;
                    audit.record(conn, Change::new("webhook", &webhook.id, "create").to(after)).await?;
                    Ok(webhook)
                })
            })
            .await?;
        Ok((webhook, secret))
    }

    /// One endpoint.
    pub async fn get(&self, id: &str) -> Result<Webhook> {
        store::find(&mut self.db.reader().await?, id).await
    }

    /// Endpoints after an id, at most `limit`; with `event_type`, those that want it.
    pub async fn list(
        &self,
        after: &str,
        active: Option<bool>,
        event_type: &str,
        limit: usize,
    ) -> Result<Vec<Webhook>> {
        let mut conn = self.db.reader().await?;
        if event_type.is_empty() {
            return store::after(&mut conn, after, active, limit as i64).await;
        }
        let wants = |webhook: &Webhook| {
            webhook
                .event_types
                .iter()
                .any(|text| Pattern::parse(text).is_ok_and(|pattern| pattern.matches(event_type)))
        };
        let (mut found, mut after) = (Vec::new(), after.to_owned());
        loop {
            let some = store::after(&mut conn, &after, active, 500).await?;
            let Some(last) = some.last() else { return Ok(found) };
            after.clone_from(&last.id);
            found.extend(some.into_iter().filter(wants));
            if found.len() >= limit {
                found.truncate(limit);
                return Ok(found);
            }
        }
    }

    /// Changes an endpoint.
    pub async fn update(&self, id: String, change: WebhookChange) -> Result<Webhook> {
        let (now, rules, sealer) = (self.clock.now(), self.rules.clone(), self.sealer.clone());
        let audit = self.audit.clone();
        let limits = change.rate_limit.is_some();
        let anew = change.url.is_some() || change.active.is_some();
        let webhook = self
            .changed(move |conn| {
                Box::pin(async move {
                    let mut webhook = store::find(conn, &id).await?;
                    let before = webhook.options.delivery_mode;
                    let former_fields = audited::fields(&webhook, &audit);
                    if change.version.is_some_and(|version| version != webhook.version) {
                        return Err(Error::etag_mismatch(webhook.version.to_string()));
                    }
                    webhook.name = change.name.unwrap_or(webhook.name);
                    webhook.url = change.url.map_or(webhook.url, |url| normal_url(&url));
                    webhook.event_types = change.event_types.unwrap_or(webhook.event_types);
                    webhook.description = change.description.unwrap_or(webhook.description);
                    let was_active = webhook.active;
                    webhook.active = change.active.unwrap_or(webhook.active);
                    if webhook.active && !was_active {
                        health::revive(conn, &mut webhook).await?;
                    }
                    webhook.headers = change.headers.unwrap_or(webhook.headers);
                    let options = &mut webhook.options;
                    options.timeout = change.timeout.unwrap_or(options.timeout);
                    options.rate_limit = change.rate_limit.unwrap_or(options.rate_limit);
                    options.delivery_mode = change.delivery_mode.unwrap_or(options.delivery_mode);
                    // What was said of batches goes with them.
                    let batching =
                        options.batching.filter(|_| options.delivery_mode == DeliveryMode::Batched);
                    options.batching = change.batching.unwrap_or(batching);
                    options.retry_policy = change.retry_policy.unwrap_or(options.retry_policy.take());
                    if let Some(ca_certificates) = change.ca_certificates {
                        options.ca_certificates = ca_certificates;
                    }
                    let former = options.client_certificate.clone();
                    options.client_certificate = change.client_certificate.unwrap_or(former.clone());
                    webhook.version += 1;
                    webhook.updated_at = now;
                    let new_key = change.client_key.clone().unwrap_or_default();
                    let client_key = check(&webhook, &rules, &former, change.client_key)?;
                    store::update(conn, &webhook).await?;
                    pull::mode_changed(conn, Some(before), &webhook).await?;
                    client_key.apply(conn, &webhook.id, &sealer).await?;
                    let entry = Change::new("webhook", &webhook.id, "update").from(former_fields);
                    let after = audited::fields_with(&webhook, &audit, "client_key", &new_key);
                    audit.record(conn, entry.to(after)).await?;
                    Ok(webhook)
                })
            })
            .await?;
        if limits {
            // What waits for the old limit may go out under the new one.
            self.engine.unblock().await?;
        } else if anew {
            // What waits for a dead host may be taken where the endpoint leads now.
            self.engine.unblock_lane(&webhook.id).await?;
        }
        Ok(webhook)
    }

    /// Removes an endpoint with its history.
    pub async fn delete(&self, id: String, version: Option<i64>) -> Result<()> {
        let audit = self.audit.clone();
        self.changed(move |conn| {
            Box::pin(async move {
                let webhook = store::find(conn, &id).await?;
                if version.is_some_and(|version| version != webhook.version) {
                    return Err(Error::etag_mismatch(webhook.version.to_string()));
                }
                store::delete(conn, &id).await?;
                let entry = Change::new("webhook", id, "delete").from(audited::fields(&webhook, &audit));
                audit.record(conn, entry).await
            })
        })
        .await
    }

    /// Makes a change that the publishes of every node must see, and sees it here before it answers.
    pub(super) async fn changed<R, F>(&self, work: F) -> Result<R>
    where
        R: Send + 'static,
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R>> + Send + 'static,
    {
        let sealer = self.sealer.clone();
        let done = revision::change(&self.db, revision::SUBSCRIPTIONS, move |conn| {
            Box::pin(async move {
                keyring::refresh(conn, &sealer).await?;
                work(conn).await
            })
        })
        .await?;
        // The change is made: that it can not be read at once must not be told as if it were not.  The next publish
        // compares the revision anyway.
        let refreshed = async { self.directory.refresh(&mut self.db.reader().await?).await };
        if let Err(error) = refreshed.await {
            tracing::warn!(%error, "a change was made and could not be read; the next publish reads it");
        }
        Ok(done)
    }
}

/// Checks a changed endpoint, and says what becomes of its private key.
pub(super) fn check(
    webhook: &Webhook,
    rules: &Rules,
    former: &str,
    key: Option<SecretText>,
) -> Result<KeyChange> {
    let mut violations = Violations::default();
    webhook.check(&rules.guard, rules.https_only, &mut violations);
    let client_key = trust::check(webhook, former, key, &mut violations);
    violations.finish()?;
    Ok(client_key)
}
