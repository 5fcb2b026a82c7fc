//! Settings as a document: to keep a copy, and to bring them to another server.
//!
//! A document has what is stored, and not what pins settings or is a default: both belong to the server.  Secrets are left
//! out, or sealed under a passphrase.  What is sealed is bound to the rest of the document, so that nobody can put the
//! password of one mail server beside the name of another.

mod part;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::catalogue::CATALOGUE;
use super::change::{Rules, Stored, Terms, Wanted, checked, fixed};
use super::definition;
use super::history::Action;
use super::service::SettingsService;
use super::store::{self, SettingRow};
use super::values::Values;
use crate::db::revision;
use crate::error::{Error, Result, Violations};
use crate::portable::{Passphrases, Sealed};

const FORMAT: &str = "switchboard.settings";
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    version: u32,
    exported_at: String,
    revision: i64,
    settings: BTreeMap<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secrets: Option<Sealed>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    omitted_secrets: Vec<String>,
}

/// What an export answers.
#[derive(Debug)]
pub struct Exported {
    /// The document, as JSON.
    pub document: String,
    /// The revision that it is of.
    pub revision: i64,
    /// The secrets that are set and not in it.
    pub omitted_secrets: Vec<String>,
}

/// How to import.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What the secrets are sealed under.
    pub passphrase: String,
    /// Whether to leave the secrets as they are.
    pub skip_secrets: bool,
    /// Whether to leave pinned settings as they are, instead of refusing all.
    pub skip_pinned: bool,
    /// Whether settings that the document does not have go back to their defaults.
    pub reset_others: bool,
}

impl Rules {
    /// What rows have that an import would take: not what this version does not know, and no empty secrets.
    fn portable(&self, rows: Vec<SettingRow>) -> Result<Vec<(String, Stored)>> {
        let mut stored = Vec::new();
        for row in rows {
            let Some(definition) = definition::find(&row.key) else { continue };
            let value = self.stored(definition, &row)?;
            let fits = match &value {
                Stored::Plain(value) => definition.check(value).is_ok(),
                Stored::Secret(text) => !text.reveal().is_empty(),
            };
            if fits {
                stored.push((row.key, value));
            }
        }
        Ok(stored)
    }
}

impl SettingsService {
    /// What is stored, as a document; the secrets sealed under the passphrase, or left out without one.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a passphrase that is too short.
    pub async fn export(&self, passphrase: &str) -> Result<Exported> {
        let sealing = Passphrases::is_given(passphrase)?;
        let (revision, rows) = self.snapshot().await?;
        let (mut settings, mut secrets) = (BTreeMap::new(), BTreeMap::new());
        for (key, value) in self.rules.portable(rows)? {
            match value {
                Stored::Plain(value) => drop(settings.insert(key, value)),
                Stored::Secret(text) => drop(secrets.insert(key, text)),
            }
        }
        let mut document = Document {
            format: FORMAT.into(),
            version: VERSION,
            exported_at: self.clock.now().to_string(),
            revision,
            settings,
            secrets: None,
            omitted_secrets: Vec::new(),
        };
        if sealing && !secrets.is_empty() {
            let texts: BTreeMap<&String, &str> =
                secrets.iter().map(|(key, text)| (key, text.reveal())).collect();
            let plain = zeroize::Zeroizing::new(serde_json::to_vec(&texts).map_err(Error::internal)?);
            let context = context(&document)?;
            document.secrets = Some(self.passphrases.seal(passphrase, context, plain).await?);
        } else {
            document.omitted_secrets = secrets.into_keys().collect();
        }
        let text = serde_json::to_string_pretty(&document).map_err(Error::internal)?;
        Ok(Exported { document: text, revision, omitted_secrets: document.omitted_secrets })
    }

