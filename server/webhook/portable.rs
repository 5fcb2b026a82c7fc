//! Endpoints in exported configurations, by id: an endpoint that is brought to another server is the same one, with the same
//! secret, and its receiver need not know of it.  Secrets that were replaced and sign still are not exported.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::directory::secret_place;
use super::model::{Webhook, normal_url};
use super::policy::Options;
use super::rotation::store as secrets;
use super::secret::{self, Key, Signing};
use super::service::{WebhookService, check};
use super::trust::Trust;
use super::{audited, health, pull, store};
use crate::audit::Change;
use crate::db::{Conn, revision};
use crate::error::{Error, Kind, Result};
use crate::id::{self, Kind as IdKind};
use crate::portable::{Item, Items, Portable};
use crate::secret::SecretText;

/// What requests are signed with.
const SECRET: &str = "secret";
/// The headers, whose values may be passwords, as JSON.
const HEADERS: &str = "headers";
/// The private key of the client certificate.
const CLIENT_KEY: &str = "client_key";

/// An endpoint in a document.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    name: String,
    #[serde(default)]
    url: String,
    event_types: Vec<String>,
    #[serde(default)]
    description: String,
    active: bool,
    signing: Algorithm,
    #[serde(default)]
    options: Options,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Algorithm {
    Hmac,
    Ed25519,
}

