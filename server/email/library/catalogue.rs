//! All stored templates, compiled and in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::compiled::{Compiled, Context};
use super::model::{Stored, Variable, is_given};
use super::store::{self, Head};
use super::{Extras, locale};
use crate::db::{Conn, Db, revision};
use crate::email::template::{self, Branding, Definition, RenderError, Rendered, Violation};
use crate::error::Result;

/// The templates: those that are stored, over those that come with the server.
pub struct Library {
    db: Db,
    shelf: ArcSwap<Shelf>,
    /// One reading at a time, so that an older one never wins.
    reading: Mutex<()>,
}

/// What is stored, as of one revision.
#[derive(Default)]
struct Shelf {
    revision: i64,
    families: HashMap<String, Family>,
}

/// A template in its languages.
#[derive(Default)]
struct Family {
    /// Empty for one that comes with the server.
    variables: Vec<Variable>,
    languages: HashMap<String, Arc<Entry>>,
}

/// One text.
struct Entry {
    head: Head,
    /// The variables of the template, in its default language; read from there.
    variables: Vec<Variable>,
    compiled: Result<Compiled, String>,
    /// Whether the log has been told that it fails.
    told: AtomicBool,
}

impl Library {
    /// Reads and compiles what is stored.
    ///
    /// # Errors
    /// When the database can not be read.
    pub async fn open(db: Db) -> Result<Arc<Self>> {
        let library = Self { db, shelf: ArcSwap::default(), reading: Mutex::new(()) };
        library.refresh().await?;
        Ok(Arc::new(library))
    }

    /// Whether there is a template of this name.
    pub fn exists(&self, name: &str) -> bool {
        template::definition(name).is_some() || self.shelf.load().own(name).is_some()
    }

    /// Checks variables without rendering, for the moment a mail is accepted.
    ///
    /// Every language of a template has the same variables; `locale` is there for what may differ one day.
    ///
    /// # Errors
    /// [`RenderError::UnknownTemplate`] for a name that no template has, and [`RenderError::InvalidVariables`] with
    /// every missing or malformed variable at once.
    pub fn check(
        &self,
        name: &str,
        _locale: &str,
        variables: &Map<String, Value>,
    ) -> Result<(), RenderError> {
        if template::definition(name).is_some() {
            return template::check(name, variables);
        }
        let shelf = self.shelf.load();
        let family = shelf.own(name).ok_or(RenderError::UnknownTemplate)?;
        check_required(&family.variables, variables)
    }

    /// Renders a mail in the language that is closest to `locale`.
    ///
    /// [`Rendered::text`] is empty for a stored template without a text of its own: the channel makes it of the HTML.
    ///
    /// # Errors
    /// Those of [`Self::check`], and [`RenderError::Template`] when the text fails and there is no compiled one to take
    /// instead.
    pub fn render(
        &self,
        name: &str,
        locale: &str,
        variables: &Map<String, Value>,
        branding: &Branding,
        extras: &Extras<'_>,
    ) -> Result<Rendered, RenderError> {
        self.check(name, locale, variables)?;
        let definition = template::definition(name);
        let shelf = self.shelf.load();
        let family = shelf.families.get(name);
        let entry = family.and_then(|family| family.closest(locale));
        let Some((family, entry)) = family.zip(entry) else {
            let definition = definition.ok_or(RenderError::UnknownTemplate)?;
            return render_compiled(definition, variables, branding, extras);
        };
        let declared = definition.map(Variable::of);
        let declared = declared.as_ref().unwrap_or(&family.variables);
        let rendered = match &entry.compiled {
            Ok(compiled) => {
                let context = Context::new(declared, variables, branding, &entry.head.locale, extras);
                compiled.render(context).map_err(|wrong| wrong.to_string())
            }
            Err(wrong) => Err(wrong.clone()),
        };
        let wrong = match rendered {
            Ok(rendered) => return Ok(rendered),
            Err(wrong) => wrong,
        };
        match definition {
            None => Err(RenderError::Template(wrong.into())),
            Some(definition) => {
                if !entry.told.swap(true, Ordering::Relaxed) {
                    let Head { name, locale, version, .. } = &entry.head;
                    tracing::warn!(
                        name,
                        locale,
                        version,
                        wrong,
                        "a stored template failed; the compiled one is used"
                    );
                }
                render_compiled(definition, variables, branding, extras)
            }
        }
    }

