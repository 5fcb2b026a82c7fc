//! Headers: what may be in one, and how it is written.
//!
//! Whatever could end a line is refused where it comes in, and once more made a blank here.  Text beyond ASCII, and text
//! that a reader would decode although nobody encoded it, goes as encoded words (RFC 2047).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::message::Mailbox;

use super::super::address::{breaks_lines, is_atom};

const NAME_LIMIT: usize = 76;
const VALUE_LIMIT: usize = 998;
/// Where lines are folded (RFC 5322, section 2.1.1).
const FOLD: usize = 76;
/// No word of a header may be longer unencoded: there is nowhere to fold it.
const WORD_LIMIT: usize = 900;
/// The bytes in an encoded word: it has at most 75 letters, and its line has room for a name.
const ENCODED_WORD: usize = 39;

/// Names of headers that a mail may have of its own; `*` at the end stands for anything.
const ALLOWED: &[&str] = &[
    "x-*",
    "list-*",
    "thread-*",
    "references",
    "in-reply-to",
    "auto-submitted",
    "precedence",
    "importance",
    "priority",
    "feedback-id",
    "keywords",
    "comments",
    "organization",
    "sensitivity",
];
/// Those of them that the server makes.
const RESERVED: &str = "list-unsubscribe";

/// Checks a header that a mail has of its own.
///
/// # Errors
/// What is wrong with it.
pub fn check_header(name: &str, value: &str) -> Result<(), String> {
    if !is_name(name) {
        return Err(format!(
            "{name:?} is not a header's name: it has 1 to 76 visible characters and no colon"
        ));
    }
    let lower = name.to_ascii_lowercase();
    let allowed = ALLOWED.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(start) => lower.len() > start.len() && lower.starts_with(start),
        None => lower == *pattern,
    });
    if !allowed || lower.starts_with(RESERVED) {
        return Err(format!("{name} is made by the server, or is not known to be safe: use a name with X-"));
    }
    if value.chars().any(breaks_lines) {
        return Err(format!("{name} must not have control characters"));
    }
    if value.chars().count() > VALUE_LIMIT {
        return Err(format!("{name} must have at most {VALUE_LIMIT} characters"));
    }
    Ok(())
}

/// Whether this can be a header's name (RFC 5322, section 3.6.8).
pub(super) fn is_name(name: &str) -> bool {
    (1..=NAME_LIMIT).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'!'..=b'9' | b';'..=b'~'))
}

/// Text without anything that could end a line.
pub(super) fn single_line(text: &str) -> String {
    text.chars().map(|c| if breaks_lines(c) { ' ' } else { c }).collect()
}

/// Appends a header of free text.
pub(super) fn unstructured(name: &str, value: &str, out: &mut String) {
    let value = single_line(value);
    let value = value.trim_end();
    let _ = write!(out, "{name}: ");
    if needs_encoding(value) || value.split(' ').any(|word| word.len() > WORD_LIMIT) {
        encoded_words(value, out);
    } else {
        folded(value, name.len() + 2, out);
    }
    out.push_str("\r\n");
}

/// Whether a text can not go as it is, or would not be read as it is.
fn needs_encoding(text: &str) -> bool {
    !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || text.contains("=?")
}

/// Appends words, on a new line where the one they are on is full.
fn folded(text: &str, mut column: usize, out: &mut String) {
    let mut rest = text;
    while !rest.is_empty() {
        // A word with the blanks before it.
        let blanks = rest.len() - rest.trim_start_matches(' ').len();
        let end = rest[blanks..].find(' ').map_or(rest.len(), |at| blanks + at);
        let (word, after) = rest.split_at(end);
        // Not before the first word: a line of blanks alone is none.
        if blanks > 0 && column + word.len() > FOLD && rest.len() < text.len() {
            out.push_str("\r\n");
            column = 0;
        }
        out.push_str(word);
        column += word.len();
        rest = after;
    }
}

/// Appends text as encoded words, each on a line of its own.
fn encoded_words(text: &str, out: &mut String) {
    let mut rest = text;
    let mut first = true;
    while !rest.is_empty() {
        let end = rest.floor_char_boundary(ENCODED_WORD);
        let (word, after) = rest.split_at(end);
        if !std::mem::take(&mut first) {
            out.push_str("\r\n ");
        }
        out.push_str("=?utf-8?B?");
        STANDARD.encode_string(word, out);
        out.push_str("?=");
        rest = after;
    }
}

/// Appends a header of addresses.
pub(super) fn mailboxes<'a>(name: &str, mailboxes: impl IntoIterator<Item = &'a Mailbox>, out: &mut String) {
    let _ = write!(out, "{name}: ");
    for (index, mailbox) in mailboxes.into_iter().enumerate() {
        if index > 0 {
            out.push_str(",\r\n ");
        }
        match mailbox.name.as_deref().map(str::trim).filter(|name| !name.is_empty()) {
            None => out.push_str(mailbox.email.as_ref()),
            Some(display) => {
                phrase(display, out);
                let _ = write!(out, " <{}>", mailbox.email);
            }
        }
    }
    out.push_str("\r\n");
}

