//! The message that everybody sends who does not make his own: headers, and 4 KiB of text as `smtp-source` has it.

use bytes::Bytes;

/// The sender's address.
pub const FROM: &str = "sender@example.com";
/// The recipient's address.
pub const TO: &str = "recipient@example.net";
/// The length of the body, for `smtp-source -l` too.
pub const LENGTH: usize = 4_096;

/// The length of a line with its end.
const LINE: usize = 80;

/// The message, every line ended by CRLF.
pub fn message() -> Bytes {
    let mut text = format!(
        "From: <{FROM}>\r\nTo: <{TO}>\r\nDate: Sat, 31 Jan 2026 10:29:55 +0000\r\n\
         Message-Id: <bench@example.com>\r\nSubject: Pump 3\r\n\r\n"
    );
    let end = text.len() + LENGTH;
    while text.len() < end {
        let length = (end - text.len()).min(LINE);
        text.push_str(&"X".repeat(length - 2));
        text.push_str("\r\n");
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_as_long_as_it_says() {
        let text = String::from_utf8(message().to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!((head.lines().count(), body.len()), (5, LENGTH));
        assert!(text.ends_with("\r\n") && !text.replace("\r\n", "").contains(['\r', '\n']));
        assert!(text.lines().all(|line| line.len() < LINE));
    }
}
