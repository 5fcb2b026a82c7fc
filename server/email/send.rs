//! What somebody wants to send, checked and turned into a mail.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::intake::Arrival;
use super::model::{Attachment, Mail, Options, Priority};
use super::template::RenderError;
use super::{address, compose};
use crate::clock::Timestamp;
use crate::error::{Result, Violations};
use crate::event::request::{RequestKey, check_request_id};

const RECIPIENT_LIMIT: usize = 50;
/// A header line of RFC 5322.
const SUBJECT_LIMIT: usize = 998;
const BODY_LIMIT: usize = 1024 * 1024;
const HEADER_LIMIT: usize = 50;
const ATTACHMENT_LIMIT: usize = 50;
const PREHEADER_LIMIT: usize = 255;
const TOPIC_LIMIT: usize = 64;
/// How far ahead a mail can be scheduled.
const LONGEST_AHEAD: Duration = Duration::from_secs(366 * 24 * 60 * 60);

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
    pub headers: BTreeMap<String, String>,
    pub attachments: Vec<NewAttachment>,
    pub send_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub priority: Priority,
    pub locale: String,
    pub preheader: String,
    pub topic: String,
    pub without_tracking: bool,
}

/// A file that is to go with a mail.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct NewAttachment {
    pub filename: String,
    pub content_type: String,
    pub content: Bytes,
    pub content_id: String,
}

impl NewEmail {
    /// The key that finds a repeat of this request.
    pub(super) fn request_key(&self, principal: &str) -> Option<RequestKey> {
        if self.request_id.is_empty() {
            return None;
        }
        let variables = Value::Object(self.variables.clone()).to_string();
        let lists = [&self.to, &self.cc, &self.bcc].map(|list| list.join("\n"));
        let rest = serde_json::json!([
            self.headers,
            self.locale,
            self.preheader,
            self.topic,
            self.without_tracking,
            self.priority.lane(),
            self.send_at.map(Timestamp::micros),
            self.expires_at.map(Timestamp::micros),
        ])
        .to_string();
        let files: Vec<String> = self.attachments.iter().map(NewAttachment::fingerprint).collect();
        let files = files.join("\n");
        let parts = [
            lists[0].as_bytes(),
            lists[1].as_bytes(),
            lists[2].as_bytes(),
            self.reply_to.as_bytes(),
            self.template.as_bytes(),
            variables.as_bytes(),
            self.subject.as_bytes(),
            self.html_body.as_bytes(),
            self.plain_body.as_bytes(),
            rest.as_bytes(),
            files.as_bytes(),
        ];
        RequestKey::new(principal, &self.request_id, "SendEmail", &parts)
    }

    /// The mail of this id.
    ///
    /// `check_template` says what is wrong with a template's variables.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with everything that is wrong with it.
    pub(super) fn check(
        self,
        id: String,
        now: Timestamp,
        check_template: impl Fn(&Self) -> Result<(), RenderError>,
    ) -> Result<Arrival> {
        let mut violations = Violations::default();
        let (to, cc, bcc) = self.recipients(&mut violations);
        let reply_to = match self.reply_to.as_str() {
            "" => String::new(),
            text => violations
                .check("reply_to", address::parse(text))
                .map(|mailbox| mailbox.to_string())
                .unwrap_or_default(),
        };
        check_request_id(&mut violations, "request_id", &self.request_id);
        if self.template.is_empty() {
            self.check_raw(&mut violations);
        } else {
            self.check_templated(&mut violations);
            if let Err(error) = check_template(&self) {
                note(&error, &mut violations);
            }
        }
        self.check_times(&mut violations, now);
        self.check_options(&mut violations, to.len() + cc.len() + bcc.len());
        self.check_attachments(&mut violations);
        violations.finish()?;
        let (attachments, files) = files(self.attachments);
        let mail = Mail {
            id,
            template: self.template,
            variables: self.variables,
            to,
            cc,
            bcc,
            reply_to,
            subject: self.subject,
            html_body: self.html_body,
            plain_body: self.plain_body,
            created_at: now,
            priority: self.priority,
            options: Options {
                headers: self.headers,
                locale: self.locale,
                preheader: self.preheader,
                topic: self.topic,
                without_tracking: self.without_tracking,
            },
            expires_at: self.expires_at,
            attachments,
            ..Mail::default()
        };
        Ok(Arrival { mail: Arc::new(mail), send_at: self.send_at, files })
    }

