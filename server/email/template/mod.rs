//! The mails that ship with the server, compiled into it.
//!
//! Each of the fourteen templates is three files under `server/email/templates/<name>/` (subject,
//! HTML body, plain text body) and one struct in this module that says which variables it takes.
//! askama checks the two against each other when the server is compiled, so a template that names
//! a variable it does not have never ships.
//!
//! The flow of one mail:
//! ```text
//! JSON variables -> field::Fields (typed, every violation collected) -> a struct from account,
//!   job, notification, stock, system, ticket or webhook -> askama, on the shared base layout with branding::Letterhead
//!   -> layout (one-line subject, wrapped text) -> Rendered
//! ```
//! [`check`] walks the first half when a mail is accepted, so that a bad variable is refused to the
//! caller's face; [`render`] walks all of it when the mail is built. A struct and its declaration
//! come from the `mail!` macro, so what [`definitions`] documents is what is enforced.
//!
//! Guarantees: values are escaped in HTML, links are `http` or `https` only, a subject is one line
//! without control characters, and rendering does not panic whatever the values are.

mod account;
mod branding;
mod error;
mod field;
mod job;
mod layout;
mod mail;
mod moment;
mod notification;
pub(in crate::email) mod page;
mod stock;
mod system;
#[cfg(test)]
mod tests;
mod ticket;
mod value;
mod webhook;

pub use branding::Branding;
pub use error::{RenderError, Violation};

use branding::Letterhead;
use field::Fields;
use mail::Mail;
use serde_json::{Map, Value};

/// One mail, ready to be put into a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// One line, without control characters, at most 150 characters long.
    pub subject: String,
    /// A complete HTML document with inline styles only.
    pub html: String,
    /// The same mail as plain text: lines end in `\n`, and wrap at 72 columns.
    pub text: String,
}

/// One variable of a template, as documentation and editors show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// The key in the variables of a mail.
    pub name: &'static str,
    /// What it holds, in one sentence.
    pub description: &'static str,
    /// Whether a mail without it is refused.
    pub required: bool,
    /// An example value, as JSON text.
    pub sample: &'static str,
}

/// A template that ships with the server.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// The key that callers and routes name it by.
    pub name: &'static str,
    /// What the mail is for, in one sentence.
    pub description: &'static str,
    /// Every variable the template knows, in the order a reader would expect them.
    pub variables: &'static [Variable],
    check: fn(&Map<String, Value>) -> Result<(), RenderError>,
    render: fn(&Map<String, Value>, &Letterhead) -> Result<Rendered, RenderError>,
}

impl Definition {
    /// Example values for every variable, enough to preview the template.
    #[must_use]
    pub fn sample(&self) -> Map<String, Value> {
        self.variables
            .iter()
            .filter_map(|variable| {
                let value = serde_json::from_str(variable.sample).ok()?;
                Some((variable.name.to_owned(), value))
            })
            .collect()
    }

    const fn of<M: Mail>(
        name: &'static str,
        description: &'static str,
        variables: &'static [Variable],
    ) -> Self {
        Self {
            name,
            description: description.trim_ascii(),
            variables,
            check: |variables| read::<M>(variables).map(drop),
            render: |variables, letterhead| Ok(read::<M>(variables)?.render(letterhead)?),
        }
    }
}

static DEFINITIONS: [Definition; 14] = [
    ticket::TicketCreated::DEFINITION,
    ticket::TicketUpdated::DEFINITION,
    stock::LowStockAlert::DEFINITION,
    account::UserWelcome::DEFINITION,
    account::PasswordReset::DEFINITION,
    system::SystemAlert::DEFINITION,
    job::JobAlert::DEFINITION,
    job::ApplicationStatusUpdate::DEFINITION,
    account::Welcome::DEFINITION,
    job::JobRecommendations::DEFINITION,
    job::ApplicationFollowUp::DEFINITION,
    webhook::WebhookFailing::DEFINITION,
    webhook::WebhookDisabled::DEFINITION,
    notification::NotificationUnseen::DEFINITION,
];

/// Every template that ships with the server.
#[must_use]
pub fn definitions() -> &'static [Definition] {
    &DEFINITIONS
}

/// The template of that name, if one ships.
#[must_use]
pub fn definition(name: &str) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|definition| definition.name == name)
}

/// Checks variables without rendering, for the moment a mail is accepted.
///
/// Variables the template does not know are ignored, because routes pass whole event payloads.
///
/// # Errors
/// [`RenderError::UnknownTemplate`] if no such template ships, and
/// [`RenderError::InvalidVariables`] with every missing or malformed variable at once.
pub fn check(name: &str, variables: &Map<String, Value>) -> Result<(), RenderError> {
    let definition = definition(name).ok_or(RenderError::UnknownTemplate)?;
    (definition.check)(variables)
}

/// Renders a mail as subject, HTML and plain text.
///
/// # Errors
/// Those of [`check`], and [`RenderError::Template`] if the template engine itself fails.
pub fn render(
    name: &str,
    variables: &Map<String, Value>,
    branding: &Branding,
) -> Result<Rendered, RenderError> {
    render_with(name, variables, branding, "")
}

/// Renders a mail with a preheader in place of the template's own; an empty one leaves that.
///
/// # Errors
/// Those of [`render`].
pub fn render_with(
    name: &str,
    variables: &Map<String, Value>,
    branding: &Branding,
    preheader: &str,
) -> Result<Rendered, RenderError> {
    let definition = definition(name).ok_or(RenderError::UnknownTemplate)?;
    (definition.render)(variables, &Letterhead::new(branding).with_preheader(preheader))
}

fn read<M: Mail>(variables: &Map<String, Value>) -> Result<M, RenderError> {
    let mut fields = Fields::new(variables);
    let mail = M::read(&mut fields);
    fields.finish(mail).map_err(RenderError::InvalidVariables)
}
