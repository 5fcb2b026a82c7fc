//! The use cases of templates that change something.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::model::{Stored, Template, Text, Variable, Version};
use super::save::{Base, audited, check_room, entry};
use super::{Library, store, validate};
use crate::audit::Recorder;
use crate::clock::{SharedClock, Timestamp};
use crate::db::{Conn, Db, revision};
use crate::email::SharedConfig;
use crate::email::template;
use crate::error::{Error, Kind, Result, Violations};
use crate::event::route;

/// What to set of a template; `None` leaves it.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct TemplateChange {
    pub description: Option<String>,
    pub variables: Option<Vec<Variable>>,
    pub subject: Option<String>,
    pub html_body: Option<String>,
    pub plain_body: Option<String>,
    pub preheader: Option<String>,
    pub version: Option<i64>,
}

/// The use cases.
pub struct LibraryService {
    /// The database.
    pub db: Db,
    /// The templates in memory.
    pub library: Arc<Library>,
    /// The branding, for previews.
    pub config: SharedConfig,
    /// Records what is changed.
    pub audit: Recorder,
    /// The time.
    pub clock: SharedClock,
}

impl LibraryService {
    /// All templates by name and language.
    pub async fn list(&self) -> Result<Vec<Template>> {
        let mut conn = self.db.reader().await?;
        let defaults = store::defaults(&mut conn).await?;
        let mut templates: Vec<Template> = Vec::new();
        for definition in template::definitions() {
            templates.push(Template::built_in(definition, String::new(), None));
        }
        for head in store::heads(&mut conn).await? {
            let default = defaults.iter().find(|default| default.name == head.name);
            let stored = Stored {
                name: head.name,
                locale: head.locale,
                description: String::new(),
                variables: Vec::new(),
                text: Text::default(),
                version: head.version,
                created_at: head.created_at,
                updated_at: head.updated_at,
            };
            match (template::definition(&stored.name), default) {
                (Some(definition), _) => {
                    templates.retain(|known| known.name != stored.name || known.locale != stored.locale);
                    templates.push(Template::built_in(definition, stored.locale.clone(), Some(stored)));
                }
                (None, Some(default)) => templates.push(Template::own(default, stored)),
                (None, None) => {}
            }
        }
        templates.sort_by(|one, other| (&one.name, &one.locale).cmp(&(&other.name, &other.locale)));
        Ok(templates)
    }

    /// One template, in just this language.
    pub async fn get(&self, name: &str, locale: &str) -> Result<Template> {
        let locale = language(locale)?;
        find(&mut self.db.reader().await?, name, &locale).await
    }

    /// Adds a template, or another language of one.
    pub async fn create(
        &self,
        principal: &str,
        name: String,
        locale: &str,
        change: TemplateChange,
    ) -> Result<Template> {
        let mut violations = Violations::default();
        validate::name("template.name", &name, &mut violations);
        let locale = validate::language("template.locale", locale, &mut violations);
        violations.finish()?;
        if locale.is_empty() && template::definition(&name).is_some() {
            let message = format!("{name:?} comes with the server: change its text with UpdateTemplate");
            return Err(Error::new(Kind::FailedPrecondition, "TEMPLATE_BUILT_IN", message).with("name", name));
        }
        let (now, principal, audit) = (self.clock.now(), principal.to_owned(), self.audit.clone());
        self.changed(move |conn| {
            Box::pin(async move {
                if store::find(conn, &name, &locale).await?.is_some() {
                    return Err(exists(&name, &locale));
                }
                let base = Base::read(conn, &name, &locale, &audit).await?;
                if !locale.is_empty() && base.default.is_none() && base.definition.is_none() {
                    let message =
                        format!("add {name:?} with an empty locale first: other languages fall back to it");
                    return Err(Error::new(Kind::FailedPrecondition, "TEMPLATE_DEFAULT_MISSING", message)
                        .with("name", name));
                }
                check_room(conn, &name).await?;
                let stored = empty(name, locale, now);
                base.save(conn, stored, change, &principal, now).await
            })
        })
        .await
    }

    /// Changes a text, as its next version.
    pub async fn update(
        &self,
        principal: &str,
        name: String,
        locale: &str,
        change: TemplateChange,
    ) -> Result<Template> {
        let locale = language(locale)?;
        let (now, principal, audit) = (self.clock.now(), principal.to_owned(), self.audit.clone());
        self.changed(move |conn| {
            Box::pin(async move {
                let base = Base::read(conn, &name, &locale, &audit).await?;
                let stored = match store::find(conn, &name, &locale).await? {
                    Some(stored) => stored,
                    None if base.definition.is_some() && locale.is_empty() => {
                        check_room(conn, &name).await?;
                        empty(name, locale, now)
                    }
                    None => return Err(not_found(&name, &locale)),
                };
                check_etag(change.version, stored.version)?;
                base.save(conn, stored, change, &principal, now).await
            })
        })
        .await
    }

    /// Removes a text, and with the language that others fall back to the whole template.
    pub async fn delete(&self, name: String, locale: &str, version: Option<i64>) -> Result<()> {
        let (locale, audit) = (language(locale)?, self.audit.clone());
        self.changed(move |conn| Box::pin(async move { remove(conn, &audit, &name, &locale, version).await }))
            .await
    }

    /// The versions of a text, newest first.
    pub async fn versions(&self, name: &str, locale: &str) -> Result<Vec<Version>> {
        let locale = language(locale)?;
        let mut conn = self.db.reader().await?;
        let versions = store::versions(&mut conn, name, &locale).await?;
        if versions.is_empty() {
            // Nothing was ever kept of a template that is as it came with the server.
            find(&mut conn, name, &locale).await?;
        }
        Ok(versions)
    }