    /// Reads what has changed, when something has.
    ///
    /// # Errors
    /// When the database can not be read; what was read before stays.
    pub async fn follow(&self, conn: &mut Conn) -> Result<()> {
        if revision::current(conn, revision::TEMPLATES).await? != self.shelf.load().revision {
            self.read(conn).await?;
        }
        Ok(())
    }

    /// Reads what is stored.
    pub(super) async fn refresh(&self) -> Result<()> {
        self.read(&mut self.db.reader().await?).await
    }

    async fn read(&self, conn: &mut Conn) -> Result<()> {
        let _one_at_a_time = self.reading.lock().await;
        // The revision first: what changes in between is read again, and never missed.
        let revision = revision::current(conn, revision::TEMPLATES).await?;
        let known = self.shelf.load_full();
        let mut shelf = Shelf { revision, families: HashMap::new() };
        // Sorted by name and language: the default language, which has the variables, comes first.
        for head in store::heads(conn).await? {
            let family = shelf.families.entry(head.name.clone()).or_default();
            let kept = known.entry(&head).map(Arc::clone);
            let entry = match kept {
                Some(entry) => entry,
                None => match store::find(conn, &head.name, &head.locale).await? {
                    Some(stored) => Arc::new(Entry::new(head, stored, &family.variables)),
                    None => continue,
                },
            };
            if entry.head.locale.is_empty() {
                family.variables.clone_from(&entry.variables);
            }
            family.languages.insert(entry.head.locale.clone(), entry);
        }
        self.shelf.store(Arc::new(shelf));
        Ok(())
    }
}

impl Shelf {
    /// A template that is only stored.
    fn own(&self, name: &str) -> Option<&Family> {
        self.families.get(name).filter(|family| family.languages.contains_key(""))
    }

    /// The text of this very version, if it is there.
    fn entry(&self, head: &Head) -> Option<&Arc<Entry>> {
        self.families.get(&head.name)?.languages.get(&head.locale).filter(|entry| entry.head == *head)
    }
}

impl Family {
    fn closest(&self, locale: &str) -> Option<&Arc<Entry>> {
        if self.languages.len() == 1 || locale.is_empty() {
            return self
                .languages
                .get("")
                .or_else(|| locale::chain(locale).iter().find_map(|tag| self.languages.get(tag)));
        }
        locale::chain(locale).iter().find_map(|tag| self.languages.get(tag))
    }
}

impl Entry {
    fn new(head: Head, stored: Stored, of_family: &[Variable]) -> Self {
        let declared = match template::definition(&stored.name) {
            Some(definition) => Variable::of(definition),
            None if stored.locale.is_empty() => stored.variables.clone(),
            None => of_family.to_vec(),
        };
        let compiled = Compiled::new(&stored.text, &declared)
            .map_err(|wrong| wrong.first().map(ToString::to_string).unwrap_or_default());
        Self { head, variables: stored.variables, compiled, told: AtomicBool::new(false) }
    }
}

/// Refuses variables without those that a template can not do without.
pub(super) fn check_required(declared: &[Variable], values: &Map<String, Value>) -> Result<(), RenderError> {
    let missing =
        |variable: &&Variable| variable.required && !values.get(&variable.name).is_some_and(is_given);
    let violations: Vec<Violation> = declared
        .iter()
        .filter(missing)
        .map(|variable| Violation { variable: variable.name.clone(), message: "is required".into() })
        .collect();
    if violations.is_empty() { Ok(()) } else { Err(RenderError::InvalidVariables(violations)) }
}

