//! Changes to settings: all of one or none, judged and kept in one transaction, each a revision of its own.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::definition::{self, Definition};
use super::given::{Pin, Pins};
use super::history::{self, Action, Change, Fingerprints, Revision};
use super::service::{CallerCheck, Check, SettingsService};
use super::store::{self, SettingRow};
use super::values::{self, Values};
use crate::audit;
use crate::audit::Recorder;
use crate::clock::Timestamp;
use crate::db::{Conn, keyring, revision};
use crate::error::{Error, Kind, Result, Violations};
use crate::secret::{Sealer, SecretText};

const KEY_LIMIT: usize = 100;
const REASON_LIMIT: usize = 500;

/// Who makes a change, why, and under which condition.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// The key that makes it.
    pub actor: String,
    /// The address that it comes from, where it comes from the network.
    pub address: Option<IpAddr>,
    /// Why.
    pub reason: String,
    /// The revision that the settings must be at.
    pub expected: Option<i64>,
    /// Whether to check everything and keep nothing.
    pub validate_only: bool,
}

impl Terms {
    pub(super) fn check(&self, violations: &mut Violations) {
        let short = self.reason.chars().count() <= REASON_LIMIT && !self.reason.contains('\0');
        violations.require(short, "reason", "must have at most 500 characters, without NUL");
    }
}

/// What settings are to be: a value, or `None` for the default.
pub(super) type Wanted = BTreeMap<&'static str, Option<Value>>;
/// Says what settings are to be, in the transaction, told the revision that they are at.
type Plan = Box<dyn for<'c> FnOnce(&'c mut Conn, i64) -> BoxFuture<'c, Result<Wanted>> + Send>;
/// The field of the request that a setting's value stands in.
pub(super) type Field = fn(&str) -> String;

/// What decides about changes.
pub(super) struct Rules {
    pub pins: Pins,
    pub sealer: Sealer,
    pub fingerprints: Fingerprints,
    pub checks: Mutex<Vec<Check>>,
    pub caller_checks: Mutex<Vec<CallerCheck>>,
    pub audit: Recorder,
}

impl SettingsService {
    /// Changes settings, all of them or none.  Answers the values after it, or as they would be.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with every bad value, `FAILED_PRECONDITION` for a pinned setting, `ABORTED` when they are not at
    /// the expected revision.
    pub async fn update(&self, new: BTreeMap<String, Value>, terms: Terms) -> Result<Arc<Values>> {
        let mut violations = Violations::default();
        violations.require((1..=KEY_LIMIT).contains(&new.len()), "values", "must have 1 to 100 entries");
        terms.check(&mut violations);
        let wanted = checked(new, &mut violations, |key| format!("values[{key}]"));
        violations.finish()?;
        self.apply(Action::Update, terms, |key| format!("values[{key}]"), fixed(wanted)).await
    }

    /// Puts settings back to their defaults.
    ///
    /// # Errors
    /// As [`SettingsService::update`].
    pub async fn reset(&self, keys: &[String], terms: Terms) -> Result<Arc<Values>> {
        let mut violations = Violations::default();
        violations.require((1..=KEY_LIMIT).contains(&keys.len()), "keys", "must have 1 to 100 entries");
        terms.check(&mut violations);
        let known = known(keys, &mut violations);
        violations.finish()?;
        let wanted = known.into_iter().map(|key| (key, None)).collect();
        self.apply(Action::Reset, terms, |key| format!("keys[{key}]"), fixed(wanted)).await
    }

    /// Puts settings back to what they were at a revision: all of them, or the ones of these keys.
    ///
    /// # Errors
    /// As [`SettingsService::update`]; `OUT_OF_RANGE` when the revision is forgotten; `FAILED_PRECONDITION` for a secret
    /// that was another one then, because its value is not kept.
    pub async fn rollback(&self, to: i64, keys: &[String], terms: Terms) -> Result<Arc<Values>> {
        let mut violations = Violations::default();
        violations.require(keys.len() <= KEY_LIMIT, "keys", "must have at most 100 entries");
        terms.check(&mut violations);
        let known = known(keys, &mut violations);
        violations.finish()?;
        let plan: Plan = Box::new(move |conn, current| {
            Box::pin(async move {
                if to > current {
                    return Err(Error::field("revision", format!("is newer than the newest one, {current}")));
                }
                history::require_known(conn, to, current).await?;
                let mut undo = history::since(conn, to).await?;
                undo.retain(|key, _| known.is_empty() || known.contains(&key.as_str()));
                undone(undo)
            })
        });
        self.apply(Action::Rollback, terms, |key| format!("settings[{key}]"), plan).await
    }