    /// Makes an older version the text again, as its next version.
    pub async fn roll_back(
        &self,
        principal: &str,
        name: String,
        locale: &str,
        version: i64,
        etag: Option<i64>,
    ) -> Result<Template> {
        let locale = language(locale)?;
        let (now, principal, audit) = (self.clock.now(), principal.to_owned(), self.audit.clone());
        self.changed(move |conn| {
            Box::pin(async move {
                let base = Base::read(conn, &name, &locale, &audit).await?;
                let stored = match store::find(conn, &name, &locale).await? {
                    Some(stored) => stored,
                    None if base.definition.is_some() => empty(name.clone(), locale.clone(), now),
                    None => return Err(not_found(&name, &locale)),
                };
                check_etag(etag, stored.version)?;
                let old = store::version(conn, &name, &locale, version).await?;
                let Text { subject, html_body, plain_body, preheader } = old
                    .ok_or_else(|| Error::not_found("template version", &format!("{name} {version}")))?
                    .text;
                if stored.version == 0 {
                    check_room(conn, &name).await?;
                }
                let change = TemplateChange {
                    subject: Some(subject),
                    html_body: Some(html_body),
                    plain_body: Some(plain_body),
                    preheader: Some(preheader),
                    ..TemplateChange::default()
                };
                base.save(conn, stored, change, &principal, now).await
            })
        })
        .await
    }

    async fn changed<R, F>(&self, work: F) -> Result<R>
    where
        R: Send + 'static,
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R>> + Send + 'static,
    {
        let done = revision::change(&self.db, revision::TEMPLATES, work).await?;
        // The change is made: that it can not be read at once must not be told as if it were not.
        if let Err(error) = self.library.refresh().await {
            tracing::warn!(%error, "a template was changed and could not be read; it is read again when the next changes");
        }
        Ok(done)
    }
}

/// Removes a text, and with the language that others fall back to the whole template.
pub(super) async fn remove(
    conn: &mut Conn,
    audit: &Recorder,
    name: &str,
    locale: &str,
    version: Option<i64>,
) -> Result<()> {
    let is_built_in = template::definition(name).is_some();
    let Some(stored) = store::find(conn, name, locale).await? else {
        if is_built_in && locale.is_empty() {
            let message = format!("{name:?} comes with the server, and nothing is in its place");
            return Err(Error::new(Kind::FailedPrecondition, "TEMPLATE_BUILT_IN", message).with("name", name));
        }
        return Err(not_found(name, locale));
    };
    check_etag(version, stored.version)?;
    let entry = entry(&stored, "delete").from(audited(&stored));
    if is_built_in {
        // Its versions stay: rolling back brings the text back.
        store::delete(conn, name, locale).await?;
    } else if !locale.is_empty() {
        store::delete_versions(conn, name, locale).await?;
        store::delete(conn, name, locale).await?;
    } else {
        if let Some(route) = route::uses_template(conn, name).await? {
            let message = format!("the route {route:?} sends this template: change the route first");
            return Err(Error::new(Kind::FailedPrecondition, "TEMPLATE_IN_USE", message).with("route", route));
        }
        store::delete_all(conn, name).await?;
    }
    audit.record(conn, entry).await
}

/// One template, in just this language.
pub(super) async fn find(conn: &mut Conn, name: &str, locale: &str) -> Result<Template> {
    let stored = store::find(conn, name, locale).await?;
    match (template::definition(name), stored) {
        (Some(definition), None) if locale.is_empty() => {
            Ok(Template::built_in(definition, String::new(), None))
        }
        (Some(definition), Some(stored)) => Ok(Template::built_in(definition, locale.into(), Some(stored))),
        (None, Some(stored)) if locale.is_empty() => Ok(Template::own(&stored.clone(), stored)),
        (None, Some(stored)) => {
            let default = store::find(conn, name, "").await?;
            Ok(Template::own(&default.ok_or_else(|| not_found(name, ""))?, stored))
        }
        (_, None) => Err(not_found(name, locale)),
    }
}

/// The language that a request names, in its one written form.
pub(super) fn language(locale: &str) -> Result<String> {
    let mut violations = Violations::default();
    let locale = validate::language("locale", locale, &mut violations);
    violations.finish().map(|()| locale)
}

/// A text that is not kept yet.
pub(super) fn empty(name: String, locale: String, now: Timestamp) -> Stored {
    Stored {
        name,
        locale,
        description: String::new(),
        variables: Vec::new(),
        text: Text::default(),
        version: 0,
        created_at: now,
        updated_at: now,
    }
}

fn check_etag(asked: Option<i64>, version: i64) -> Result<()> {
    match asked {
        Some(asked) if asked != version => Err(Error::etag_mismatch(version.to_string())),
        _ => Ok(()),
    }
}

pub(super) fn not_found(name: &str, locale: &str) -> Error {
    match locale {
        "" => Error::not_found("template", name),
        locale => Error::not_found("template", &format!("{name} {locale}")),
    }
}

fn exists(name: &str, locale: &str) -> Error {
    let message = match locale {
        "" => format!("there is a template {name:?} already"),
        locale => format!("there is a template {name:?} in {locale} already"),
    };
    Error::new(Kind::AlreadyExists, "ALREADY_EXISTS", message).with("resource", "template").with("id", name)
}
