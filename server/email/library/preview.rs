//! What a template makes of variables, without a mail.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::catalogue::{check_required, render_compiled};
use super::compiled::{Compiled, Context};
use super::model::{Stored, Text, Variable, samples};
use super::service::{LibraryService, language, not_found};
use super::{Extras, locale, store, validate};
use crate::email::template::{self, Definition, RenderError, Rendered};
use crate::email::{inline, text};
use crate::error::{Error, Result, Violations};

/// What to show.
#[derive(Debug, Clone, Default)]
pub struct PreviewOf {
    /// The template's name.
    pub name: String,
    /// The language.
    pub locale: String,
    /// The variables; `None` for the samples.
    pub variables: Option<Map<String, Value>>,
    /// A version that is not the newest; 0 for the newest.
    pub version: i64,
    /// A text in place of what is kept, with the variables of a template that there is not yet.
    pub draft: Option<(Text, Vec<Variable>)>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// The mail.
    pub rendered: Rendered,
    /// The language that was taken.
    pub locale: String,
    /// The version that was taken; 0 for a compiled template and for a draft.
    pub version: i64,
}

/// A text to show, or nothing for the compiled one.
struct Chosen {
    text: Option<Text>,
    locale: String,
    version: i64,
}

impl LibraryService {
    /// Renders a template and sends nothing.
    pub async fn preview(&self, of: PreviewOf) -> Result<Preview> {
        let asked = language(&of.locale)?;
        let definition = template::definition(&of.name);
        let default = {
            let mut conn = self.db.reader().await?;
            store::find(&mut conn, &of.name, "").await?
        };
        let is_draft = of.draft.is_some();
        let declared = declared(definition, default, &of)?;
        let chosen = match of.draft {
            Some((text, _)) => Chosen { text: Some(text), locale: asked, version: 0 },
            None => self.choose(&of.name, &asked, of.version, definition).await?,
        };
        let compiled = match &chosen.text {
            None => None,
            Some(text) => Some(compile(text, &declared, is_draft)?),
        };
        let values = of.variables.unwrap_or_else(|| samples(&declared));
        let branding = &self.config.load().branding;
        let extras = Extras::default();
        let rendered = match (&compiled, definition) {
            (Some(compiled), _) => {
                check_required(&declared, &values).map_err(|error| refused(&error))?;
                let context = Context::new(&declared, &values, branding, &chosen.locale, &extras);
                compiled
                    .render(context)
                    .map_err(|wrong| Error::field("variables", format!("do not fit the text: {wrong}")))?
            }
            (None, Some(definition)) => {
                render_compiled(definition, &values, branding, &extras).map_err(|error| refused(&error))?
            }
            (None, None) => return Err(not_found(&of.name, "")),
        };
        Ok(finish(rendered, chosen))
    }

    /// The text of the closest language, in the version that is asked for.
    async fn choose(
        &self,
        name: &str,
        asked: &str,
        version: i64,
        definition: Option<&Definition>,
    ) -> Result<Chosen> {
        let mut conn = self.db.reader().await?;
        for locale in locale::chain(asked) {
            let found = if version == 0 {
                store::find(&mut conn, name, &locale).await?.map(|stored| (stored.text, stored.version))
            } else {
                store::version(&mut conn, name, &locale, version).await?.map(|old| (old.text, old.version))
            };
            if let Some((text, version)) = found {
                return Ok(Chosen { text: Some(text), locale, version });
            }
        }
        match definition {
            Some(_) if version == 0 => Ok(Chosen { text: None, locale: String::new(), version: 0 }),
            _ if version != 0 => Err(Error::not_found("template version", &format!("{name} {version}"))),
            _ => Err(not_found(name, "")),
        }
    }
}

/// The variables of what is shown; a draft of a template that there is not yet brings its own.
fn declared(
    definition: Option<&'static Definition>,
    default: Option<Stored>,
    of: &PreviewOf,
) -> Result<Vec<Variable>> {
    let drafted = of.draft.as_ref().map(|(_, variables)| variables);
    let mut violations = Violations::default();
    if let Some(variables) = drafted {
        validate::declaration("draft", "", variables, &mut violations);
    }
    match (definition, default, drafted) {
        (Some(definition), _, _) => Ok(Variable::of(definition)),
        (None, Some(default), None) => Ok(default.variables),
        (None, Some(default), Some(variables)) if variables.is_empty() => Ok(default.variables),
        (None, _, Some(variables)) => violations.finish().map(|()| variables.clone()),
        (None, None, None) => Err(not_found(&of.name, "")),
    }
}

fn compile(text: &Text, declared: &[Variable], is_draft: bool) -> Result<Compiled> {
    let at = if is_draft { "draft" } else { "template" };
    let mut violations = Violations::default();
    let compiled = validate::text(at, text, declared, &mut violations);
    violations.finish()?;
    compiled.ok_or_else(|| Error::field(at, "can not be compiled"))
}

/// What is wrong with the variables.
fn refused(error: &RenderError) -> Error {
    let mut violations = Violations::default();
    if let RenderError::InvalidVariables(found) = error {
        for violation in found {
            violations.add(format!("variables.{}", violation.variable), violation.message.clone());
        }
    }
    violations.finish().err().unwrap_or_else(|| Error::internal(error.to_string()))
}

/// The answer, with what a mail gets on its way: styles where mail programs read them, and a text part.
fn finish(mut rendered: Rendered, chosen: Chosen) -> Preview {
    if let Ok(Cow::Owned(styled)) = inline::inline_css(&rendered.html) {
        rendered.html = styled;
    }
    if rendered.text.is_empty() {
        rendered.text = text::from_html(&rendered.html);
    }
    Preview { rendered, locale: chosen.locale, version: chosen.version }
}