/// Renders the text that comes with the server.
pub(super) fn render_compiled(
    definition: &Definition,
    variables: &Map<String, Value>,
    branding: &Branding,
    extras: &Extras<'_>,
) -> Result<Rendered, RenderError> {
    const LINK: &str = "unsubscribe_url";
    let has_link = definition.variables.iter().any(|variable| variable.name == LINK);
    let link = extras.unsubscribe_url.filter(|_| has_link && !variables.get(LINK).is_some_and(is_given));
    match link {
        None => template::render_with(definition.name, variables, branding, extras.preheader),
        Some(link) => {
            let mut variables = variables.clone();
            variables.insert(LINK.into(), link.into());
            template::render_with(definition.name, &variables, branding, extras.preheader)
        }
    }
}

#[cfg(test)]
mod checks {
    use super::*;

    /// A library that nothing but memory is behind.
    fn shelf(entries: Vec<(&str, &str, &str)>) -> Shelf {
        let mut shelf = Shelf::default();
        for (name, locale, html) in entries {
            let head = Head { name: name.into(), locale: locale.into(), ..Head::default() };
            let stored = Stored {
                name: name.into(),
                locale: locale.into(),
                description: String::new(),
                variables: Vec::new(),
                text: super::super::model::Text { html_body: html.into(), ..Default::default() },
                version: 1,
                created_at: head.created_at,
                updated_at: head.updated_at,
            };
            let family = shelf.families.entry(name.into()).or_default();
            family.languages.insert(locale.into(), Arc::new(Entry::new(head, stored, &[])));
        }
        shelf
    }

    #[test]
    fn the_closest_language_is_taken() {
        let shelf =
            shelf(vec![("a", "", "x"), ("a", "fr", "x"), ("a", "fr-CA", "x"), ("welcome", "pt", "x")]);
        let closest = |name: &str, locale: &str| {
            let found = shelf.families[name].closest(locale);
            found.map(|entry| entry.head.locale.clone())
        };
        for (asked, taken) in
            [("fr-CA", "fr-CA"), ("fr-CH", "fr"), ("FR", "fr"), ("de", ""), ("", ""), ("?", "")]
        {
            assert_eq!(closest("a", asked).as_deref(), Some(taken), "{asked}");
        }
        assert_eq!(closest("welcome", "pt-BR").as_deref(), Some("pt"));
        assert_eq!(closest("welcome", "de"), None);
        assert!(shelf.own("a").is_some() && shelf.own("welcome").is_none());
    }

    #[test]
    fn a_compiled_text_takes_the_preheader_and_the_link_of_the_mail() {
        let branding = Branding {
            company_name: "Example".into(),
            site_url: String::new(),
            support_email: String::new(),
            logo_url: None,
            colour: String::new(),
        };
        let definition = template::definition("job_alert").unwrap();
        let render = |values: &Map<String, Value>, extras: Extras<'_>| {
            render_compiled(definition, values, &branding, &extras).unwrap().html
        };
        let mut values = definition.sample();
        let extras = Extras { preheader: "Read <this>", unsubscribe_url: Some("https://example.com/u") };
        let own = values["unsubscribe_url"].as_str().unwrap().to_owned();
        let html = render(&values, extras);
        assert!(html.contains("Read &#60;this&#62;</div>") && html.contains(&own), "{html}");
        values.remove("unsubscribe_url");
        assert!(render(&values, extras).contains("https://example.com/u"));
        let bare = render(&values, Extras::default());
        assert!(!bare.contains("Read ") && !bare.contains("example.com/u"), "{bare}");
    }

    #[test]
    fn a_text_that_does_not_compile_is_kept_as_such() {
        let shelf = shelf(vec![("welcome", "", "{{ gone }}")]);
        let entry = shelf.families["welcome"].closest("").unwrap();
        assert!(
            entry
                .compiled
                .as_ref()
                .err()
                .unwrap()
                .contains("html_body, line 1, column 4: there is no variable")
        );
    }
}