    pub(super) async fn apply(
        &self,
        action: Action,
        terms: Terms,
        field: Field,
        plan: Plan,
    ) -> Result<Arc<Values>> {
        let (rules, now, trial) = (Arc::clone(&self.rules), self.clock.now(), terms.validate_only);
        let values = revision::change_if(&self.db, revision::SETTINGS, move |conn, current| {
            Box::pin(async move {
                if terms.expected.is_some_and(|expected| expected != current) {
                    return Err(Error::etag_mismatch(current.to_string()));
                }
                keyring::refresh(conn, &rules.sealer).await?;
                let wanted = plan(conn, current).await?;
                rules.make(conn, current, action, terms, field, wanted, now).await
            })
        })
        .await?;
        if trial {
            return Ok(Arc::new(values));
        }
        // The change is made: that it can not be read at once must not be told as if it were not.
        if let Err(error) = self.reload().await {
            tracing::warn!(%error, "settings were changed and could not be read");
        }
        Ok(self.values())
    }
}

/// A setting that is to be stored otherwise than it is: its stored value and the new one.
struct Difference {
    definition: &'static Definition,
    old: Option<Stored>,
    new: Option<Stored>,
}

/// A stored value: a secret's text, or any other value as JSON.
#[derive(PartialEq)]
pub(super) enum Stored {
    Secret(SecretText),
    Plain(Value),
}

impl Stored {
    fn of(definition: &Definition, value: &Value) -> Self {
        match definition.kind.is_secret() {
            true => Self::Secret(SecretText::new(value.as_str().unwrap_or_default())),
            false => Self::Plain(value.clone()),
        }
    }
}

impl Rules {
    /// Makes a change in a transaction that keeps others out; answers the values after it, and whether there is a new revision.
    #[expect(clippy::too_many_arguments, reason = "one place, and each is another thing")]
    pub(super) async fn make(
        &self,
        conn: &mut Conn,
        current: i64,
        action: Action,
        terms: Terms,
        field: Field,
        wanted: Wanted,
        now: Timestamp,
    ) -> Result<(Values, bool)> {
        self.require_free(&wanted)?;
        let rows = store::all(conn).await?;
        let differences = self.differences(&rows, &wanted)?;
        let mut after = Values::resolve(current, &self.pins, rows, &self.sealer)?;
        for (&key, value) in &wanted {
            definition::find(key).into_iter().for_each(|known| after.set(known, value.clone()));
        }
        let keys = wanted.into_keys().collect::<Vec<_>>();
        self.judge(&after, field, &keys)?;
        self.judge_caller(&after, terms.address, field, &keys)?;
        let changed = !terms.validate_only && !differences.is_empty();
        if changed {
            let revision = Revision {
                number: current + 1,
                action: Some(action),
                actor: terms.actor,
                reason: terms.reason,
                created_at: now,
                changes: Vec::new(),
            };
            self.keep(conn, revision, differences).await?;
        }
        Ok((after, changed))
    }

    fn require_free(&self, wanted: &Wanted) -> Result<()> {
        let pinned = wanted.keys().find_map(|&key| Some((key, self.pins.get(key)?)));
        let Some((key, Pin { origin, source, .. })) = pinned else {
            return Ok(());
        };
        let message =
            format!("the setting {key} is pinned by {source}: it can be changed there, and at a start");
        Err(Error::new(Kind::FailedPrecondition, "SETTING_PINNED", message)
            .with("key", key)
            .with("origin", origin.name())
            .with("source", source))
    }

    /// Asks the checks about values, and tells what they say about these settings: what was wrong before is not this
    /// change's fault.
    pub(super) fn judge(&self, values: &Values, field: Field, keys: &[&'static str]) -> Result<()> {
        let mut violations = Violations::default();
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, wrong) in checks.iter().flat_map(|check| check(values)) {
            if keys.contains(&key) {
                violations.add(field(key), wrong);
            }
        }
        violations.finish()
    }

    /// Asks the checks about values and the one who wants them, and tells what they say about these settings.
    fn judge_caller(
        &self,
        values: &Values,
        address: Option<IpAddr>,
        field: Field,
        keys: &[&'static str],
    ) -> Result<()> {
        let Some(address) = address else { return Ok(()) };
        let mut violations = Violations::default();
        let checks = self.caller_checks.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, wrong) in checks.iter().flat_map(|check| check(values, address)) {
            if keys.contains(&key) {
                violations.add(field(key), wrong);
            }
        }
        violations.finish()
    }

    fn differences(&self, rows: &[SettingRow], wanted: &Wanted) -> Result<Vec<Difference>> {
        let rows: HashMap<&str, &SettingRow> = rows.iter().map(|row| (row.key.as_str(), row)).collect();
        let mut differences = Vec::new();
        for (&key, value) in wanted {
            let Some(definition) = definition::find(key) else { continue };
            let old = rows.get(key).map(|row| self.stored(definition, row)).transpose()?;
            let new = value.as_ref().map(|value| Stored::of(definition, value));
            if old != new {
                differences.push(Difference { definition, old, new });
            }
        }
        Ok(differences)
    }

