//! Reads reports: delivery status notifications (RFC 3464) and feedback reports (RFC 5965).
//!
//! The report may be wrapped: a mailbox that forwards its bounces puts the whole notification into a message of its own.
//! What it is about stands in parts beside the report, never in the headers on top.

use std::collections::HashSet;

use mail_parser::{HeaderValue, Message, MessageParser, MessagePart, MimeHeaders, PartType};

use super::status;
use crate::email::activity::ActivityKind;
use crate::email::suppression;
use crate::id::{self, Kind};

/// How deep messages in messages are looked into.
const DEPTH_LIMIT: usize = 8;
/// How many parts of any kind a message may have; a real report has about four.  It also bounds how deep messages nest,
/// which costs stack when they are dropped.
const PART_LIMIT: usize = 256;
/// How many recipients a report may name: no mail has as many.
const RECIPIENT_LIMIT: usize = 1_000;
/// How many mails are looked up to find the one that a report is about.
const MAIL_LIMIT: usize = 8;
const ADDRESS_LIMIT: usize = 320;
const DIAGNOSTIC_LIMIT: usize = 1_000;

/// What a report says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Report {
    /// The ids of the mails that it may be about, the likeliest first.
    pub email_ids: Vec<String>,
    /// The recipients that did not get the mail, or complained.
    pub recipients: Vec<Reported>,
}

/// What a report says of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reported {
    /// The addresses that may be the recipient's, as they are known here, the likeliest first.
    pub addresses: Vec<String>,
    /// [`ActivityKind::Bounced`] or [`ActivityKind::Complained`].
    pub kind: ActivityKind,
    /// The enhanced status code; empty when there is none.
    pub status: String,
    /// What the far server said.
    pub diagnostic: String,
    /// Whether the address is to get no more mail.
    pub is_gone: bool,
}

/// Reads a report.
///
/// # Errors
/// What is wrong with the message.
pub(super) fn parse(message: &[u8]) -> Result<Report, String> {
    let label = b"content-type";
    let parts = message.windows(label.len()).filter(|bytes| bytes.eq_ignore_ascii_case(label)).count();
    if parts > PART_LIMIT {
        return Err("has more parts than a report has".into());
    }
    let message = MessageParser::default().parse(message).ok_or("is not a mail message")?;
    let found = find(&message, 0)
        .ok_or("has no delivery status (RFC 3464) and no feedback report (RFC 5965) in it")?;
    let mut report = Report { email_ids: found.email_ids, recipients: Vec::new() };
    for (kind, text) in &found.reports {
        match kind {
            Body::DeliveryStatus => delivery_status(text, &mut report)?,
            Body::Feedback => feedback(text, &found.to, &mut report)?,
        }
    }
    Ok(report)
}

enum Body {
    DeliveryStatus,
    Feedback,
}

struct Found {
    reports: Vec<(Body, String)>,
    email_ids: Vec<String>,
    /// To whom the mail was, as its own header says.
    to: Vec<String>,
}

/// The report of a message, or of a message in it.
fn find(message: &Message<'_>, depth: usize) -> Option<Found> {
    let mut found = Found { reports: Vec::new(), email_ids: Vec::new(), to: Vec::new() };
    for part in &message.parts {
        match content_type(part).as_str() {
            "message/delivery-status" | "message/global-delivery-status" => {
                found.reports.push((Body::DeliveryStatus, text(part)));
            }
            "message/feedback-report" => found.reports.push((Body::Feedback, text(part))),
            "text/rfc822-headers" | "message/rfc822-headers" | "message/global-headers" => {
                let headers = text(part) + "\r\n\r\n";
                if let Some(original) = MessageParser::default().parse_headers(headers.as_bytes()) {
                    found.about(&original);
                }
            }
            _ => {
                if let PartType::Message(original) = &part.body {
                    found.about(original);
                }
            }
        }
    }
    if found.reports.is_empty() {
        let inner = message.parts.iter().filter_map(MessagePart::message);
        return (depth < DEPTH_LIMIT)
            .then(|| inner.into_iter().find_map(|inner| find(inner, depth + 1)))
            .flatten();
    }
    // Some leave the mail out, and say which it was as a reply does.
    for header in [message.in_reply_to(), message.references()] {
        found.email_ids.extend(texts(header).filter_map(email_id));
    }
    let mut seen = HashSet::new();
    found.email_ids.retain(|id| seen.insert(id.clone()));
    found.email_ids.truncate(MAIL_LIMIT);
    Some(found)
}

impl Found {
    /// Notes which mail it was.
    fn about(&mut self, original: &Message<'_>) {
        self.email_ids.extend(original.message_id().and_then(email_id));
        let to = original.to().into_iter().flat_map(|to| to.iter()).filter_map(|to| to.address());
        self.to.extend(to.take(RECIPIENT_LIMIT).map(address));
    }
}

