//! Files that go with a mail: what may be said of one, and how it is said.

use super::super::address::breaks_lines;
use super::super::model::Attachment;
use super::header;

const FILENAME_LIMIT: usize = 255;
/// RFC 6838, section 4.2.
const TYPE_LIMIT: usize = 127;
const CONTENT_ID_LIMIT: usize = 128;

/// Checks a file's media type: `type/subtype`, with parameters such as `; charset=utf-8` (RFC 2045, section 5.1).
///
/// # Errors
/// What is wrong with it.
pub fn check_content_type(text: &str) -> Result<(), String> {
    let wrong = || Err(format!("{text:?} is not a media type such as application/pdf"));
    if text.len() > TYPE_LIMIT * 2 {
        return wrong();
    }
    let mut pieces = text.split(';');
    let Some((kind, subtype)) = pieces.next().and_then(|essence| essence.split_once('/')) else {
        return wrong();
    };
    if !is_restricted_name(kind) || !is_restricted_name(subtype) {
        return wrong();
    }
    if kind.eq_ignore_ascii_case("multipart") || kind.eq_ignore_ascii_case("message") {
        // Its content would be read as further parts of this mail.
        return Err(format!("{kind} is for mails within mails: use application/octet-stream"));
    }
    for piece in pieces {
        let Some((name, value)) = piece.trim_matches(' ').split_once('=') else {
            return wrong();
        };
        let taken = ["boundary", "name"].iter().any(|taken| name.eq_ignore_ascii_case(taken));
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        if taken || !is_restricted_name(name) || !is_restricted_name(value) {
            return wrong();
        }
    }
    Ok(())
}

/// RFC 6838, section 4.2: far less than a token, and all that anybody uses.
fn is_restricted_name(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
    (1..=TYPE_LIMIT).contains(&text.len())
        && text.as_bytes()[0].is_ascii_alphanumeric()
        && text.bytes().all(letter)
}

/// Checks a file's name: a name and no path, because some programs would take it for one.
///
/// # Errors
/// What is wrong with it.
pub fn check_filename(name: &str) -> Result<(), String> {
    if !(1..=FILENAME_LIMIT).contains(&name.chars().count()) {
        return Err(format!("must have 1 to {FILENAME_LIMIT} characters"));
    }
    if name.chars().any(breaks_lines) {
        return Err("must not have control characters".into());
    }
    if name.contains(['/', '\\']) || matches!(name, "." | "..") {
        return Err("must be a name without a path".into());
    }
    Ok(())
}

/// Checks what an HTML body names a picture by: `logo` or `logo@example.com` (RFC 2392).
///
/// # Errors
/// What is wrong with it.
pub fn check_content_id(text: &str) -> Result<(), String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+@".contains(&byte);
    let plain = (1..=CONTENT_ID_LIMIT).contains(&text.len()) && text.bytes().all(letter);
    let parts = text.split('@').count() <= 2 && text.split('@').all(|part| !part.is_empty());
    let wrong =
        || format!("must have 1 to {CONTENT_ID_LIMIT} letters, digits, and . _ - +, and at most one @");
    (plain && parts).then_some(()).ok_or_else(wrong)
}

/// Appends a file's headers, and the empty line after them.
pub(super) fn headers(file: &Attachment, out: &mut Vec<u8>) -> Result<(), String> {
    let Attachment { filename, content_type, content_id, .. } = file;
    let name = if filename.is_empty() { content_id } else { filename };
    check_content_type(content_type)?;
    check_filename(name).map_err(|wrong| format!("the file name {name:?} {wrong}"))?;
    let disposition = if content_id.is_empty() { "attachment" } else { "inline" };
    let mut text = format!(
        "Content-Type: {content_type}\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: {disposition}"
    );
    header::filename(name, &mut text);
    text.push_str("\r\n");
    if !content_id.is_empty() {
        check_content_id(content_id).map_err(|wrong| format!("the content id {content_id:?} {wrong}"))?;
        text.push_str(&format!("Content-ID: <{content_id}>\r\n"));
    }
    text.push_str("\r\n");
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_checked() {
        for good in [
            "application/pdf",
            "text/plain; charset=utf-8",
            "text/calendar; charset=\"utf-8\"; method=REQUEST",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            "image/svg+xml",
        ] {
            assert_eq!(check_content_type(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "pdf",
            "a/",
            "/b",
            "a/b/c",
            "text/html\r\nBcc: x",
            "text/html; boundary=x",
            "text/plain; name=x",
            "multipart/mixed",
            "Message/RFC822",
            "text/plain;",
            "text/plain; charset",
            "text/plain; charset=\"a b\"",
            "text/ plain",
            "tëxt/plain",
            "text/plain; charset=utf-8\n",
        ] {
            assert!(check_content_type(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_and_ids_are_checked() {
        for good in ["invoice.pdf", "Rechnung für Jo; \"neu\".pdf", "請求書.pdf", ".profile"] {
            assert_eq!(check_filename(good), Ok(()), "{good}");
        }
        for bad in ["", "..", "a/b", "c:\\b", "a\r\nb", "a\0", &"a".repeat(256)] {
            assert!(check_filename(bad).is_err(), "{bad}");
        }
        assert!(check_content_id("logo").is_ok() && check_content_id("logo@example.com").is_ok());
        for bad in ["", "a b", "a>", "<a>", "a@b@c", "@a", "a\r\nb", "ä", &"a".repeat(129)] {
            assert!(check_content_id(bad).is_err(), "{bad}");
        }
    }
}
