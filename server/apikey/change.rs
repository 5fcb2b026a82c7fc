//! Changes of a key, and its replacement by another one.

use std::time::Duration;

use super::audited;
use super::credits;
use super::key;
use super::model::KeyChange;
use super::service::{ApiKeyService, Creator, DAY};
use super::store::{self, ApiKey};
use crate::audit::Change;
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result, Violations};
use crate::secret::SecretText;

/// How long a replaced key works on when nobody says how long.
const OVERLAP: Duration = DAY;
const LONGEST_OVERLAP: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How many replacements are followed from one key to another.
const REPLACEMENTS: usize = 8;

/// A key that is to be replaced.
#[derive(Debug, Clone, Default)]
pub struct Rotation {
    /// The old one.
    pub api_key_id: String,
    /// How long it works on; `None` means the default.
    pub overlap: Option<Duration>,
    /// How long the new one works; 0 means as long as the old one.
    pub expires_in_days: i32,
    /// The version that the old one must have.
    pub version: Option<i64>,
}

impl ApiKeyService {
    /// Changes a key.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when it could do something then that the caller may not, `FAILED_PRECONDITION` when it was
    /// revoked, `ABORTED` when it has another version.
    pub async fn update(&self, creator: Creator<'_>, id: String, change: KeyChange) -> Result<ApiKey> {
        let mut violations = Violations::default();
        change.check(&mut violations);
        violations.finish()?;
        let (now, max_days) = (self.clock.now(), self.policy.load().max_days);
        let scopes = creator.scopes.to_vec();
        let (creator, audit) = (creator.id.to_owned(), self.audit.clone());
        let (api_key, sharing) = self
            .db
            .transaction(move |conn| {
                Box::pin(async move {
                    let revision = store::next_revision(conn).await?;
                    let mut api_key = store::find(conn, &id).await?;
                    let before = audited::fields(&api_key);
                    is_version(&api_key, change.version)?;
                    must_not_have_ended(&api_key)?;
                    if let Some(expires_at) = change.expires_at {
                        set_end(&mut api_key, expires_at, now, max_days)?;
                    }
                    api_key.take(&change);
                    if change.may_widen() {
                        let creator = Creator { id: &creator, scopes: &scopes };
                        creator.may_give(&api_key.scopes.0)?;
                    }
                    let sharing = match change.credits {
                        Some(new) => credits::set(conn, &mut api_key, new, revision, now).await?,
                        None => Vec::new(),
                    };
                    api_key.changed(revision, now);
                    store::update(conn, &api_key).await?;
                    let entry = Change::new("api_key", &api_key.id, "update").by(creator).from(before);
                    let after = audited::fields_with(&api_key, change.credits.flatten());
                    audit.record(conn, entry.to(after)).await?;
                    Ok((api_key, sharing))
                })
            })
            .await?;
        self.verifier.forget(&api_key.key_prefix);
        // What this node took of the credits before is worth nothing now, also for the other keys that share them.
        sharing.iter().for_each(|prefix| self.verifier.forget(prefix));
        Ok(api_key)
    }