    /// The value of a row.
    pub(super) fn stored(&self, definition: &Definition, row: &SettingRow) -> Result<Stored> {
        match &row.sealed {
            Some(sealed) => self.sealer.open_text(values::place(definition.key), sealed).map(Stored::Secret),
            None => {
                let value = serde_json::from_str(row.value.as_deref().unwrap_or("null"));
                value.map(Stored::Plain).map_err(Error::internal)
            }
        }
    }

    async fn keep(
        &self,
        conn: &mut Conn,
        mut revision: Revision,
        differences: Vec<Difference>,
    ) -> Result<()> {
        for Difference { definition, old, new } in differences {
            let shown = |value: &Stored| match value {
                Stored::Secret(text) => self.fingerprints.of(definition.key, text.reveal()),
                Stored::Plain(value) => value.clone(),
            };
            revision.changes.push(Change {
                key: definition.key.to_owned(),
                secret: definition.kind.is_secret(),
                old: old.as_ref().map(shown),
                new: new.as_ref().map(shown),
            });
            match new {
                Some(new) => {
                    let row = self.row(definition, new, &revision.actor, revision.created_at)?;
                    store::put(conn, row).await?;
                }
                None => store::delete(conn, definition.key).await?,
            }
        }
        let entry = audited(&revision);
        history::record(conn, revision).await?;
        self.audit.record(conn, entry).await
    }

    fn row(&self, definition: &Definition, value: Stored, by: &str, now: Timestamp) -> Result<SettingRow> {
        let (value, sealed) = match value {
            Stored::Plain(value) => (Some(value.to_string()), None),
            Stored::Secret(text) => {
                let sealed = self.sealer.seal(values::place(definition.key), text.reveal().as_bytes())?;
                (None, Some(sealed))
            }
        };
        let (key, updated_by) = (definition.key.to_owned(), by.to_owned());
        Ok(SettingRow { key, value, sealed, updated_by, updated_at: now })
    }
}

/// A revision as the audit log tells it.
fn audited(revision: &Revision) -> audit::Change {
    let told = |side: fn(&Change) -> &Option<Value>| {
        let shown = |change: &Change| Some((change.key.clone(), side(change).clone()?));
        revision.changes.iter().filter_map(shown).collect()
    };
    let verb = revision.action.map(Action::word).unwrap_or_default();
    let change = audit::Change::new("settings", "", verb).because(revision.reason.as_str());
    change.by(revision.actor.as_str()).from(told(|change| &change.old)).to(told(|change| &change.new))
}

pub(super) fn fixed(wanted: Wanted) -> Plan {
    Box::new(move |_, _| Box::pin(async move { Ok(wanted) }))
}

/// The values that are valid; notes the others.
pub(super) fn checked(
    new: BTreeMap<String, Value>,
    violations: &mut Violations,
    field: impl Fn(&str) -> String,
) -> Wanted {
    let mut wanted = Wanted::new();
    for (key, value) in new {
        match definition::find(&key) {
            None => violations.add(field(&key), "is not a setting"),
            Some(definition) => {
                if violations.check(&field(&key), definition.check(&value)).is_some() {
                    wanted.insert(definition.key, Some(value));
                }
            }
        }
    }
    wanted
}

/// The keys of settings; notes the others.
fn known(keys: &[String], violations: &mut Violations) -> Vec<&'static str> {
    let mut known = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        match definition::find(key) {
            Some(definition) => known.push(definition.key),
            None => violations.add(format!("keys[{index}]"), "is not a setting"),
        }
    }
    known
}

/// What puts settings back to what they were before their first change.
fn undone(undo: BTreeMap<String, (Change, Change)>) -> Result<Wanted> {
    let (mut wanted, mut lost, mut violations) = (Wanted::new(), Vec::new(), Violations::default());
    for (key, (first, last)) in undo {
        // A setting that this version does not have has no value to put back.
        let Some(definition) = definition::find(&key).filter(|_| first.old != last.new) else { continue };
        let empty = first.old.as_ref().is_none_or(|old| old == "");
        if first.secret && !empty {
            lost.push(key);
            continue;
        }
        if let Some(old) = &first.old {
            violations.check(&format!("settings[{key}]"), definition.check(old));
        }
        wanted.insert(definition.key, first.old);
    }
    violations.finish()?;
    if lost.is_empty() {
        return Ok(wanted);
    }
    let keys = lost.join(", ");
    let message = format!(
        "of secrets no earlier values are kept, and these were others then: {keys}; name the other settings in keys to \
         put only them back"
    );
    Err(Error::new(Kind::FailedPrecondition, "SECRET_NOT_KEPT", message).with("keys", keys))
}
