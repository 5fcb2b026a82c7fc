//! The use cases: export and import.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::document::Document;
use super::{Item, Items, Passphrases, Portable};
use crate::clock::SharedClock;
use crate::db::{Conn, Db, keyring, revision};
use crate::error::{Error, Kind, Result, Violations};
use crate::scope;
use crate::secret::Sealer;

/// The configuration.
pub struct Configuration {
    /// The database.
    pub db: Db,
    /// The parts, each after those that its items may name.
    pub parts: Arc<[Arc<dyn Portable>]>,
    /// Opens their secrets.
    pub sealer: Sealer,
    /// Seals documents.
    pub passphrases: Passphrases,
    /// The time.
    pub clock: SharedClock,
}

/// What an export answers.
#[derive(Debug)]
pub struct Export {
    /// The document.
    pub document: String,
    /// The secrets that are set and not in it, as `section/name/secret`.
    pub omitted_secrets: Vec<String>,
    /// The sections that the caller may not export.
    pub omitted_sections: Vec<&'static str>,
}

/// How to import.
#[derive(Debug, Clone, Default)]
pub struct Import {
    /// The document.
    pub document: String,
    /// What its secrets are sealed under.
    pub passphrase: String,
    /// Whether to leave secrets as they are.
    pub skip_secrets: bool,
    /// Whether to leave pinned settings as they are, instead of refusing all.
    pub skip_pinned: bool,
    /// Whether items go that the document's sections do not have.
    pub prune: bool,
    /// Whether to check everything and keep nothing.
    pub validate_only: bool,
}

/// What an import did to a section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Outcome {
    pub section: &'static str,
    pub created: Vec<String>,
    pub updated: Vec<String>,
    pub removed: Vec<String>,
    pub unchanged: usize,
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// To each section of the document.
    pub sections: Vec<Outcome>,
    /// Secrets that were needed and not given.
    pub missing_secrets: Vec<String>,
}

impl Configuration {
    /// What is configured, of all sections or of these.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a passphrase that is too short and a section that there is not; `PERMISSION_DENIED` for one that was
    /// asked for and that the caller may not export.
    pub async fn export(&self, scopes: &[String], passphrase: &str, wanted: &[String]) -> Result<Export> {
        Passphrases::is_given(passphrase)?;
        let mut violations = Violations::default();
        for (index, section) in wanted.iter().enumerate() {
            let known = self.parts.iter().any(|part| part.section() == section);
            violations.require(known, &format!("sections[{index}]"), "is not a section");
        }
        violations.finish()?;
        let (mut parts, mut omitted_sections) = (Vec::new(), Vec::new());
        for part in self.parts.iter() {
            if !wanted.is_empty() && !wanted.iter().any(|section| section == part.section()) {
                continue;
            }
            let allowed = require(scopes, part.scopes().0);
            match allowed {
                Ok(()) => parts.push(Arc::clone(part)),
                Err(error) if !wanted.is_empty() => return Err(error),
                Err(_) => omitted_sections.push(part.section()),
            }
        }
        let sealer = self.sealer.clone();
        let read = self.db.transaction(move |conn| {
            Box::pin(async move {
                // Nobody changes anything meanwhile: what is exported was there at one time.
                revision::lock(conn).await?;
                keyring::refresh(conn, &sealer).await?;
                let mut read = BTreeMap::new();
                for part in parts {
                    read.insert(part.section(), part.read(conn).await?);
                }
                Ok(read)
            })
        });
        let now = self.clock.now().to_string();
        let document = Document::write(read.await?, now, passphrase, &self.passphrases).await?;
        let text = document.text()?;
        Ok(Export { document: text, omitted_secrets: document.omitted_secrets, omitted_sections })
    }

    /// Takes all of a document, or nothing.  What it has is made or changed; nothing else is touched, unless it is to be pruned.
    /// The same document a second time changes nothing.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with all that is wrong, `PERMISSION_DENIED` for a section that the caller may not change, and whatever
    /// the change itself may be refused with.
    pub async fn import(&self, scopes: &[String], import: Import) -> Result<Imported> {
        let Import { document, passphrase, skip_secrets, skip_pinned, prune, validate_only } = import;
        let document = Document::read(&document)?;
        let mut violations = Violations::default();
        for section in document.sections.keys() {
            let known = self.parts.iter().any(|part| part.section() == section);
            let field = format!("document.sections[{section}]");
            violations.require(known, &field, "is not a section that this server knows");
        }
        violations.finish()?;
        let has = |part: &&Arc<dyn Portable>| document.sections.contains_key(part.section());
        let parts: Vec<_> = self.parts.iter().filter(has).map(Arc::clone).collect();
        parts.iter().try_for_each(|part| require(scopes, part.scopes().1))?;
        let items = document.items(passphrase, skip_secrets, &self.passphrases).await?;
        let stray = items.keys().find(|section| !document.sections.contains_key(*section));
        if let Some(section) = stray {
            return Err(Error::field(
                "document.secrets",
                format!("has the section {section}, which is not open"),
            ));
        }

        let work = Work { parts: parts.clone(), document, items, skip_secrets, skip_pinned, prune };
        let (sealer, tried) = (self.sealer.clone(), Arc::new(Mutex::new(None)));
        let answer = Arc::clone(&tried);
        let made = self.db.transaction(move |conn| {
            Box::pin(async move {
                revision::lock(conn).await?;
                keyring::refresh(conn, &sealer).await?;
                let imported = work.run(conn).await?;
                if validate_only {
                    *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(imported);
                    // Everything was done, and is taken back.
                    return Err(Error::new(Kind::Aborted, "VALIDATED", "it was only tried"));
                }
                Ok(imported)
            })
        });
        let imported = match made.await {
            Ok(imported) => imported,
            Err(error) => {
                return tried.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or(error);
            }
        };
        for part in parts {
            // The change is made: that it can not be read at once must not be told as if it were not.
            if let Err(error) = part.reload().await {
                tracing::warn!(%error, section = part.section(), "a configuration was imported and could not be read");
            }
        }
        Ok(imported)
    }
}