    /// The recipients of the three kinds, each address once: where it is first.
    fn recipients(&self, violations: &mut Violations) -> (Vec<String>, Vec<String>, Vec<String>) {
        let count = self.to.len() + self.cc.len() + self.bcc.len();
        violations.require(!self.to.is_empty(), "to", "must have at least one address");
        violations.require(
            count <= RECIPIENT_LIMIT,
            "to",
            "must have at most 50 addresses together with cc and bcc",
        );
        let mut seen = HashSet::new();
        let mut list = |field: &str, texts: &[String]| -> Vec<String> {
            let mut addresses = Vec::with_capacity(texts.len());
            for (index, text) in texts.iter().enumerate() {
                let read = violations.check(&format!("{field}[{index}]"), address::parse(text));
                let Some(mailbox) = read else { continue };
                if seen.insert(mailbox.email.to_string().to_ascii_lowercase()) {
                    addresses.push(mailbox.to_string());
                }
            }
            addresses
        };
        (list("to", &self.to), list("cc", &self.cc), list("bcc", &self.bcc))
    }

    fn check_raw(&self, violations: &mut Violations) {
        let subject_ok = (1..=SUBJECT_LIMIT).contains(&self.subject.chars().count());
        violations.require(subject_ok, "subject", "must have 1 to 998 characters, or template must be set");
        let one_line = !self.subject.chars().any(char::is_control);
        violations.require(one_line, "subject", "must not have control characters");
        let some = !self.html_body.is_empty() || !self.plain_body.is_empty();
        violations.require(some, "html_body", "or plain_body must be set, or template");
        violations.require(self.variables.is_empty(), "variables", "are for a template: set template");
        violations.require(self.locale.is_empty(), "locale", "is for a template: set template");
        for (field, body) in [("html_body", &self.html_body), ("plain_body", &self.plain_body)] {
            violations.require(body.len() <= BODY_LIMIT, field, "must have at most 1 MiB");
            violations.require(!body.contains('\0'), field, "must not have NUL characters");
        }
    }

    fn check_templated(&self, violations: &mut Violations) {
        let fields =
            [("subject", &self.subject), ("html_body", &self.html_body), ("plain_body", &self.plain_body)];
        for (field, text) in fields {
            violations.require(
                text.is_empty(),
                field,
                "comes from the template: leave it empty, or leave template empty",
            );
        }
        let tag = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let locale_ok = self.locale.len() <= 35 && self.locale.chars().all(tag);
        violations.require(locale_ok, "locale", "must be a language tag, such as fr or fr-CA");
    }

    fn check_times(&self, violations: &mut Violations, now: Timestamp) {
        if let Some(at) = self.send_at {
            violations.require(at <= now + LONGEST_AHEAD, "send_time", "must be at most 366 days ahead");
            violations.require(at.micros() > 0, "send_time", "must be a time after 1970");
        }
        if let Some(at) = self.expires_at {
            let starts = self.send_at.unwrap_or(now).max(now);
            violations.require(at > starts, "expire_time", "must be in the future, and after send_time");
        }
    }