/// Appends a name: as it is, in quotes, or encoded.
fn phrase(name: &str, out: &mut String) {
    let name = single_line(name);
    if needs_encoding(&name) {
        encoded_words(&name, out);
    } else if name.bytes().all(|byte| is_atom(byte) || byte == b' ') {
        out.push_str(&name);
    } else {
        quoted(&name, out);
    }
}

fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// Appends the parameter of a file's name: in quotes when it is plain, else as RFC 2231 has it, in as many pieces as it
/// takes.
pub(super) fn filename(name: &str, out: &mut String) {
    const PIECE: usize = 54;
    let name = single_line(name);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b" ._-()+,@#&'!~".contains(&byte);
    if name.len() <= PIECE && name.bytes().all(plain) {
        let _ = write!(out, ";\r\n filename=\"{name}\"");
        return;
    }
    // Some programs decode piece by piece, so that a letter has to be in one.
    let (mut pieces, mut piece) = (Vec::new(), String::new());
    for c in name.chars() {
        let mut encoded = String::new();
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
            encoded.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
        if piece.len() + encoded.len() > PIECE {
            pieces.push(std::mem::take(&mut piece));
        }
        piece.push_str(&encoded);
    }
    pieces.push(piece);
    if let [whole] = &pieces[..] {
        let _ = write!(out, ";\r\n filename*=utf-8''{whole}");
        return;
    }
    for (index, piece) in pieces.iter().enumerate() {
        let charset = if index == 0 { "utf-8''" } else { "" };
        let _ = write!(out, ";\r\n filename*{index}*={charset}{piece}");
    }
}

#[cfg(test)]
mod tests {
    use mail_parser::{HeaderName, MessageParser, MimeHeaders};
    use proptest::prelude::*;

    use super::*;

    fn written(name: &str, value: &str) -> String {
        let mut out = String::new();
        unstructured(name, value, &mut out);
        out
    }

    #[test]
    fn only_headers_that_are_safe_are_taken() {
        for good in
            ["X-Ticket", "x-a", "List-Id", "References", "Feedback-ID", "Thread-Topic", "Auto-Submitted"]
        {
            assert_eq!(check_header(good, "value"), Ok(()), "{good}");
        }
        for bad in [
            "",
            "X-",
            "From",
            "to",
            "Cc",
            "BCC",
            "Sender",
            "Date",
            "Message-ID",
            "Subject",
            "Reply-To",
            "Return-Path",
            "Received",
            "DKIM-Signature",
            "ARC-Seal",
            "MIME-Version",
            "Content-Type",
            "content-x",
            "List-Unsubscribe",
            "List-Unsubscribe-Post",
            "X-A: b",
            "X-A\r\nBcc",
            "X A",
            "X-Ü",
            "Resent-To",
            "Errors-To",
        ] {
            assert!(check_header(bad, "value").is_err(), "{bad}");
        }
        assert!(check_header(&format!("X-{}", "a".repeat(75)), "value").is_err());
        for bad in ["a\r\nBcc: x@example.com", "a\0", "a\u{85}b", "a\u{2028}b", &"a".repeat(999)] {
            assert!(check_header("X-A", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn long_values_are_folded_and_others_encoded() {
        assert_eq!(written("X-A", "plain"), "X-A: plain\r\n");
        assert_eq!(written("X-A", ""), "X-A: \r\n");
        let long = written("X-A", &"word ".repeat(40));
        assert!(long.lines().all(|line| line.len() <= 78) && long.matches("\r\n ").count() > 1, "{long}");
        assert!(written("X-A", "=?utf-8?q?x?=").contains("=?utf-8?B?"));
        assert!(written("X-A", &"a".repeat(950)).lines().all(|line| line.len() <= 78));
    }

    proptest! {
        #[test]
        fn a_value_is_read_as_it_was_written(value in "(\\PC| |=\\?|,|\\r|\\n){0,200}") {
            let header = written("X-A", &value);
            prop_assert!(header.is_ascii() && header.ends_with("\r\n"));
            for line in header[..header.len() - 2].split("\r\n") {
                prop_assert!(line.len() <= 998 && !line.contains(['\r', '\n']));
            }
            for line in header[..header.len() - 2].split("\r\n").skip(1) {
                prop_assert!(line.starts_with(' ') && !line.trim().is_empty());
            }
            let raw = format!("Subject: {}X-End: 1\r\n\r\n", header.strip_prefix("X-A: ").unwrap());
            let message = MessageParser::new().parse(raw.as_bytes()).unwrap();
            prop_assert_eq!(message.headers().len(), 2);
            let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            prop_assert_eq!(squeeze(message.subject().unwrap_or_default()), squeeze(&single_line(&value)));
        }

        #[test]
        fn a_file_keeps_its_name(name in "(\\PC|\"|\\\\|;|%| ){1,120}") {
            let mut out = "Content-Disposition: attachment".to_owned();
            filename(&name, &mut out);
            prop_assert!(out.is_ascii() && out.split("\r\n").all(|line| line.len() <= 78), "{}", out);
            let raw = format!("{out}\r\n\r\n");
            let message = MessageParser::new().parse(raw.as_bytes()).unwrap();
            prop_assert_eq!(message.headers().len(), 1);
            prop_assert!(message.header(HeaderName::ContentDisposition).is_some());
            let sent = single_line(&name);
            prop_assert_eq!(message.attachment_name().map(str::trim), Some(sent.trim()));
        }
    }
}