struct Work {
    parts: Vec<Arc<dyn Portable>>,
    document: Document,
    items: BTreeMap<String, Items>,
    skip_secrets: bool,
    skip_pinned: bool,
    prune: bool,
}

impl Work {
    async fn run(mut self, conn: &mut Conn) -> Result<Imported> {
        let (mut imported, mut violations) = (Imported::default(), Violations::default());
        for part in &self.parts {
            let mut outcome = Outcome { section: part.section(), ..Outcome::default() };
            let there = part.read(conn).await?;
            let wanted = self.items.remove(part.section()).unwrap_or_default();
            if self.prune {
                let goes = |(name, item): &(&String, &Item)| {
                    let is_kept = wanted.contains_key(*name)
                        || self.document.speaks_of(part.section(), name)
                        || self.skip_secrets && item.value.is_null();
                    !is_kept && !part.is_pinned(name)
                };
                outcome.removed = there.iter().filter(goes).map(|(name, _)| name.clone()).collect();
            }
            let mut differing = Vec::new();
            for (name, item) in wanted {
                match there.get(&name) {
                    _ if self.skip_pinned && part.is_pinned(&name) => outcome.unchanged += 1,
                    Some(known) if known.has(&item) => outcome.unchanged += 1,
                    Some(_) => {
                        outcome.updated.push(name.clone());
                        differing.push((name, item));
                    }
                    None => {
                        outcome.created.push(name.clone());
                        differing.push((name, item));
                    }
                }
            }
            let groups: Vec<Items> = match part.is_one() {
                true if differing.is_empty() => Vec::new(),
                true => vec![differing.into_iter().collect()],
                false => differing.into_iter().map(|one| Items::from([one])).collect(),
            };
            for items in groups {
                let field = field(&**part, &items);
                match part.put(conn, items).await {
                    Ok(missing) => imported.missing_secrets.extend(missing),
                    Err(error) if error.kind() == Kind::InvalidArgument => {
                        for violation in error.violations() {
                            let rest = violation.field.strip_prefix(part.item()).unwrap_or(&violation.field);
                            violations.add(format!("{field}{rest}"), violation.description.clone());
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            imported.sections.push(outcome);
        }
        violations.finish()?;
        // What names others goes before them.
        for (part, outcome) in self.parts.iter().zip(&imported.sections).rev() {
            let names: Vec<String> = outcome.removed.iter().rev().cloned().collect();
            if !names.is_empty() {
                part.remove(conn, names).await?;
            }
        }
        let changed = |outcome: &Outcome| {
            !(outcome.created.is_empty() && outcome.updated.is_empty() && outcome.removed.is_empty())
        };
        let mut revisions: Vec<_> = self
            .parts
            .iter()
            .zip(&imported.sections)
            .filter(|(_, outcome)| changed(outcome))
            .filter_map(|(part, _)| part.revision())
            .collect();
        revisions.sort_unstable();
        revisions.dedup();
        for name in revisions {
            revision::bump(conn, name).await?;
        }
        Ok(imported)
    }
}

/// Where items stand in the request.
fn field(part: &dyn Portable, items: &Items) -> String {
    let section = part.section();
    match items.keys().next().filter(|_| !part.is_one()) {
        Some(name) => format!("document.sections.{section}[{name}]"),
        None => format!("document.sections.{section}"),
    }
}

fn require(scopes: &[String], needed: &'static str) -> Result<()> {
    if scope::any_covers(scopes, needed) {
        return Ok(());
    }
    let message =
        format!("the API key does not have the scope {needed}, which a section of the document needs");
    Err(Error::new(Kind::PermissionDenied, "SCOPE_MISSING", message).with("required_scope", needed))
}

impl Item {
    /// Whether another one says nothing else than this; of secrets, it may say less.
    fn has(&self, other: &Self) -> bool {
        self.value == other.value
            && other.secrets.iter().all(|(kind, text)| self.secrets.get(kind) == Some(text))
    }
}
