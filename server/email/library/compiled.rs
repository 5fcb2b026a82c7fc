//! A text made ready, and what it becomes with its variables.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use minijinja::{Environment, Value};
use serde_json::{Map, Value as Json};

use super::fault::Fault;
use super::model::{Text, Variable, is_given};
use super::{Extras, engine, grammar, lexer, links, value};
use crate::email::template::{Branding, Rendered};

/// What every template has beside its own variables.
pub(super) const COMMON: [&str; 8] = [
    "company_name",
    "site_url",
    "support_email",
    "logo_url",
    "colour",
    "preheader",
    "unsubscribe_url",
    "locale",
];
/// A header line of RFC 5322.
const SUBJECT_LIMIT: usize = 998;
const PREHEADER_LIMIT: usize = 255;

/// The four texts: the field, and the name that says whether values are escaped in it.
const PARTS: [(&str, &str); 4] = [
    ("subject", "subject.txt"),
    ("html_body", "body.html"),
    ("plain_body", "body.txt"),
    ("preheader", "preheader.txt"),
];

/// Something wrong in one of the texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Which text, as the API names it.
    pub field: &'static str,
    /// What is wrong with it, with line and column.
    pub message: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.field, self.message)
    }
}

/// Texts that are ready to be rendered.
pub(super) struct Compiled {
    environment: Environment<'static>,
    has_plain: bool,
    shows_preheader: bool,
}

impl Compiled {
    /// Makes texts ready.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(super) fn new(text: &Text, variables: &[Variable]) -> Result<Self, Vec<Wrong>> {
        let declared = variables.iter().map(|variable| variable.name.as_str());
        let extra = COMMON.into_iter().filter(|name| variables.iter().all(|variable| variable.name != *name));
        let known: Vec<&str> = declared.chain(extra).collect();
        let mut environment = engine::environment();
        let (mut wrong, mut shows_preheader) = (Vec::new(), false);
        for (field, name) in PARTS {
            let source = of(text, field);
            let faults = match lexer::tags(source) {
                Err(fault) => vec![fault],
                Ok(tags) => {
                    shows_preheader |= field == "html_body"
                        && tags.iter().flat_map(|tag| &tag.tokens).any(|token| token.names("preheader"));
                    grammar::check(source, &tags, &known)
                }
            };
            if faults.is_empty() {
                // The engine is not known to panic; that no text does must not rest on it.
                let added = catch_unwind(AssertUnwindSafe(|| {
                    environment.add_template_owned(name, source.to_owned())
                }));
                match added {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        wrong.push(Wrong { field, message: Fault::of(source, &error).to_string() });
                    }
                    Err(_) => wrong.push(Wrong { field, message: "can not be compiled".into() }),
                }
            }
            wrong.extend(faults.iter().map(|fault| Wrong { field, message: fault.to_string() }));
        }
        let has_plain = !text.plain_body.trim().is_empty();
        if wrong.is_empty() { Ok(Self { environment, has_plain, shows_preheader }) } else { Err(wrong) }
    }

    /// What the texts become.  [`Rendered::text`] is empty when there is no text for it: it is to be made of the HTML.
    ///
    /// # Errors
    /// The first thing that went wrong.
    pub(super) fn render(&self, context: Context) -> Result<Rendered, Wrong> {
        let Context { mut names, preheader } = context;
        let preheader = match preheader {
            Some(given) => given,
            None => {
                names.insert("preheader".into(), value::absent());
                one_line(&self.part("preheader", &value::fields(names.clone()))?, PREHEADER_LIMIT)
            }
        };
        if !preheader.is_empty() {
            names.insert("preheader".into(), Value::from(preheader.as_str()));
        }
        let names = value::fields(names);
        let subject = one_line(&self.part("subject", &names)?, SUBJECT_LIMIT);
        let html = self.part("html_body", &names)?;
        let mut html = links::neutralise(&html).into_owned();
        if !self.shows_preheader && !preheader.is_empty() {
            insert_preheader(&mut html, &preheader);
        }
        let text = if self.has_plain { self.part("plain_body", &names)? } else { String::new() };
        Ok(Rendered { subject, html, text })
    }

    fn part(&self, field: &'static str, names: &Value) -> Result<String, Wrong> {
        let (_, name) = PARTS[PARTS.iter().position(|(known, _)| *known == field).unwrap_or_default()];
        let wrong = |message| Wrong { field, message };
        let rendered = catch_unwind(AssertUnwindSafe(|| {
            engine::render(&self.environment, name, names).map_err(|error| {
                let source = self.environment.get_template(name).map(|template| template.source().to_owned());
                Fault::of(&source.unwrap_or_default(), &error).to_string()
            })
        }));
        rendered.unwrap_or_else(|_| Err("can not be rendered".into())).map_err(wrong)
    }
}

fn of<'t>(text: &'t Text, field: &str) -> &'t str {
    match field {
        "subject" => &text.subject,
        "html_body" => &text.html_body,
        "plain_body" => &text.plain_body,
        _ => &text.preheader,
    }
}

/// What a rendering knows.
pub(super) struct Context {
    names: BTreeMap<String, Value>,
    /// The request's own, which goes before the template's.
    preheader: Option<String>,
}

impl Context {
    /// The declared variables, those that were not given as nothing, and what every template has.
    pub(super) fn new(
        variables: &[Variable],
        values: &Map<String, Json>,
        branding: &Branding,
        locale: &str,
        extras: &Extras<'_>,
    ) -> Self {
        let printable = branding.printable();
        let link = extras.unsubscribe_url.map_or_else(value::absent, Value::from);
        let mut names: BTreeMap<String, Value> = [
            ("company_name", Value::from(printable.company_name)),
            ("site_url", Value::from(printable.site_url.trim_end_matches('/'))),
            ("support_email", Value::from(printable.support_email)),
            ("logo_url", Value::from(printable.logo_url.unwrap_or_default())),
            ("colour", Value::from(printable.colour)),
            ("unsubscribe_url", link),
            ("locale", Value::from(locale)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        for variable in variables {
            match values.get(&variable.name).filter(|value| is_given(value)) {
                Some(given) => {
                    names.insert(variable.name.clone(), value::of(given));
                }
                None => {
                    names.entry(variable.name.clone()).or_insert_with(value::absent);
                }
            }
        }
        let preheader = one_line(extras.preheader, PREHEADER_LIMIT);
        Self { names, preheader: (!preheader.is_empty()).then_some(preheader) }
    }
}

/// Text on one line, cut at a number of characters.
fn one_line(text: &str, limit: usize) -> String {
    let text = value::clean(text);
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    if line.chars().count() <= limit { line } else { line.chars().take(limit).collect() }
}

/// Puts the preheader where mail programs look for it: as the first text of the body, which nobody sees there.
fn insert_preheader(html: &mut String, preheader: &str) {
    let lower = html.to_ascii_lowercase();
    let body = lower.find("<body").and_then(|start| Some(start + lower[start..].find('>')? + 1));
    let mut hidden = String::from(r#"<div style="display:none;max-height:0;overflow:hidden;mso-hide:all;">"#);
    // Writing to memory does not fail.
    let _ = engine::escape(&mut hidden, preheader);
    hidden.push_str("</div>");
    html.insert_str(body.unwrap_or_default(), &hidden);
}

#[cfg(test)]
mod checks;
