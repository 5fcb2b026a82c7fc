//! Another secret for an endpoint, with or without a time in which the old one signs as well.

pub(super) mod store;

use std::time::Duration;

use super::audited;
use super::directory::secret_place;
use super::model::Webhook;
use super::secret::{self, Signing};
use super::service::WebhookService;
use super::store as webhooks;
use crate::audit::Change;
use crate::clock::Timestamp;
use crate::db::Db;
use crate::error::{Error, Result, Violations};
use crate::secret::{Place, SecretText};

const LONGEST_OVERLAP: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How many former secrets sign at a time.
const FORMER_LIMIT: usize = 9;

/// What another secret is to be like.
#[derive(Debug, Default)]
pub struct Rotation {
    /// The endpoint.
    pub webhook_id: String,
    /// The caller's own; empty means that one is made.
    pub secret: SecretText,
    /// How long the old one signs as well; zero ends it, and every older one, at once.
    pub overlap: Duration,
    /// How requests are signed from now on; `None` means as before.
    pub signing: Option<Signing>,
}

impl WebhookService {
    /// Gives an endpoint another secret; answers both.
    pub async fn rotate(&self, rotation: Rotation) -> Result<(Webhook, SecretText)> {
        let now = self.clock.now();
        let mut violations = Violations::default();
        violations.require(rotation.overlap <= LONGEST_OVERLAP, "overlap", "must be at most 7 days");
        violations.finish()?;
        let (sealer, random, audit) = (self.sealer.clone(), self.random.clone(), self.audit.clone());
        self.changed(move |conn| {
            Box::pin(async move {
                let Rotation { webhook_id, secret, overlap, signing } = rotation;
                let mut webhook = webhooks::find(conn, &webhook_id).await?;
                let signing = signing.unwrap_or(webhook.signing());
                let chosen = secret::choose(secret, signing, &*random);
                let (secret, key) = chosen.map_err(|reason| Error::field("secret", reason))?;
                let sealed = store::secret(conn, &webhook_id).await?;
                let old = sealer.open_text(secret_place(&webhook_id), &sealed)?;
                if old == secret {
                    return Err(Error::field("secret", "is the one that the endpoint has"));
                }
                let before = audited::fields_with(&webhook, &audit, "secret", &old);
                webhook.previous_secret_expires_at = None;
                if overlap.is_zero() {
                    store::end(conn, &webhook_id).await?;
                } else {
                    store::forget(conn, now).await?;
                    if store::count(conn, &webhook_id).await? >= FORMER_LIMIT as i64 {
                        return Err(Error::field(
                            "overlap",
                            "must be 0: 9 former secrets sign already, and that would end them",
                        ));
                    }
                    let place = former_place(&webhook_id, webhook.version);
                    let sealed = sealer.seal(place.as_place(), old.reveal().as_bytes())?;
                    let end = now + overlap;
                    store::insert(conn, &webhook_id, webhook.version, sealed, end).await?;
                    webhook.previous_secret_expires_at = store::last_end(conn, &webhook_id).await?;
                }
                webhook.version += 1;
                webhook.updated_at = now;
                webhook.public_key = key.public_text();
                webhooks::update(conn, &webhook).await?;
                let sealed = sealer.seal(secret_place(&webhook_id), secret.reveal().as_bytes())?;
                store::set_secret(conn, &webhook_id, sealed).await?;
                let entry = Change::new("webhook", webhook_id, "rotate_secret").from(before);
                let after = audited::fields_with(&webhook, &audit, "secret", &secret);
                audit.record(conn, entry.to(after)).await?;
                Ok((webhook, secret))
            })
        })
        .await
    }
}

/// Forgets the secrets that have ended.
pub async fn forget_ended(db: &Db, now: Timestamp) -> Result<()> {
    db.transaction(move |conn| Box::pin(async move { store::forget(conn, now).await })).await
}

/// A secret that was replaced and has not ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FormerSecret {
    /// The endpoint's version that it belonged to.
    pub version: i64,
    pub sealed: Vec<u8>,
    pub expires_at: Timestamp,
}

/// Where a former secret is kept.
pub(super) struct FormerPlace(String);

impl FormerPlace {
    /// The place.
    pub(super) fn as_place(&self) -> Place<'_> {
        Place { table: "webhook_former_secrets", column: "secret", row: &self.0 }
    }
}

/// Where the secret is kept that an endpoint had at this version.
pub(super) fn former_place(webhook_id: &str, version: i64) -> FormerPlace {
    FormerPlace(format!("{webhook_id}/{version}"))
}
