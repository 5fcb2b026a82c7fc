//! From a mail to the message on the wire.
//!
//! The bytes of a mail are the same on every attempt: its date, its Message-ID and its boundaries are made of the mail
//! alone, and only the signatures are as new as the attempt.  Every line ends in CRLF and none is longer than 998 bytes;
//! there is no bare CR or LF, whatever the caller wrote (RUSTSEC-2026-0561), and nothing but ASCII, so that no server on
//! the way has to change anything.

mod encoding;
mod file;
mod header;

pub use encoding::encoded_size;
pub use file::{check_content_id, check_content_type, check_filename};
pub use header::check_header;

use bytes::Bytes;
use lettre::Address;
use lettre::message::Mailbox;

use super::address;
use super::config::EmailConfig;
use super::dkim::{self, Signer};
use super::model::{Attachment, Content, Mail};
use crate::clock::Timestamp;
use crate::failpoint;

/// What all files of a mail may take, in bytes as [`encoded_size`] counts them: more is refused by most servers.
pub const ENCODED_LIMIT: usize = 25 * 1024 * 1024;

/// What begins every boundary: neither base64 nor quoted-printable can have it (RFC 2045, section 6.7).
const MARK: &str = "=_";

/// A message that is ready for the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    /// The sender's bare address, for the envelope.
    pub from: String,
    /// Signatures, headers and body, every line ended by CRLF and the last one too.
    pub content: Bytes,
}

/// Builds and signs a message.
///
/// `attachments` come with their content.  `extra_headers` are the server's own, such as List-Unsubscribe.  Signing takes
/// a core some 30 µs with Ed25519 and ten times as long with RSA: where [`Signer::is_slow`] says so, call this where
/// blocking is allowed.
///
/// # Errors
/// What can not be sent, in words.
pub fn compose(
    mail: &Mail,
    content: &Content,
    attachments: &[(Attachment, Bytes)],
    extra_headers: &[(String, String)],
    config: &EmailConfig,
    signers: &[Signer],
    now: Timestamp,
) -> Result<Composed, String> {
    let sender = sender(config)?;
    let files: usize = attachments.iter().map(|(_, bytes)| bytes.len() * 3 / 2 + 512).sum();
    let mut message = headers(mail, content, extra_headers, &sender)?.into_bytes();
    message.reserve(content.text.len() + content.html.len() * 5 / 4 + files + 1024);
    Body { id: &mail.id, content, attachments }.write(&mut message)?;
    if !signers.is_empty() {
        let mut signed = dkim::sign(signers, &message, now).into_bytes();
        signed.append(&mut message);
        message = signed;
    }
    Ok(Composed { from: sender.email.to_string(), content: message.into() })
}

/// The sender that the settings name.
///
/// # Errors
/// When they name none that can be used.
pub fn sender(config: &EmailConfig) -> Result<Mailbox, String> {
    let Mailbox { email, .. } = address::parse(&config.from_address)
        .map_err(|wrong| format!("the setting email.from_address can not be used: {wrong}"))?;
    let name = (!config.from_name.is_empty()).then(|| header::single_line(&config.from_name));
    Ok(Mailbox::new(name, email))
}

fn headers(
    mail: &Mail,
    content: &Content,
    extra: &[(String, String)],
    sender: &Mailbox,
) -> Result<String, String> {
    let mut out = String::with_capacity(1024);
    out.push_str(&date(mail.created_at));
    header::mailboxes("From", [sender], &mut out);
    let read =
        |texts: &[String]| texts.iter().map(|text| address::parse(text)).collect::<Result<Vec<_>, _>>();
    for (name, list) in [("To", &mail.to), ("Cc", &mail.cc)] {
        if !list.is_empty() {
            header::mailboxes(name, &read(list)?, &mut out);
        }
    }
    if mail.to.is_empty() && mail.cc.is_empty() {
        // An empty group: a message that names nobody looks like spam (RFC 5322, section 3.6.3).
        out.push_str("To: undisclosed-recipients:;\r\n");
    }
    if !mail.reply_to.is_empty() {
        header::mailboxes("Reply-To", [&address::parse(&mail.reply_to)?], &mut out);
    }
    header::unstructured("Subject", &content.subject, &mut out);
    out.push_str(&format!("Message-ID: {}\r\n", message_id(&mail.id, &sender.email)));
    for (name, value) in &mail.options.headers {
        check_header(name, value)?;
        header::unstructured(name, value, &mut out);
    }
    for (name, value) in extra {
        if !header::is_name(name) {
            return Err(format!("{name:?} is not a header's name"));
        }
        header::unstructured(name, value, &mut out);
    }
    out.push_str("MIME-Version: 1.0\r\n");
    Ok(out)
}

