//! What a mail is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::delivery::Hold;

/// How urgent a mail is: the lane that carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// Somebody waits for it.
    #[default]
    Transactional,
    /// Many at a time.
    Bulk,
}

impl Priority {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Transactional, Self::Bulk];

    /// Its lane, the word in the column `destination`.
    pub const fn lane(self) -> &'static str {
        match self {
            Self::Transactional => "transactional",
            Self::Bulk => "bulk",
        }
    }

    /// The priority of a lane.
    pub fn of_lane(lane: &str) -> Self {
        if lane == Self::Bulk.lane() { Self::Bulk } else { Self::Transactional }
    }
}

/// What few mails have; kept as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Options {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub locale: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub preheader: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub without_tracking: bool,
}

/// A file that goes with a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Attachment {
    pub filename: String,
    /// Never empty.
    pub content_type: String,
    /// Empty for a file that is no picture in the HTML body.
    pub content_id: String,
    pub size: u64,
    /// The SHA-256 of the content, in hexadecimal: its key among the blobs.
    pub blob_id: String,
}

/// A mail to be sent.
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Mail {
    pub id: String,
    pub event_id: Option<String>,
    pub route_id: Option<String>,
    /// Empty for raw content.
    pub template: String,
    pub variables: Map<String, Value>,
    pub to: Vec<String>,
    pub cc: Vec<String>,
    pub bcc: Vec<String>,
    pub reply_to: String,
    pub subject: String,
    pub html_body: String,
    pub plain_body: String,
    pub created_at: Timestamp,
    pub priority: Priority,
    pub options: Options,
    pub expires_at: Option<Timestamp>,
    pub attachments: Vec<Attachment>,
    /// Recipients that are done.
    pub settled: Vec<Settled>,
    /// Why it must wait, found when it was taken in hand.
    pub hold: Option<Hold>,
}

/// A recipient that gets nothing more: suppressed, or answered for by the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The address, as it is compared.
    pub address: String,
    /// Whether it has the mail.
    pub delivered: bool,
}

impl Mail {
    /// The recipients of all three kinds, as `name <address>`.
    pub fn recipients(&self) -> impl Iterator<Item = &str> {
        self.to.iter().chain(&self.cc).chain(&self.bcc).map(String::as_str)
    }
}

/// A mail's content, as its recipient sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// The subject.
    pub subject: String,
    /// The HTML part; may be empty.
    pub html: String,
    /// The text part; may be empty.
    pub text: String,
}