fn content_type(part: &MessagePart<'_>) -> String {
    let Some(content_type) = part.content_type() else {
        return String::new();
    };
    format!("{}/{}", content_type.ctype(), content_type.subtype().unwrap_or_default()).to_ascii_lowercase()
}

fn text(part: &MessagePart<'_>) -> String {
    match &part.body {
        // A notification about a message that the parser took for one itself.
        PartType::Message(inner) => String::from_utf8_lossy(&inner.raw_message).into_owned(),
        _ => String::from_utf8_lossy(part.contents()).into_owned(),
    }
}

fn texts<'a>(value: &'a HeaderValue<'_>) -> impl Iterator<Item = &'a str> {
    value.as_text_list().unwrap_or_default().iter().map(|text| &**text)
}

/// The id in the Message-ID of a mail of this server's: `em_…@domain`.
fn email_id(message_id: &str) -> Option<String> {
    let (id, _) = message_id.trim().trim_start_matches('<').split_once('@')?;
    id::is_valid(Kind::Email, id).then(|| id.to_owned())
}

/// A block of fields, with their names in lower case and their lines joined.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.trim())
    }
}

/// The blocks of a report, which blank lines separate.
fn blocks(text: &str) -> Vec<Fields> {
    let mut blocks = vec![Fields(Vec::new())];
    for line in text.lines() {
        let last = blocks.last_mut().expect("there is always one");
        if line.trim().is_empty() {
            if !last.0.is_empty() {
                blocks.push(Fields(Vec::new()));
            }
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = last.0.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            last.0.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    blocks
}

fn delivery_status(text: &str, report: &mut Report) -> Result<(), String> {
    let mut is_report = false;
    for block in blocks(text) {
        let named = ["original-recipient", "final-recipient"].into_iter().filter_map(|name| block.get(name));
        let addresses: Vec<String> = named.map(typed).map(address).collect();
        if addresses.is_empty() {
            continue;
        }
        is_report = true;
        let action = block.get("action").unwrap_or_default().to_ascii_lowercase();
        if !action.starts_with("failed") {
            continue;
        }
        let diagnostic = cut(typed(block.get("diagnostic-code").unwrap_or_default()), DIAGNOSTIC_LIMIT);
        let status = status::of(block.get("status").unwrap_or_default(), &diagnostic);
        let is_gone = status::is_gone(&status, &diagnostic);
        push(report, Reported { addresses, kind: ActivityKind::Bounced, status, diagnostic, is_gone })?;
    }
    if is_report { Ok(()) } else { Err("has a delivery status that names no recipient".into()) }
}

fn feedback(text: &str, to: &[String], report: &mut Report) -> Result<(), String> {
    let mut fields = Fields(Vec::new());
    for block in blocks(text) {
        fields.0.extend(block.0);
    }
    let feedback_type = fields.get("feedback-type").ok_or("has a feedback report without its type")?;
    // The other types are about forged mail, or say that it was no spam after all.
    if !feedback_type.eq_ignore_ascii_case("abuse") {
        return Ok(());
    }
    let named = ["original-rcpt-to", "removal-recipient"].into_iter().flat_map(|name| fields.all(name));
    let mut addresses: Vec<String> = named.map(typed).map(address).collect();
    if addresses.is_empty() {
        addresses.extend_from_slice(to);
    }
    addresses.sort();
    addresses.dedup();
    let agent = fields.get("user-agent").unwrap_or_default();
    let diagnostic = cut(format!("abuse {agent}").trim(), DIAGNOSTIC_LIMIT);
    let complaint = |addresses| Reported {
        addresses,
        kind: ActivityKind::Complained,
        status: String::new(),
        diagnostic: diagnostic.clone(),
        is_gone: true,
    };
    if addresses.is_empty() {
        return push(report, complaint(Vec::new()));
    }
    addresses.into_iter().try_for_each(|address| push(report, complaint(vec![address])))
}

fn push(report: &mut Report, reported: Reported) -> Result<(), String> {
    if report.recipients.len() == RECIPIENT_LIMIT {
        return Err(format!("is about more than {RECIPIENT_LIMIT} recipients"));
    }
    report.recipients.push(reported);
    Ok(())
}

/// What follows the type in `rfc822; jo@example.com` or `smtp; 550 no`.
fn typed(value: &str) -> &str {
    match value.split_once(';') {
        Some((kind, rest)) if !kind.trim().contains([' ', '@']) => rest.trim(),
        _ => value,
    }
}

/// An address as it is known here; one that is none, as it was written.
fn address(text: &str) -> String {
    let text = text.trim().trim_start_matches('<').trim_end_matches('>');
    suppression::key(text).unwrap_or_else(|_| {
        let mut text = cut(&text.to_lowercase(), ADDRESS_LIMIT);
        // Not every character is one byte.
        text.truncate(text.floor_char_boundary(ADDRESS_LIMIT));
        text
    })
}

fn cut(text: &str, limit: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(limit).collect()
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
