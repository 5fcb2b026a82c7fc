//! The use cases of API keys: make, read, end.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::announce;
use super::audited;
use super::credits;
use super::key;
use super::model::{KeyChange, KeyKind, Rules};
use super::policy::SharedPolicy;
use super::store;
pub use super::store::{ApiKey, KeyFilter};
use super::usage::Usage;
use super::verifier::Verifier;
use crate::audit::{Change, Recorder};
use crate::clock::{SharedClock, Timestamp};
use crate::db::{Db, revision};
use crate::error::{Error, Kind, Result, Violations};
use crate::event::EventService;
use crate::failpoint;
use crate::id::{IdGenerator, Kind as IdKind};
use crate::scope;
use crate::secret::{SecretText, SharedRandom};

/// The unit of lifetimes.
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const FIRST_DAYS: u32 = 365;

/// A key to be made.
#[derive(Debug, Clone, Default)]
pub struct NewKey {
    /// What it is used for.
    pub kind: KeyKind,
    /// 0 means the default.
    pub expires_in_days: i32,
    /// What it is like.  Name and scopes are needed.
    pub fields: KeyChange,
}

impl NewKey {
    /// A key that is nothing but its name, its description and its scopes.
    pub fn named(name: String, description: String, scopes: Vec<String>, expires_in_days: i32) -> Self {
        let fields = KeyChange {
            name: Some(name),
            description: Some(description),
            scopes: Some(scopes),
            ..KeyChange::default()
        };
        Self { kind: KeyKind::Live, expires_in_days, fields }
    }
}

/// Who makes or changes a key.
#[derive(Debug, Clone, Copy)]
pub struct Creator<'a> {
    /// The creator's key, or what else did it.
    pub id: &'a str,
    /// What the creator may do, and so may give away.
    pub scopes: &'a [String],
}

impl Creator<'_> {
    /// Refuses to give away what the creator does not hold.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, with the first such scope.
    pub fn may_give(&self, scopes: &[String]) -> Result<()> {
        let Some(beyond) = scopes.iter().find(|scope| !scope::any_covers(self.scopes, scope)) else {
            return Ok(());
        };
        let message = format!("nobody can give away what they do not hold: {beyond}");
        Err(Error::new(Kind::PermissionDenied, "SCOPE_NOT_HELD", message).with("scope", beyond))
    }
}

/// The use cases.
pub struct ApiKeyService {
    /// The database.
    pub db: Db,
    /// Keeps the keys in memory.
    pub verifier: Arc<Verifier>,
    /// How long keys may live.
    pub policy: SharedPolicy,
    /// Counts and logs what keys are used for.
    pub usage: Arc<Usage>,
    /// Where it publishes what becomes of keys; unset in commands that do not serve, whose events a server publishes later.
    pub events: OnceLock<Arc<EventService>>,
    /// Records what is changed.
    pub audit: Recorder,
    /// Makes secrets.
    pub random: SharedRandom,
    /// Makes ids.
    pub ids: Arc<IdGenerator>,
    /// The time.
    pub clock: SharedClock,
}

impl ApiKeyService {
    /// Makes a key; answers it with its text, which is shown nowhere else.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for a scope that the creator does not hold.
    pub async fn create(&self, creator: Creator<'_>, new: NewKey) -> Result<(ApiKey, SecretText)> {
        let days = self.check(&new)?;
        creator.may_give(new.fields.scopes.as_deref().unwrap_or_default())?;
        let text = key::generate(new.kind, &*self.random);
        let mut api_key = self.record(creator.id, new.kind, days, &text);
        announce::add(&mut api_key, announce::CREATED);
        let fields = new.fields;
        api_key.take(&fields);
        let (mac, now) = (self.verifier.mac(&text), self.clock.now());
        let (audit, creator) = (self.audit.clone(), creator.id.to_owned());
        let api_key = self
            .db
            .transaction(move |conn| {
                Box::pin(async move {
                    api_key.revision = store::next_revision(conn).await?;
                    if let Some(new) = fields.credits {
                        let revision = api_key.revision;
                        credits::set(conn, &mut api_key, new, revision, now).await?;
                    }
                    store::insert(conn, &api_key, mac).await?;
                    let change = Change::new("api_key", &api_key.id, "create").by(creator);
                    let after = audited::fields_with(&api_key, fields.credits.flatten());
                    audit.record(conn, change.to(after)).await?;
                    Ok(api_key)
                })
            })
            .await?;
        self.verifier.forget(&api_key.key_prefix);
        Ok((self.announced(api_key).await, text))
    }

    /// Makes a key for whoever operates the server and so holds every scope.
    pub async fn create_by_operator(&self, new: NewKey) -> Result<(ApiKey, SecretText)> {
        let scopes = new.fields.scopes.clone().unwrap_or_default();
        self.create(Creator { id: "operator", scopes: &scopes }, new).await
    }

