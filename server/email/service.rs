//! The use cases of mails and templates.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::address;
use super::config::SharedConfig;
use super::enqueue::{EnqueueWrite, Enqueued};
use super::model::Mail;
pub use super::store::EmailFilter;
use super::store::{self, Queued};
use super::template::{self, Definition, RenderError, Rendered};
use crate::clock::SharedClock;
use crate::db::Db;
use crate::db::group::Lane;
use crate::delivery::store::{AttemptRow, attempts};
use crate::error::{Error, Result, Violations};
use crate::event::request::{RequestKey, check_request_id};
use crate::id::{IdGenerator, Kind as IdKind};

const RECIPIENT_LIMIT: usize = 50;
/// A header line of RFC 5322.
const SUBJECT_LIMIT: usize = 998;
const BODY_LIMIT: usize = 1024 * 1024;

/// A mail that somebody wants to send.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct NewEmail {
    pub to: Vec<String>,
    pub cc: Vec<String>,
    pub bcc: Vec<String>,
    pub reply_to: String,
    pub template: String,
    pub variables: Map<String, Value>,
    pub subject: String,
    pub html_body: String,
    pub plain_body: String,
    pub request_id: String,
}

/// The use cases.
pub struct EmailService {
    /// The database.
    pub db: Db,
    /// The way into the queue.
    pub enqueue: Lane<EnqueueWrite>,
    /// The branding.
    pub config: SharedConfig,
    /// Makes ids.
    pub ids: Arc<IdGenerator>,
    /// The time.
    pub clock: SharedClock,
}

impl EmailService {
    /// Queues a mail, and answers once it is durable.
    pub async fn send(&self, principal: &str, email: NewEmail) -> Result<Enqueued> {
        let key = request_key(principal, &email);
        let mail = self.check(email)?;
        self.enqueue.write(EnqueueWrite { mail: Arc::new(mail), key }).await?
    }

    fn check(&self, email: NewEmail) -> Result<Mail> {
        let mut violations = Violations::default();
        let mut list = |field: &str, texts: &[String]| -> Vec<String> {
            let read = |(index, text): (usize, &String)| {
                violations
                    .check(&format!("{field}[{index}]"), address::parse(text))
                    .map(|mailbox| mailbox.to_string())
            };
            texts.iter().enumerate().filter_map(read).collect()
        };
        let (to, cc, bcc) = (list("to", &email.to), list("cc", &email.cc), list("bcc", &email.bcc));
        let count = email.to.len() + email.cc.len() + email.bcc.len();
        violations.require(!email.to.is_empty(), "to", "must have at least one address");
        violations.require(
            count <= RECIPIENT_LIMIT,
            "to",
            "must have at most 50 addresses together with cc and bcc",
        );
        let reply_to = match email.reply_to.as_str() {
            "" => String::new(),
            text => violations
                .check("reply_to", address::parse(text))
                .map(|mailbox| mailbox.to_string())
                .unwrap_or_default(),
        };
        check_request_id(&mut violations, "request_id", &email.request_id);
        if email.template.is_empty() {
            check_raw(&email, &mut violations);
        } else {
            check_template(&email, &mut violations);
        }
        violations.finish()?;
        Ok(Mail {
            id: self.ids.next(IdKind::Email),
            event_id: None,
            route_id: None,
            template: email.template,
            variables: email.variables,
            to,
            cc,
            bcc,
            reply_to,
            subject: email.subject,
            html_body: email.html_body,
            plain_body: email.plain_body,
            created_at: self.clock.now(),
            ..Mail::default()
        })
    }

    /// One mail with its attempts.
    pub async fn get(&self, id: &str) -> Result<(Queued, Vec<AttemptRow>)> {
        let mut conn = self.db.reader().await?;
        let queued = store::find(&mut conn, id).await?;
        let attempts = attempts(&mut conn, id).await?;
        Ok((queued, attempts))
    }

    /// Mails, newest first.
    pub async fn list(&self, filter: &EmailFilter, limit: i64) -> Result<Vec<Queued>> {
        store::list(&mut self.db.reader().await?, filter, limit).await
    }

    /// One template.
    pub fn template(&self, name: &str) -> Result<&'static Definition> {
        template::definition(name).ok_or_else(|| Error::not_found("template", name))
    }

    /// What a template makes of these variables, or of its samples.
    pub fn preview(&self, name: &str, variables: Option<Map<String, Value>>) -> Result<Rendered> {
        let definition = self.template(name)?;
        let variables = variables.unwrap_or_else(|| definition.sample());
        template::render(name, &variables, &self.config.load().branding).map_err(|error| {
            let mut violations = Violations::default();
            note(&error, &mut violations);
            violations.finish().err().unwrap_or_else(|| Error::internal(error))
        })
    }
}

fn request_key(principal: &str, email: &NewEmail) -> Option<RequestKey> {
    let variables = Value::Object(email.variables.clone()).to_string();
    let lists = [&email.to, &email.cc, &email.bcc].map(|list| list.join("\n"));
    let parts = [
        lists[0].as_bytes(),
        lists[1].as_bytes(),
        lists[2].as_bytes(),
        email.reply_to.as_bytes(),
        email.template.as_bytes(),
        variables.as_bytes(),
        email.subject.as_bytes(),
        email.html_body.as_bytes(),
        email.plain_body.as_bytes(),
    ];
    RequestKey::new(principal, &email.request_id, "SendEmail", &parts)
}

fn check_raw(email: &NewEmail, violations: &mut Violations) {
    let subject_ok = (1..=SUBJECT_LIMIT).contains(&email.subject.chars().count());
    violations.require(subject_ok, "subject", "must have 1 to 998 characters, or template must be set");
    let one_line = !email.subject.chars().any(char::is_control);
    violations.require(one_line, "subject", "must not have control characters");
    let some = !email.html_body.is_empty() || !email.plain_body.is_empty();
    violations.require(some, "html_body", "or plain_body must be set, or template");
    violations.require(email.variables.is_empty(), "variables", "are for a template: set template");
    for (field, body) in [("html_body", &email.html_body), ("plain_body", &email.plain_body)] {
        violations.require(body.len() <= BODY_LIMIT, field, "must have at most 1 MiB");
        violations.require(!body.contains('\0'), field, "must not have NUL characters");
    }
}

fn check_template(email: &NewEmail, violations: &mut Violations) {
    for (field, text) in
        [("subject", &email.subject), ("html_body", &email.html_body), ("plain_body", &email.plain_body)]
    {
        violations.require(
            text.is_empty(),
            field,
            "comes from the template: leave it empty, or leave template empty",
        );
    }
    if let Err(error) = template::check(&email.template, &email.variables) {
        note(&error, violations);
    }
}

fn note(error: &RenderError, violations: &mut Violations) {
    match error {
        RenderError::UnknownTemplate => violations.add("template", "does not exist"),
        RenderError::InvalidVariables(found) => {
            for violation in found {
                violations.add(format!("variables.{}", violation.variable), violation.message.clone());
            }
        }
        RenderError::Template(_) => {}
    }
}
