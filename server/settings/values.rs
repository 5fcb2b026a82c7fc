//! The values of all settings at one revision.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::catalogue::CATALOGUE;
use super::definition::Definition;
use super::given::{Pin, Pins};
use super::store::SettingRow;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::secret::{Place, Sealer, SecretText};

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The catalogue.
    Default,
    /// The database.
    Stored,
    /// A flag of the process.
    Flag,
    /// A variable of the process.
    Environment,
    /// A file that a variable of the process names.
    EnvironmentFile,
    /// The configuration file.
    ConfigurationFile,
}

impl Origin {
    /// Whether the value was given to the process, so that nobody can change it while the process runs.
    pub fn is_pinned(self) -> bool {
        !matches!(self, Self::Default | Self::Stored)
    }

    /// Its name, for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Stored => "stored",
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::EnvironmentFile => "environment_file",
            Self::ConfigurationFile => "configuration_file",
        }
    }
}

/// One setting's value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The value; `Null` for a secret.
    pub value: Value,
    /// A secret's text.
    pub secret: SecretText,
    /// Where it comes from.
    pub origin: Origin,
    /// Which flag, variable, or file and line pins it; empty when nothing does.
    pub source: String,
    /// When it was stored.
    pub updated_at: Option<Timestamp>,
}

/// All values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Values {
    /// Which revision of the database they are.
    pub revision: i64,
    entries: BTreeMap<&'static str, Entry>,
}

impl Values {
    /// Resolves every setting: what the process was given, then the database, then the default.
    pub(super) fn resolve(
        revision: i64,
        pins: &Pins,
        rows: Vec<SettingRow>,
        sealer: &Sealer,
    ) -> Result<Self> {
        let mut stored: HashMap<String, SettingRow> =
            rows.into_iter().map(|row| (row.key.clone(), row)).collect();
        let mut entries = BTreeMap::new();
        for definition in CATALOGUE.iter() {
            let row = stored.remove(definition.key);
            let entry = match pins.get(definition.key) {
                Some(Pin { value, origin, source }) => {
                    Entry { source: source.clone(), ..entry(definition, value.clone(), *origin, None) }
                }
                None => match row {
                    Some(row) => of_row(definition, &row, sealer)?,
                    None => entry(definition, definition.default_value(), Origin::Default, None),
                },
            };
            entries.insert(definition.key, entry);
        }
        Ok(Self { revision, entries })
    }

    /// Puts a checked value, or the default, in place of the one that is set.
    pub(super) fn set(&mut self, definition: &Definition, value: Option<Value>) {
        let entry = match value {
            Some(value) => entry(definition, value, Origin::Stored, None),
            None => entry(definition, definition.default_value(), Origin::Default, None),
        };
        self.entries.insert(definition.key, entry);
    }

    /// The defaults, but for these.
    #[cfg(test)]
    pub fn of(new: &[(String, Value)]) -> Self {
        let sealer =
            Sealer::new(&[7; crate::secret::KEY_LENGTH], std::sync::Arc::new(crate::secret::SystemRandom));
        let mut values = Self::resolve(0, &Pins::new(), Vec::new(), &sealer).expect("defaults are valid");
        for (key, value) in new {
            let definition = super::definition::find(key).expect("a setting");
            assert_eq!(definition.check(value), Ok(()), "{key}");
            values.set(definition, Some(value.clone()));
        }
        values
    }

    /// One value.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// A text.
    pub fn text(&self, key: &str) -> &str {
        self.entries.get(key).and_then(|entry| entry.value.as_str()).unwrap_or_default()
    }

    /// A number.
    pub fn integer(&self, key: &str) -> i64 {
        self.entries.get(key).and_then(|entry| entry.value.as_i64()).unwrap_or_default()
    }

    /// Whether it is true.
    pub fn boolean(&self, key: &str) -> bool {
        self.entries.get(key).and_then(|entry| entry.value.as_bool()).unwrap_or_default()
    }

    /// Whether nobody set it.
    pub fn is_default(&self, key: &str) -> bool {
        self.entries.get(key).is_none_or(|entry| entry.origin == Origin::Default)
    }

    /// A secret.
    pub fn secret(&self, key: &str) -> SecretText {
        self.entries.get(key).map(|entry| entry.secret.clone()).unwrap_or_default()
    }
}

fn entry(definition: &Definition, value: Value, origin: Origin, updated_at: Option<Timestamp>) -> Entry {
    if definition.kind.is_secret() {
        let secret = SecretText::new(value.as_str().unwrap_or_default());
        return Entry { value: Value::Null, secret, origin, source: String::new(), updated_at };
    }
    Entry { value, secret: SecretText::default(), origin, source: String::new(), updated_at }
}

fn of_row(definition: &Definition, row: &SettingRow, sealer: &Sealer) -> Result<Entry> {
    let updated_at = Some(row.updated_at);
    if let Some(sealed) = &row.sealed {
        let secret = sealer.open_text(place(definition.key), sealed)?;
        return Ok(Entry {
            value: Value::Null,
            secret,
            origin: Origin::Stored,
            source: String::new(),
            updated_at,
        });
    }
    let value: Value =
        serde_json::from_str(row.value.as_deref().unwrap_or("null")).map_err(Error::internal)?;
    if definition.check(&value).is_err() {
        // Written by another version: the default is safer than a value that nothing expects.
        tracing::warn!(setting = definition.key, "the stored value is not valid and is ignored");
        return Ok(entry(definition, definition.default_value(), Origin::Default, None));
    }
    Ok(entry(definition, value, Origin::Stored, updated_at))
}

/// Where a secret setting is kept.
pub(super) fn place(key: &str) -> Place<'_> {
    Place { table: "settings", column: "sealed", row: key }
}
