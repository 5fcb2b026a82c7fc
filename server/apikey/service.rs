//! The use cases of API keys.

use std::sync::Arc;
use std::time::Duration;

use super::key;
use super::store;
pub use super::store::ApiKey;
use super::verifier::Verifier;
use crate::clock::SharedClock;
use crate::db::{Db, revision};
use crate::error::{Error, Kind, Result, Violations};
use crate::id::{IdGenerator, Kind as IdKind};
use crate::scope;
use crate::secret::{SecretText, SharedRandom};

const NAME_LIMIT: usize = 128;
const DESCRIPTION_LIMIT: usize = 1_024;
const SCOPE_LIMIT: usize = 100;
const DEFAULT_DAYS: u32 = 90;
const DAYS_LIMIT: u32 = 365;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A key to be made.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct NewKey {
    pub name: String,
    pub description: String,
    pub scopes: Vec<String>,
    /// 0 means the default.
    pub expires_in_days: i32,
}

/// Who makes a key.
#[derive(Debug, Clone, Copy)]
pub struct Creator<'a> {
    /// The creator's key, or what else did it.
    pub id: &'a str,
    /// What the creator may do, and so may give away.
    pub scopes: &'a [String],
}

/// The use cases.
pub struct ApiKeyService {
    /// The database.
    pub db: Db,
    /// Keeps the keys in memory.
    pub verifier: Arc<Verifier>,
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
        check(&new)?;
        if let Some(beyond) = new.scopes.iter().find(|scope| !scope::any_covers(creator.scopes, scope)) {
            let message = format!("nobody can give away what they do not hold: {beyond}");
            return Err(Error::new(Kind::PermissionDenied, "SCOPE_NOT_HELD", message).with("scope", beyond));
        }
        let text = key::generate(&*self.random);
        let api_key = self.record(creator.id, new, &text);
        let mac = self.verifier.mac(&text);
        let api_key = self
            .db
            .transaction(move |conn| {
                Box::pin(async move {
                    store::insert(conn, &api_key, mac).await?;
                    Ok(api_key)
                })
            })
            .await?;
        Ok((api_key, text))
    }

    /// Makes a key for whoever operates the server and so holds every scope.
    pub async fn create_by_operator(&self, new: NewKey) -> Result<(ApiKey, SecretText)> {
        let scopes = new.scopes.clone();
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
        let text = given.unwrap_or_else(|| key::generate(&*self.random));
        let new = NewKey {
            name: "First admin key".into(),
            description: "Made at the first start".into(),
            scopes: vec!["admin:*".into()],
            expires_in_days: DAYS_LIMIT as i32,
        };
        let (api_key, mac) = (self.record("first start", new, &text), self.verifier.mac(&text));
        let made = self
            .db
            .transaction(move |conn| {
                Box::pin(async move {
                    let first = revision::mark(conn, "first_key").await?;
                    if first {
                        store::insert(conn, &api_key, mac).await?;
                    }
                    Ok(first)
                })
            })
            .await?;
        Ok(made.then_some(text))
    }

    fn record(&self, creator: &str, new: NewKey, text: &SecretText) -> ApiKey {
        let now = self.clock.now();
        let days = u32::try_from(new.expires_in_days).ok().filter(|&days| days > 0).unwrap_or(DEFAULT_DAYS);
        ApiKey {
            id: self.ids.next(IdKind::ApiKey),
            name: new.name,
            description: new.description,
            scopes: new.scopes.into(),
            key_prefix: key::prefix(text.reveal()).to_owned(),
            active: true,
            created_by: creator.to_owned(),
            expires_at: now + DAY * days,
            revoked_at: None,
            created_at: now,
            updated_at: now,
        }
    }

    /// One key.
    pub async fn get(&self, id: &str) -> Result<ApiKey> {
        store::find(&mut self.db.reader().await?, id).await
    }

    /// Keys after an id.
    pub async fn list(&self, after: &str, active: Option<bool>, limit: i64) -> Result<Vec<ApiKey>> {
        store::after(&mut self.db.reader().await?, after, active, self.clock.now(), limit).await
    }

    /// Ends a key: it is refused from the moment that this answers.
    pub async fn revoke(&self, id: String) -> Result<ApiKey> {
        let now = self.clock.now();
        let revoked = self
            .db
            .transaction(move |conn| {
                Box::pin(async move {
                    store::find(conn, &id).await?;
                    store::revoke(conn, &id, now).await?;
                    store::find(conn, &id).await
                })
            })
            .await?;
        self.verifier.forget(&revoked.key_prefix);
        Ok(revoked)
    }
}

fn check(new: &NewKey) -> Result<()> {
    let mut violations = Violations::default();
    let name_ok =
        (1..=NAME_LIMIT).contains(&new.name.chars().count()) && !new.name.chars().any(char::is_control);
    violations.require(name_ok, "name", "must have 1 to 128 characters, without control characters");
    let short = new.description.chars().count() <= DESCRIPTION_LIMIT && !new.description.contains('\0');
    violations.require(short, "description", "must have at most 1024 characters");
    violations.require((1..=SCOPE_LIMIT).contains(&new.scopes.len()), "scopes", "must have 1 to 100 entries");
    for (index, scope) in new.scopes.iter().enumerate() {
        violations.check(&format!("scopes[{index}]"), scope::check(scope));
    }
    let days_ok = (0..=DAYS_LIMIT as i32).contains(&new.expires_in_days);
    violations.require(days_ok, "expires_in_days", "must be 1 to 365, or 0 for 90");
    violations.finish()
}