impl Portable for WebhookService {
    fn section(&self) -> &'static str {
        "webhooks"
    }

    fn item(&self) -> &'static str {
        "webhook"
    }

    fn scopes(&self) -> (&'static str, &'static str) {
        ("webhooks:export", "webhooks:write")
    }

    fn revision(&self) -> Option<&'static str> {
        Some(revision::SUBSCRIPTIONS)
    }

    fn read<'a>(&'a self, conn: &'a mut Conn) -> BoxFuture<'a, Result<Items>> {
        async move {
            let all = store::all(conn).await?;
            all.into_iter()
                .map(|mut kept| {
                    let (secret, key) = (std::mem::take(&mut kept.sealed), kept.client_key.take());
                    self.shown(kept.into_webhook(), &secret, key.as_deref())
                })
                .collect()
        }
        .boxed()
    }

    fn put<'a>(&'a self, conn: &'a mut Conn, items: Items) -> BoxFuture<'a, Result<Vec<String>>> {
        async move {
            let mut missing = Vec::new();
            for (id, item) in items {
                let name = |secret| format!("webhooks/{id}/{secret}");
                missing.extend(self.place(conn, &id, item).await?.into_iter().map(name));
            }
            Ok(missing)
        }
        .boxed()
    }

    fn remove<'a>(&'a self, conn: &'a mut Conn, names: Vec<String>) -> BoxFuture<'a, Result<()>> {
        async move {
            for id in names {
                let webhook = store::find(conn, &id).await?;
                store::delete(conn, &id).await?;
                let change = Change::new("webhook", id, "delete");
                self.audit.record(conn, change.from(audited::fields(&webhook, &self.audit))).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn reload(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            self.directory.refresh(&mut self.db.reader().await?).await?;
            // What waits for an old limit or for a dead host may go out.
            self.engine.unblock().await.map(drop)
        }
        .boxed()
    }
}

impl WebhookService {
    fn shown(&self, webhook: Webhook, secret: &[u8], key: Option<&[u8]>) -> Result<(String, Item)> {
        let mut secrets = BTreeMap::new();
        secrets.insert(SECRET.to_owned(), self.sealer.open_text(secret_place(&webhook.id), secret)?);
        let client_key = Trust::open(&webhook, key, &self.sealer)?.client_key;
        if !client_key.reveal().is_empty() {
            secrets.insert(CLIENT_KEY.to_owned(), client_key);
        }
        if !webhook.headers.is_empty() {
            let headers = serde_json::to_string(&webhook.headers).map_err(Error::internal)?;
            secrets.insert(HEADERS.to_owned(), SecretText::new(headers));
        }
        let signing = match webhook.signing() {
            Signing::Hmac => Algorithm::Hmac,
            Signing::Ed25519 => Algorithm::Ed25519,
        };
        let Webhook { id, name, url, event_types, description, active, options, .. } = webhook;
        let shown = Shown { name, url, event_types, description, active, signing, options };
        let value = serde_json::to_value(shown).map_err(Error::internal)?;
        Ok((id, Item { value, secrets }))
    }

    /// Makes or changes an endpoint; answers which secrets it lacks.
    async fn place(&self, conn: &mut Conn, id: &str, item: Item) -> Result<Vec<&'static str>> {
        let shown: Shown = serde_json::from_value(item.value)
            .map_err(|error| Error::field("webhook", format!("is not an endpoint: {error}")))?;
        if !id::is_valid(IdKind::Webhook, id) {
            return Err(Error::field("webhook.id", "is not the id of an endpoint"));
        }
        let known = match store::find(conn, id).await {
            Ok(known) => Some(known),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => return Err(error),
        };
        let (now, mut given, mut missing) = (self.clock.now(), item.secrets, Vec::new());
        let (headers, client_key) = (headers(given.remove(HEADERS))?, given.remove(CLIENT_KEY));
        let before = known.as_ref().map(|known| audited::fields(known, &self.audit));
        let mode = known.as_ref().map(|known| known.options.delivery_mode);
        let is_new = known.is_none();
        let mut webhook =
            known.unwrap_or_else(|| Webhook { id: id.to_owned(), created_at: now, ..Webhook::default() });
        let former = webhook.options.client_certificate.clone();
        let was_active = webhook.active;
        webhook.name = shown.name;
        webhook.url = normal_url(&shown.url);
        webhook.event_types = shown.event_types;
        webhook.description = shown.description;
        webhook.active = shown.active;
        webhook.options = shown.options;
        webhook.headers = headers.unwrap_or(webhook.headers);
        webhook.version += 1;
        webhook.updated_at = now;
        let certificate = &mut webhook.options.client_certificate;
        if client_key.is_none() && certificate.trim() != former.trim() {
            // A certificate is nothing without its key.
            certificate.clone_from(&former);
            missing.push(CLIENT_KEY);
        }
        if !is_new && webhook.active && !was_active {
            health::revive(conn, &mut webhook).await?;
        }

        let signing = match shown.signing {
            Algorithm::Hmac => Signing::Hmac,
            Algorithm::Ed25519 => Signing::Ed25519,
        };
        let current = match is_new {
            true => None,
            false => {
                let sealed = secrets::secret(conn, id).await?;
                Some(self.sealer.open_text(secret_place(id), &sealed)?)
            }
        };
        let own = given.remove(SECRET).or_else(|| current.clone());
        if own.is_none() {
            missing.push(SECRET);
        }
        let chosen = secret::choose(own.unwrap_or_default(), signing, &*self.random);
        let (text, key): (SecretText, Key) =
            chosen.map_err(|reason| Error::field("webhook.secret", reason))?;
        webhook.public_key = key.public_text();
        let new_key = client_key.clone().unwrap_or_default();
        let client_key = check(&webhook, &self.rules, &former, client_key)?;

        let sealed = self.sealer.seal(secret_place(id), text.reveal().as_bytes())?;
        if is_new {
            store::insert(conn, &webhook, sealed).await?;
        } else {
            if current.as_ref() != Some(&text) {
                secrets::end(conn, id).await?;
                webhook.previous_secret_expires_at = None;
                secrets::set_secret(conn, id, sealed).await?;
            }
            store::update(conn, &webhook).await?;
        }
        pull::mode_changed(conn, mode, &webhook).await?;
        client_key.apply(conn, id, &self.sealer).await?;
        let change = Change::new("webhook", id, if is_new { "create" } else { "update" });
        let mut after = audited::fields_with(&webhook, &self.audit, SECRET, &text);
        let mut before = before.unwrap_or_default();
        if let Some(current) = current {
            let place = format!("webhooks/{id}/{SECRET}");
            before.insert(SECRET.to_owned(), self.audit.fingerprint(&place, current.reveal()).into());
        }
        if !new_key.reveal().is_empty() {
            let place = format!("webhooks/{id}/{CLIENT_KEY}");
            after.insert(CLIENT_KEY.to_owned(), self.audit.fingerprint(&place, new_key.reveal()).into());
        }
        self.audit.record(conn, change.from(before).to(after)).await?;
        Ok(missing)
    }
}

fn headers(text: Option<SecretText>) -> Result<Option<BTreeMap<String, String>>> {
    let read = |text: SecretText| {
        serde_json::from_str(text.reveal())
            .map_err(|_| Error::field("webhook.headers", "are not names with values"))
    };
    text.map(read).transpose()
}