/// The same on every attempt, so that a mail that was taken twice can be told for one.
fn message_id(id: &str, sender: &Address) -> String {
    if failpoint::bug("message_id_changes") {
        return format!("<{id}.{}@{}>", std::process::id(), sender.domain());
    }
    format!("<{id}@{}>", sender.domain())
}

fn date(at: Timestamp) -> String {
    let at = jiff::Timestamp::from_microsecond(at.micros()).unwrap_or_default();
    at.strftime("Date: %a, %d %b %Y %H:%M:%S +0000\r\n").to_string()
}

/// The parts: each writes its Content-Type, its other headers and itself.
struct Body<'a> {
    id: &'a str,
    content: &'a Content,
    attachments: &'a [(Attachment, Bytes)],
}

type File<'a> = &'a (Attachment, Bytes);

impl Body<'_> {
    fn write(&self, out: &mut Vec<u8>) -> Result<(), String> {
        let has_html = !self.content.html.is_empty();
        // Only HTML can name a picture.
        let (inline, attached): (Vec<File<'_>>, Vec<File<'_>>) =
            self.attachments.iter().partition(|(file, _)| has_html && !file.content_id.is_empty());
        if attached.is_empty() {
            return self.bodies(&inline, out);
        }
        let boundary = self.multipart("mixed", "", out);
        open(&boundary, out);
        self.bodies(&inline, out)?;
        self.files(&attached, &boundary, out)
    }

    fn bodies(&self, inline: &[File<'_>], out: &mut Vec<u8>) -> Result<(), String> {
        let Content { html, text, .. } = self.content;
        if html.is_empty() {
            part("plain", text, out);
            return Ok(());
        }
        if text.is_empty() {
            return self.html(inline, out);
        }
        let boundary = self.multipart("alternative", "", out);
        open(&boundary, out);
        part("plain", text, out);
        open(&boundary, out);
        self.html(inline, out)?;
        close(&boundary, out);
        Ok(())
    }

    fn html(&self, inline: &[File<'_>], out: &mut Vec<u8>) -> Result<(), String> {
        if inline.is_empty() {
            part("html", &self.content.html, out);
            return Ok(());
        }
        let boundary = self.multipart("related", " type=\"text/html\";", out);
        open(&boundary, out);
        part("html", &self.content.html, out);
        self.files(inline, &boundary, out)
    }

    fn files(&self, files: &[File<'_>], boundary: &str, out: &mut Vec<u8>) -> Result<(), String> {
        for (file, bytes) in files {
            open(boundary, out);
            file::headers(file, out)?;
            encoding::base64_lines(bytes, out);
        }
        close(boundary, out);
        Ok(())
    }

    /// Begins a multipart; its boundary depends on the mail and the kind only.
    fn multipart(&self, kind: &str, parameters: &str, out: &mut Vec<u8>) -> String {
        let id: String = self.id.chars().filter(char::is_ascii_alphanumeric).take(48).collect();
        let boundary = format!("{MARK}{id}_{}", &kind[..3]);
        let header =
            format!("Content-Type: multipart/{kind};{parameters}\r\n boundary=\"{boundary}\"\r\n\r\n");
        out.extend_from_slice(header.as_bytes());
        boundary
    }
}

fn part(kind: &str, text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("Content-Type: text/{kind}; charset=utf-8\r\n").as_bytes());
    encoding::text(text, MARK, out);
}

fn open(boundary: &str, out: &mut Vec<u8>) {
    for piece in ["--", boundary, "\r\n"] {
        out.extend_from_slice(piece.as_bytes());
    }
}

fn close(boundary: &str, out: &mut Vec<u8>) {
    for piece in ["--", boundary, "--\r\n"] {
        out.extend_from_slice(piece.as_bytes());
    }
}

#[cfg(test)]
mod tests;