    /// Makes a key that replaces another one; answers the new one with its text, and the old one.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when the caller does not hold every scope of the key, `FAILED_PRECONDITION` when it has ended or
    /// was replaced before, `ABORTED` when it has another version.
    pub async fn rotate(
        &self,
        creator: Creator<'_>,
        rotation: Rotation,
    ) -> Result<(ApiKey, SecretText, ApiKey)> {
        let Rotation { api_key_id, overlap, expires_in_days, version } = rotation;
        let policy = **self.policy.load();
        let mut violations = Violations::default();
        let overlap = overlap.unwrap_or(OVERLAP);
        violations.require(overlap <= LONGEST_OVERLAP, "overlap", "must be at most 365 days");
        let days = violations.check("expires_in_days", policy.days(expires_in_days));
        violations.finish()?;
        let days = days.filter(|_| expires_in_days > 0);
        let old = self.get(&api_key_id).await?;
        creator.may_give(&old.scopes.0)?;
        let text = key::generate(old.kind, &*self.random);
        let fresh = self.record(creator.id, old.kind, policy.max_days, &text);
        let (mac, now) = (self.verifier.mac(&text), self.clock.now());
        let (scopes, creator, audit) = (creator.scopes.to_vec(), creator.id.to_owned(), self.audit.clone());
        let (new, old) = self
            .db
            .transaction(move |conn| {
                Box::pin(async move {
                    let revision = store::next_revision(conn).await?;
                    let mut old = store::find(conn, &api_key_id).await?;
                    let before = audited::fields(&old);
                    is_version(&old, version)?;
                    must_not_have_ended(&old)?;
                    if old.expires_at <= now {
                        return Err(ended(&old));
                    }
                    if let Some(by) = &old.replaced_by {
                        let message = format!("{by} replaces the key already");
                        return Err(Error::new(Kind::FailedPrecondition, "KEY_REPLACED", message)
                            .with("replaced_by", by));
                    }
                    // Again, because somebody may have given it more since.
                    Creator { id: &creator, scopes: &scopes }.may_give(&old.scopes.0)?;
                    let life = days.map_or(old.expires_at.since(old.created_at), |days| DAY * days);
                    let mut new = ApiKey {
                        name: old.name.clone(),
                        description: old.description.clone(),
                        scopes: old.scopes.clone(),
                        expires_at: now + life.min(DAY * policy.max_days),
                        external_id: old.external_id.clone(),
                        metadata: old.metadata.clone(),
                        disabled: old.disabled,
                        rules: old.rules.clone(),
                        credits_id: old.credits_id.clone(),
                        replaces: Some(old.id.clone()),
                        revision,
                        ..fresh
                    };
                    super::announce::add(&mut new, super::announce::CREATED);
                    old.replaced_by = Some(new.id.clone());
                    if overlap.is_zero() {
                        old.end(revision, now);
                    } else {
                        old.expires_at = old.expires_at.min(now + overlap);
                        old.changed(revision, now);
                    }
                    store::insert(conn, &new, mac).await?;
                    store::update(conn, &old).await?;
                    let mut after = audited::fields(&old);
                    after.insert("replacement".into(), audited::fields(&new).into());
                    let entry = Change::new("api_key", &old.id, "rotate").by(creator);
                    audit.record(conn, entry.from(before).to(after)).await?;
                    Ok((new, old))
                })
            })
            .await?;
        self.verifier.forget(&old.key_prefix);
        self.verifier.forget(&new.key_prefix);
        Ok((self.announced(new).await, text, self.announced(old).await))
    }
}

impl ApiKeyService {
    /// Whether a key was replaced by another one, directly or in several steps.
    ///
    /// # Errors
    /// When the database can not be asked.
    pub async fn is_replaced_by(&self, id: &str, by: &str) -> Result<bool> {
        let mut conn = self.db.reader().await?;
        let mut id = id.to_owned();
        for _ in 0..REPLACEMENTS {
            id = match store::find(&mut conn, &id).await {
                Ok(ApiKey { replaced_by: Some(next), .. }) if next == by => return Ok(true),
                Ok(ApiKey { replaced_by: Some(next), .. }) => next,
                Ok(_) => return Ok(false),
                Err(error) if error.kind() == Kind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            };
        }
        Ok(false)
    }
}

fn is_version(api_key: &ApiKey, version: Option<i64>) -> Result<()> {
    match version {
        Some(version) if version != api_key.version => Err(Error::etag_mismatch(api_key.version.to_string())),
        _ => Ok(()),
    }
}

fn must_not_have_ended(api_key: &ApiKey) -> Result<()> {
    if api_key.active { Ok(()) } else { Err(ended(api_key)) }
}

fn ended(api_key: &ApiKey) -> Error {
    let message = "the key has ended: make another one";
    Error::new(Kind::FailedPrecondition, "KEY_ENDED", message).with("api_key_id", &api_key.id)
}

fn set_end(api_key: &mut ApiKey, end: Option<Timestamp>, now: Timestamp, max_days: u32) -> Result<()> {
    let Some(end) = end else {
        return Err(Error::field("expire_time", "must be set: every key ends"));
    };
    if end <= now || end > now + DAY * max_days {
        let what = format!("must be in the future, and at most {max_days} days from now");
        return Err(Error::field("expire_time", what));
    }
    if api_key.replaced_by.is_some() && end > api_key.expires_at {
        return Err(Error::field("expire_time", "must not be later than it is: the key is replaced"));
    }
    api_key.expires_at = end;
    api_key.expiry_notice = None;
    Ok(())
}