    /// Makes the first key of a new database, with every scope; `None` when there was a first key before.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when `given` has not the form of a key.
    pub async fn create_first(&self, given: Option<SecretText>) -> Result<Option<SecretText>> {
        let given = match given {
            Some(text) if !key::is_well_formed(text.reveal()) => {
                let what = "is not of the form of a key, or its checksum is wrong: make one with `switchboard key generate`";
                return Err(Error::field("SWITCHBOARD_ADMIN_KEY", what));
            }
            given => given,
        };
        let text = given.unwrap_or_else(|| key::generate(KeyKind::Live, &*self.random));
        let new = NewKey::named(
            "First admin key".into(),
            "Made at the first start".into(),
            vec!["admin:*".into()],
            FIRST_DAYS as i32,
        );
        let mut api_key = self.record("first start", new.kind, FIRST_DAYS, &text);
        api_key.take(&new.fields);
        let (mac, audit) = (self.verifier.mac(&text), self.audit.clone());
        let made = self
            .db
            .transaction(move |conn| {
                Box::pin(async move {
                    let first = revision::mark(conn, "first_key").await?;
                    if first {
                        api_key.revision = store::next_revision(conn).await?;
                        store::insert(conn, &api_key, mac).await?;
                        let change = Change::new("api_key", &api_key.id, "create");
                        audit.record(conn, change.to(audited::fields(&api_key))).await?;
                    }
                    Ok(first)
                })
            })
            .await?;
        Ok(made.then_some(text))
    }

    fn check(&self, new: &NewKey) -> Result<u32> {
        let mut violations = Violations::default();
        new.fields.check(&mut violations);
        let days = violations.check("expires_in_days", self.policy.load().days(new.expires_in_days));
        violations.finish()?;
        Ok(days.expect("what is wrong with the days is a violation"))
    }

    /// A record with nothing of what its maker says of it.
    pub(super) fn record(&self, creator: &str, kind: KeyKind, days: u32, text: &SecretText) -> ApiKey {
        let now = self.clock.now();
        ApiKey {
            id: self.ids.next(IdKind::ApiKey),
            name: String::new(),
            description: String::new(),
            scopes: Vec::new().into(),
            key_prefix: key::prefix(text.reveal()).to_owned(),
            active: true,
            created_by: creator.to_owned(),
            expires_at: now + DAY * days,
            revoked_at: None,
            created_at: now,
            updated_at: now,
            kind,
            external_id: String::new(),
            metadata: "{}".into(),
            disabled: false,
            rules: Rules::default(),
            credits_id: None,
            replaces: None,
            replaced_by: None,
            expiry_notice: None,
            unannounced: String::new(),
            version: 1,
            revision: 0,
        }
    }

    /// One key.
    pub async fn get(&self, id: &str) -> Result<ApiKey> {
        store::find(&mut self.db.reader().await?, id).await
    }

    /// Keys after an id.
    pub async fn list(&self, after: &str, filter: KeyFilter<'_>, limit: i64) -> Result<Vec<ApiKey>> {
        store::after(&mut self.db.reader().await?, after, filter, self.clock.now(), limit).await
    }

    /// Ends a key: it is refused from the moment that this answers.
    pub async fn revoke(&self, id: String) -> Result<ApiKey> {
        let (now, audit) = (self.clock.now(), self.audit.clone());
        let revoked = self
            .db
            .transaction(move |conn| {
                Box::pin(async move {
                    let revision = store::next_revision(conn).await?;
                    let mut api_key = store::find(conn, &id).await?;
                    if api_key.active {
                        let change = Change::new("api_key", &api_key.id, "revoke");
                        let change = change.from(audited::fields(&api_key));
                        api_key.end(revision, now);
                        store::update(conn, &api_key).await?;
                        audit.record(conn, change.to(audited::fields(&api_key))).await?;
                    }
                    Ok(api_key)
                })
            })
            .await?;
        if !failpoint::bug("revocation_forgotten") {
            self.verifier.forget(&revoked.key_prefix);
        }
        Ok(self.announced(revoked).await)
    }
}

impl ApiKey {
    /// Takes over what a change sets, but for credits and the end, which are not the key's alone to decide.
    pub(super) fn take(&mut self, change: &KeyChange) {
        fn set<T: Clone>(field: &mut T, new: Option<&T>) {
            if let Some(new) = new {
                field.clone_from(new);
            }
        }
        set(&mut self.name, change.name.as_ref());
        set(&mut self.description, change.description.as_ref());
        set(&mut self.scopes.0, change.scopes.as_ref());
        set(&mut self.external_id, change.external_id.as_ref());
        set(&mut self.metadata, change.metadata.as_ref());
        set(&mut self.disabled, change.disabled.as_ref());
        set(&mut self.rules.rate_limits, change.rate_limits.as_ref());
        set(&mut self.rules.allowed_networks, change.allowed_networks.as_ref());
        set(&mut self.rules.denied_networks, change.denied_networks.as_ref());
    }

    /// Notes a change.
    pub(super) fn changed(&mut self, revision: i64, now: Timestamp) {
        self.version += 1;
        self.revision = revision;
        self.updated_at = now;
    }

    /// Ends it.
    pub(super) fn end(&mut self, revision: i64, now: Timestamp) {
        self.active = false;
        self.revoked_at = Some(now);
        self.changed(revision, now);
        announce::add(self, announce::REVOKED);
    }
}