    /// Takes the settings of a document, all of them or none.  Answers the values after it, or as they would be, and the
    /// settings of the document.
    ///
    /// # Errors
    /// As [`SettingsService::update`]; `INVALID_ARGUMENT` for what is no document of this version's, and for a passphrase
    /// that does not open it.
    pub async fn import(
        &self,
        document: &str,
        options: Options,
        terms: Terms,
    ) -> Result<(Arc<Values>, Vec<&'static str>)> {
        let document = read(document)?;
        let field = |key: &str| format!("document.settings[{key}]");
        let mut violations = Violations::default();
        let is_secret = |key: &str| definition::find(key).is_some_and(|known| known.kind.is_secret());
        for key in document.settings.keys().filter(|key| is_secret(key)) {
            violations.add(field(key), "is a secret, and stands open in the document");
        }
        terms.check(&mut violations);
        let mut wanted = checked(document.settings.clone(), &mut violations, field);
        violations.finish()?;
        if let Some(sealed) = document.secrets.as_ref().filter(|_| !options.skip_secrets) {
            let plain =
                self.passphrases.open(options.passphrase, context(&document)?, sealed.clone()).await?;
            let secrets: BTreeMap<String, Value> = serde_json::from_slice(&plain).map_err(|_| {
                Error::field("document.secrets", "are not a list of settings with their values")
            })?;
            let mut violations = Violations::default();
            for key in secrets.keys().filter(|key| !is_secret(key)) {
                violations.add(format!("document.secrets[{key}]"), "is not a secret");
            }
            wanted.extend(checked(secrets, &mut violations, |key| format!("document.secrets[{key}]")));
            violations.finish()?;
        }
        if options.skip_pinned {
            wanted.retain(|key, _| !self.rules.pins.contains_key(key));
        }
        let keys: Vec<&'static str> = wanted.keys().copied().collect();
        if options.reset_others {
            self.reset_others(&mut wanted, &document, options.skip_secrets);
        }
        let values = self.apply(Action::Import, terms, field, fixed(wanted)).await?;
        Ok((values, keys))
    }

    /// Adds the defaults of all that the document does not speak of: secrets that it left out are no part of it.
    fn reset_others(&self, wanted: &mut Wanted, document: &Document, skip_secrets: bool) {
        let omitted: BTreeSet<&str> = document.omitted_secrets.iter().map(String::as_str).collect();
        for definition in CATALOGUE.iter() {
            let kept = self.rules.pins.contains_key(definition.key)
                || omitted.contains(definition.key)
                || skip_secrets && definition.kind.is_secret();
            if !kept {
                wanted.entry(definition.key).or_insert(None);
            }
        }
    }

    async fn snapshot(&self) -> Result<(i64, Vec<SettingRow>)> {
        let mut conn = self.db.reader().await?;
        loop {
            let before = revision::current(&mut conn, revision::SETTINGS).await?;
            let rows = store::all(&mut conn).await?;
            // A change in between: the rows may be of either.
            if revision::current(&mut conn, revision::SETTINGS).await? == before {
                return Ok((before, rows));
            }
        }
    }
}

/// Reads a document: what is taken is written and read as the same.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(text: &str) {
    let Ok(document) = read(text) else { return };
    let written = serde_json::to_string(&document).expect("it can be written");
    let again = read(&written).expect("what was written can be read");
    assert_eq!(context(&again).expect("it has one"), context(&document).expect("it has one"));
    assert_eq!(serde_json::to_string(&again).expect("it can be written"), written);
    let mut violations = Violations::default();
    let wanted = checked(document.settings.clone(), &mut violations, str::to_owned);
    if violations.finish().is_ok() {
        assert_eq!(wanted.len(), document.settings.len());
    }
    for (key, value) in wanted {
        let definition = definition::find(key).expect("it is a setting");
        assert!(value.is_none_or(|value| definition.check(&value).is_ok()), "{key}");
    }
}

fn read(text: &str) -> Result<Document> {
    let refuse = |what: String| Error::field("document", what);
    let value: Value = serde_json::from_str(text).map_err(|error| refuse(format!("is not JSON: {error}")))?;
    if value.get("format").and_then(Value::as_str) != Some(FORMAT) {
        return Err(refuse(format!("is not a document of exported settings: its format is not {FORMAT:?}")));
    }
    if value.get("version").and_then(Value::as_u64) != Some(u64::from(VERSION)) {
        return Err(refuse(format!("is of another version: this server reads version {VERSION}")));
    }
    serde_json::from_value(value)
        .map_err(|error| refuse(format!("is not a document of this version: {error}")))
}

/// What the secrets are bound to: the format, and all settings that stand open beside them.
fn context(document: &Document) -> Result<String> {
    let open = serde_json::to_vec(&document.settings).map_err(Error::internal)?;
    let digest: String = Sha256::digest(&open).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{FORMAT}/{VERSION}/{digest}"))
}
