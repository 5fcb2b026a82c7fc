//! Templates in exported configurations: the texts that are kept, each language of each template, as `name` or `name/language`.
//! Former versions are not exported.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::model::{Stored, Text, Variable};
use super::save::{Base, check_room};
use super::service::{LibraryService, TemplateChange, empty, remove};
use super::{store, validate};
use crate::db::{Conn, revision};
use crate::error::{Error, Result, Violations};
use crate::origin;
use crate::portable::{Item, Items, Portable};

/// A text in a document.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    variables: Vec<Variable>,
    subject: String,
    html_body: String,
    plain_body: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    preheader: String,
}

impl From<Stored> for Shown {
    fn from(stored: Stored) -> Self {
        let Text { subject, html_body, plain_body, preheader } = stored.text;
        let (description, variables) = (stored.description, stored.variables);
        Self { description, variables, subject, html_body, plain_body, preheader }
    }
}

impl Portable for LibraryService {
    fn section(&self) -> &'static str {
        "templates"
    }

    fn item(&self) -> &'static str {
        "template"
    }

    fn scopes(&self) -> (&'static str, &'static str) {
        ("email:read", "email:write")
    }

    fn revision(&self) -> Option<&'static str> {
        Some(revision::TEMPLATES)
    }

    fn read<'a>(&'a self, conn: &'a mut Conn) -> BoxFuture<'a, Result<Items>> {
        async move {
            let mut items = Items::new();
            for head in store::heads(conn).await? {
                let Some(stored) = store::find(conn, &head.name, &head.locale).await? else { continue };
                let value = serde_json::to_value(Shown::from(stored)).map_err(Error::internal)?;
                items.insert(joined(&head.name, &head.locale), Item { value, ..Item::default() });
            }
            Ok(items)
        }
        .boxed()
    }

    fn put<'a>(&'a self, conn: &'a mut Conn, items: Items) -> BoxFuture<'a, Result<Vec<String>>> {
        async move {
            for (name, item) in items {
                let shown: Shown = serde_json::from_value(item.value)
                    .map_err(|error| Error::field("template", format!("is not a template: {error}")))?;
                self.place(conn, &name, shown).await?;
            }
            Ok(Vec::new())
        }
        .boxed()
    }

    fn remove<'a>(&'a self, conn: &'a mut Conn, names: Vec<String>) -> BoxFuture<'a, Result<()>> {
        async move {
            for joined in names {
                let (name, locale) = apart(&joined);
                if store::find(conn, name, locale).await?.is_some() {
                    remove(conn, &self.audit, name, locale, None).await?;
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn reload(&self) -> BoxFuture<'_, Result<()>> {
        async move { self.library.refresh().await.map(drop) }.boxed()
    }
}

impl LibraryService {
    async fn place(&self, conn: &mut Conn, joined: &str, shown: Shown) -> Result<()> {
        let (name, given) = apart(joined);
        let mut violations = Violations::default();
        validate::name("template.name", name, &mut violations);
        let locale = validate::language("template.locale", given, &mut violations);
        let whole = locale == given;
        violations.require(whole, "template.locale", "is not in its one written form, such as fr-CA");
        violations.finish()?;
        let base = Base::read(conn, name, &locale, &self.audit).await?;
        let now = self.clock.now();
        let stored = match store::find(conn, name, &locale).await? {
            Some(stored) => stored,
            None => {
                if !locale.is_empty() && base.default.is_none() && base.definition.is_none() {
                    let wrong =
                        format!("needs the template {name:?} itself: other languages fall back to it");
                    return Err(Error::field("template", wrong));
                }
                check_room(conn, name).await?;
                empty(name.to_owned(), locale, now)
            }
        };
        let Shown { description, variables, subject, html_body, plain_body, preheader } = shown;
        let change = TemplateChange {
            description: Some(description),
            variables: Some(variables),
            subject: Some(subject),
            html_body: Some(html_body),
            plain_body: Some(plain_body),
            preheader: Some(preheader),
            version: None,
        };
        base.save(conn, stored, change, &origin::current().actor, now).await.map(drop)
    }
}

fn joined(name: &str, locale: &str) -> String {
    if locale.is_empty() { name.to_owned() } else { format!("{name}/{locale}") }
}

fn apart(joined: &str) -> (&str, &str) {
    joined.split_once('/').unwrap_or((joined, ""))
}