    fn check_options(&self, violations: &mut Violations, recipients: usize) {
        violations.require(self.headers.len() <= HEADER_LIMIT, "headers", "must have at most 50 entries");
        for (name, value) in &self.headers {
            violations.check(&format!("headers[{name}]"), compose::check_header(name, value));
        }
        let mut names: Vec<_> = self.headers.keys().map(|name| name.to_ascii_lowercase()).collect();
        names.sort_unstable();
        let twice = names.windows(2).any(|pair| pair[0] == pair[1]);
        violations.require(!twice, "headers", "must not have a name twice, in upper and lower case");
        let short = self.preheader.chars().count() <= PREHEADER_LIMIT;
        let plain = !self.preheader.chars().any(char::is_control);
        violations.require(
            short && plain,
            "preheader",
            "must have at most 255 characters and no control characters",
        );
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.');
        let topic_ok = self.topic.len() <= TOPIC_LIMIT && self.topic.bytes().all(word);
        violations.require(topic_ok, "topic", "must have at most 64 of a-z, 0-9, _, - and .");
        let alone = self.topic.is_empty() || recipients <= 1;
        violations.require(
            alone,
            "topic",
            "is for mails to one recipient, who can unsubscribe: send one mail to each, with BatchSendEmails",
        );
    }

    fn check_attachments(&self, violations: &mut Violations) {
        let files = &self.attachments;
        violations.require(files.len() <= ATTACHMENT_LIMIT, "attachments", "must have at most 50 entries");
        let size: u64 = files.iter().map(|file| compose::encoded_size(file.content.len() as u64)).sum();
        if size > compose::ENCODED_LIMIT as u64 {
            let mebibytes = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
            violations.add(
                "attachments",
                format!(
                    "must have at most {:.0} MiB together as they are encoded for the way, and have {:.1} MiB",
                    mebibytes(compose::ENCODED_LIMIT as u64),
                    mebibytes(size)
                ),
            );
        }
        let mut ids = HashSet::new();
        for (index, file) in files.iter().enumerate() {
            let field = |name: &str| format!("attachments[{index}].{name}");
            violations.check(&field("filename"), compose::check_filename(&file.filename));
            if !file.content_type.is_empty() {
                violations.check(&field("content_type"), compose::check_content_type(&file.content_type));
            }
            if !file.content_id.is_empty() {
                violations.check(&field("content_id"), compose::check_content_id(&file.content_id));
                violations.require(
                    ids.insert(&file.content_id),
                    &field("content_id"),
                    "must be another for each picture",
                );
            }
        }
    }
}

impl NewAttachment {
    fn fingerprint(&self) -> String {
        format!("{} {} {} {}", self.filename, self.content_type, self.content_id, blob_id(&self.content))
    }
}

fn blob_id(content: &[u8]) -> String {
    use std::fmt::Write;
    let digest = Sha256::digest(content);
    digest.iter().fold(String::with_capacity(64), |mut id, byte| {
        write!(id, "{byte:02x}").expect("writing to memory");
        id
    })
}

/// The files as the mail names them, and their contents, each once.
fn files(new: Vec<NewAttachment>) -> (Vec<Attachment>, Arc<[(String, Bytes)]>) {
    let mut contents: Vec<(String, Bytes)> = Vec::new();
    let mut file = |new: NewAttachment| {
        let blob_id = blob_id(&new.content);
        let size = new.content.len() as u64;
        if !contents.iter().any(|(known, _)| *known == blob_id) {
            contents.push((blob_id.clone(), new.content));
        }
        let content_type =
            if new.content_type.is_empty() { "application/octet-stream".into() } else { new.content_type };
        Attachment { filename: new.filename, content_type, content_id: new.content_id, size, blob_id }
    };
    let attachments = new.into_iter().map(&mut file).collect();
    (attachments, contents.into())
}

/// Notes what is wrong with a template or its variables.
fn note(error: &RenderError, violations: &mut Violations) {
    match error {
        RenderError::UnknownTemplate => violations.add("template", "does not exist"),
        RenderError::InvalidVariables(found) => {
            for violation in found {
                violations.add(format!("variables.{}", violation.variable), violation.message.clone());
            }
        }
        error => violations.add("template", error.to_string()),
    }
}
