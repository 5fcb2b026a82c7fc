//! The use cases of settings.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde_json::Value;

use super::definition;
use super::store::{self, SettingRow};
use super::values::{self, Origin, Values};
use crate::clock::SharedClock;
use crate::db::{Db, revision};
use crate::error::{Error, Kind, Result, Violations};
use crate::secret::Sealer;

const KEY_LIMIT: usize = 100;

/// The use cases.
pub struct SettingsService {
    db: Db,
    sealer: Sealer,
    clock: SharedClock,
    pinned: HashMap<&'static str, Value>,
    values: ArcSwap<Values>,
    followers: Mutex<Vec<Follower>>,
    checks: Mutex<Vec<Check>>,
}

/// Takes new values.
type Follower = Box<dyn Fn(&Values) + Send>;
/// Says what is wrong with new values, by key, before they are kept.
type Check = Box<dyn Fn(&Values) -> Vec<(&'static str, String)> + Send>;

/// What to do with a setting.
enum Write {
    Put(SettingRow),
    Reset(&'static str),
}

impl SettingsService {
    /// Reads the settings; `environment` pins some of them.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a variable that has no valid value.
    pub async fn open(
        db: Db,
        sealer: Sealer,
        clock: SharedClock,
        environment: &HashMap<String, String>,
    ) -> Result<Self> {
        let pinned = values::pinned(environment)?;
        let service = Self {
            db,
            sealer,
            clock,
            pinned,
            values: ArcSwap::default(),
            followers: Mutex::default(),
            checks: Mutex::default(),
        };
        service.reload().await?;
        Ok(service)
    }

    /// The values now.
    pub fn values(&self) -> Arc<Values> {
        self.values.load_full()
    }

    /// Gives the values to `follower`, now and whenever they change, before the call that changes them returns.
    pub fn follow(&self, follower: impl Fn(&Values) + Send + 'static) {
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        follower(&self.values.load());
        followers.push(Box::new(follower));
    }

    /// Asks `check` about every change before it is kept: what the catalogue can not know, such as whether a key can be
    /// used.
    pub fn check_with(&self, check: impl Fn(&Values) -> Vec<(&'static str, String)> + Send + 'static) {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(check));
    }

    /// The values as they would be with these changes, which are checked and not kept.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with every bad one, as `field[key]`.
    pub fn preview(&self, field: &str, new: BTreeMap<String, Value>) -> Result<Values> {
        let mut violations = Violations::default();
        let mut values = Values::clone(&self.values());
        let mut keys = Vec::new();
        for (key, value) in new {
            match definition::find(&key) {
                None => violations.add(format!("{field}[{key}]"), "is not a setting"),
                Some(definition) => {
                    if violations.check(&format!("{field}[{key}]"), definition.check(&value)).is_some() {
                        values.set(definition, value);
                        keys.push(definition.key);
                    }
                }
            }
        }
        violations.finish()?;
        let mut violations = Violations::default();
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        // What was wrong before is not this change's fault.
        for (key, wrong) in
            checks.iter().flat_map(|check| check(&values)).filter(|(key, _)| keys.contains(key))
        {
            violations.add(format!("{field}[{key}]"), wrong);
        }
        violations.finish()?;
        Ok(values)
    }

    /// Reads the settings anew, if the database has newer ones.
    pub async fn reload(&self) -> Result<()> {
        let mut conn = self.db.reader().await?;
        // The revision first: settings that change in between are read again, and never missed.
        let revision = revision::current(&mut conn, revision::SETTINGS).await?;
        if self.values.load().revision == revision {
            return Ok(());
        }
        let rows = store::all(&mut conn).await?;
        let values = Values::resolve(revision, &self.pinned, rows, &self.sealer)?;
        // Two reloads may overlap; the older one must not win.
        let followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        if values.revision > self.values.load().revision {
            followers.iter().for_each(|follower| follower(&values));
            self.values.store(Arc::new(values));
        }
        Ok(())
    }

    /// Changes settings, all of them or none.
    pub async fn update(
        &self,
        by: &str,
        new: BTreeMap<String, Value>,
        revision: Option<i64>,
        validate_only: bool,
    ) -> Result<Arc<Values>> {
        let mut violations = Violations::default();
        violations.require((1..=KEY_LIMIT).contains(&new.len()), "values", "must have 1 to 100 entries");
        let checked = new.clone();
        let mut writes = Vec::new();
        for (key, value) in new {
            let field = format!("values[{key}]");
            let Some(definition) = definition::find(&key) else {
                violations.add(field, "is not a setting");
                continue;
            };
            self.require_free(definition.key)?;
            if violations.check(&field, definition.check(&value)).is_some() {
                writes.push(self.row(definition, &value, by)?);
            }
        }
        violations.finish()?;
        self.preview("values", checked)?;
        if validate_only {
            return Ok(self.values());
        }
        self.write(writes, revision).await
    }

    /// Puts settings back to their defaults.
    pub async fn reset(&self, keys: &[String], revision: Option<i64>) -> Result<Arc<Values>> {
        let mut violations = Violations::default();
        violations.require((1..=KEY_LIMIT).contains(&keys.len()), "keys", "must have 1 to 100 entries");
        let mut writes = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            match definition::find(key) {
                Some(definition) => {
                    self.require_free(definition.key)?;
                    writes.push(Write::Reset(definition.key));
                }
                None => violations.add(format!("keys[{index}]"), "is not a setting"),
            }
        }
        violations.finish()?;
        self.write(writes, revision).await
    }

    fn require_free(&self, key: &'static str) -> Result<()> {
        let origin = self.values().entry(key).map(|entry| entry.origin);
        if origin != Some(Origin::Environment) {
            return Ok(());
        }
        let message = format!("the setting {key} is pinned by the server's environment");
        Err(Error::new(Kind::FailedPrecondition, "SETTING_PINNED", message).with("key", key))
    }

    fn row(&self, definition: &definition::Definition, value: &Value, by: &str) -> Result<Write> {
        let (plain, sealed) = if definition.kind.is_secret() {
            let text = value.as_str().unwrap_or_default();
            (None, Some(self.sealer.seal(values::place(definition.key), text.as_bytes())?))
        } else {
            (Some(value.to_string()), None)
        };
        Ok(Write::Put(SettingRow {
            key: definition.key.to_owned(),
            value: plain,
            sealed,
            updated_by: by.to_owned(),
            updated_at: self.clock.now(),
        }))
    }

    async fn write(&self, writes: Vec<Write>, expected: Option<i64>) -> Result<Arc<Values>> {
        revision::change(&self.db, revision::SETTINGS, move |conn| {
            Box::pin(async move {
                let current = revision::current(conn, revision::SETTINGS).await?;
                if expected.is_some_and(|expected| expected != current) {
                    return Err(Error::etag_mismatch(current.to_string()));
                }
                for write in writes {
                    match write {
                        Write::Put(row) => store::put(conn, row).await?,
                        Write::Reset(key) => store::delete(conn, key).await?,
                    }
                }
                Ok(())
            })
        })
        .await?;
        // The change is made: that it can not be read at once must not be told as if it were not.
        if let Err(error) = self.reload().await {
            tracing::warn!(%error, "settings were changed and could not be read");
        }
        Ok(self.values())
    }
}
