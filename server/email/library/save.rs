//! Keeps a text as the next version of a template, once it is what it has to be.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::model::{Stored, Template, Variable};
use super::service::TemplateChange;
use super::{store, validate};
use crate::audit::{self, Change, Recorder};
use crate::clock::Timestamp;
use crate::db::Conn;
use crate::email::template::{self, Definition};
use crate::error::{Error, Kind, Result, Violations};

/// How many templates may be stored.
const TEMPLATE_LIMIT: usize = 500;
/// In how many languages.
const LANGUAGE_LIMIT: usize = 32;
/// How many versions of a text are kept.
const VERSION_LIMIT: i64 = 50;

/// What a text is part of.
pub(super) struct Base {
    /// What comes with the server under its name.
    pub definition: Option<&'static Definition>,
    /// The text that the other languages fall back to, when it is stored.
    pub default: Option<Stored>,
    /// Records what is changed.
    pub audit: Recorder,
}

impl Base {
    /// What this text is part of.
    pub(super) async fn read(conn: &mut Conn, name: &str, locale: &str, audit: &Recorder) -> Result<Self> {
        let definition = template::definition(name);
        let default = if locale.is_empty() { None } else { store::find(conn, name, "").await? };
        Ok(Self { definition, default, audit: audit.clone() })
    }

    /// Checks the change of a text, and keeps it as the next version.
    pub(super) async fn save(
        self,
        conn: &mut Conn,
        mut stored: Stored,
        change: TemplateChange,
        principal: &str,
        now: Timestamp,
    ) -> Result<Template> {
        let verb = if stored.version == 0 { "create" } else { "update" };
        let entry = entry(&stored, verb).from(audited(&stored));
        let mut violations = Violations::default();
        let has_declaration = self.definition.is_none() && stored.locale.is_empty();
        let mut variables = match (self.definition, &self.default) {
            (Some(definition), _) => Variable::of(definition),
            (None, Some(default)) => default.variables.clone(),
            (None, None) => stored.variables.clone(),
        };
        if has_declaration {
            stored.description = change.description.unwrap_or(stored.description);
            if let Some(changed) = change.variables.filter(|changed| *changed != stored.variables) {
                check_languages(conn, &stored.name, &changed, &mut violations).await?;
                variables.clone_from(&changed);
                stored.variables = changed;
            }
            validate::declaration("template", &stored.description, &stored.variables, &mut violations);
        } else {
            self.refuse_declaration(&change, &variables, &mut violations);
        }
        let text = &mut stored.text;
        for (part, changed) in [
            (&mut text.subject, change.subject),
            (&mut text.html_body, change.html_body),
            (&mut text.plain_body, change.plain_body),
            (&mut text.preheader, change.preheader),
        ] {
            if let Some(changed) = changed {
                *part = changed;
            }
        }
        validate::text("template", &stored.text, &variables, &mut violations);
        violations.finish()?;

        let is_new = stored.version == 0;
        let newest = store::newest(conn, &stored.name, &stored.locale).await?;
        stored.version = stored.version.max(newest) + 1;
        stored.updated_at = now;
        if is_new {
            store::insert(conn, &stored).await?;
        } else {
            store::update(conn, &stored).await?;
        }
        store::keep_version(conn, &stored, principal, stored.version - VERSION_LIMIT).await?;
        self.audit.record(conn, entry.to(audited(&stored))).await?;
        Ok(match (self.definition, self.default) {
            (Some(definition), _) => Template::built_in(definition, stored.locale.clone(), Some(stored)),
            (None, Some(default)) => Template::own(&default, stored),
            (None, None) => Template::own(&stored.clone(), stored),
        })
    }

    /// Notes a description or variables that are to become others than those that are fixed.
    fn refuse_declaration(&self, change: &TemplateChange, fixed: &[Variable], violations: &mut Violations) {
        let (description, why) = match (self.definition, &self.default) {
            (Some(definition), _) => (definition.description, "is fixed: the template comes with the server"),
            (None, Some(default)) => (
                default.description.as_str(),
                "is the same in every language: change it with an empty locale",
            ),
            (None, None) => ("", ""),
        };
        let same = |given: &String| given.is_empty() || given == description;
        violations.require(change.description.as_ref().is_none_or(same), "template.description", why);
        let same = |given: &Vec<Variable>| given.is_empty() || given == fixed;
        violations.require(change.variables.as_ref().is_none_or(same), "template.variables", why);
    }
}

/// An entry of the audit log about a text, which its template and its language name.
pub(super) fn entry(stored: &Stored, verb: &str) -> Change {
    let Stored { name, locale, .. } = stored;
    let id = if locale.is_empty() { name.clone() } else { format!("{name}/{locale}") };
    Change::new("template", id, verb)
}

/// A text as the audit log tells it.
pub(super) fn audited(stored: &Stored) -> Map<String, Value> {
    audit::fields(&json!({
        "description": stored.description,
        "variables": stored.variables,
        "subject": stored.text.subject,
        "html_body": stored.text.html_body,
        "plain_body": stored.text.plain_body,
        "preheader": stored.text.preheader,
        "version": stored.version,
    }))
}

/// Notes the languages of a template whose texts need a variable that it will not have.
async fn check_languages(
    conn: &mut Conn,
    name: &str,
    variables: &[Variable],
    violations: &mut Violations,
) -> Result<()> {
    for other in store::languages(conn, name).await?.iter().filter(|other| !other.locale.is_empty()) {
        let mut found = Violations::default();
        validate::text("template", &other.text, variables, &mut found);
        if let Err(error) = found.finish() {
            let first = error.violations().first().map_or("", |violation| &violation.description);
            violations.add("template.variables", format!("do not fit the text in {}: {first}", other.locale));
        }
    }
    Ok(())
}

/// Refuses one template, or one language of a template, too many.
pub(super) async fn check_room(conn: &mut Conn, name: &str) -> Result<()> {
    let heads = store::heads(conn).await?;
    let languages = heads.iter().filter(|head| head.name == name).count();
    let names: BTreeSet<&str> = heads.iter().map(|head| head.name.as_str()).collect();
    let message = if languages >= LANGUAGE_LIMIT {
        "a template may have 32 languages"
    } else if names.len() >= TEMPLATE_LIMIT && languages == 0 {
        "500 templates may be stored"
    } else {
        return Ok(());
    };
    Err(Error::new(Kind::ResourceExhausted, "TEMPLATE_LIMIT", format!("{message}: delete one first")))
}
