//! What a mail is.

use serde_json::{Map, Value};

use crate::clock::Timestamp;

/// The lane of mails: one server takes them all.
pub const LANE: &str = "smtp";

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
}

/// A mail's content, as its recipient sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The subject.
    pub subject: String,
    /// The HTML part; may be empty.
    pub html: String,
    /// The text part; may be empty.
    pub text: String,
}
