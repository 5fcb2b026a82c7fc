//! Bodies and files as lines of ASCII.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// RFC 5322, section 2.1.1, without the line end.
const LINE_LIMIT: usize = 998;
/// RFC 2045, sections 6.7 and 6.8, without the line end.
const ENCODED_LINE: usize = 76;
/// The bytes that fill a line of base64.
const BYTES_PER_LINE: usize = ENCODED_LINE / 4 * 3;

/// How many bytes a file takes on the way: in base64, with the line ends.
pub fn encoded_size(bytes: u64) -> u64 {
    let letters = bytes.div_ceil(3) * 4;
    letters + letters.div_ceil(ENCODED_LINE as u64) * 2
}

/// Appends a file in base64, every line ended.
pub(super) fn base64_lines(bytes: &[u8], out: &mut Vec<u8>) {
    let mut line = [0; ENCODED_LINE];
    out.reserve(usize::try_from(encoded_size(bytes.len() as u64)).unwrap_or_default());
    for chunk in bytes.chunks(BYTES_PER_LINE) {
        let length = STANDARD.encode_slice(chunk, &mut line).expect("a line has room for what fills it");
        out.extend_from_slice(&line[..length]);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends a text's transfer encoding and the text in it, the last line ended.
///
/// `mark` must not be in it: what begins a boundary.  Quoted-printable never has it, because a `=` is always followed by
/// what it encodes.
pub(super) fn text(text: &str, mark: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Content-Transfer-Encoding: ");
    if goes_as_it_is(text) && !text.contains(mark) {
        out.extend_from_slice(b"7bit\r\n\r\n");
        for_each_line(text, |line| {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        });
    } else {
        out.extend_from_slice(b"quoted-printable\r\n\r\n");
        for_each_line(text, |line| quoted_printable(line, out));
    }
}

/// Whether every server on the way leaves the text alone: ASCII without control characters, in lines that are short
/// enough, keep their ends and begin well.
fn goes_as_it_is(text: &str) -> bool {
    let plain = |line: &[u8]| {
        line.len() <= LINE_LIMIT
            && !begins_badly(line)
            && !matches!(line.last(), Some(b' ' | b'\t'))
            && line.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
    };
    let mut all = true;
    for_each_line(text, |line| all &= plain(line));
    all
}

/// Whether a line looks like the start of a mailbox file's next mail, or begins with the dot that ends a message: servers
/// change the one, and a server that is wrong about dots takes the other for the end (RUSTSEC-2026-0561).
fn begins_badly(line: &[u8]) -> bool {
    line.starts_with(b".") || line.starts_with(b"From ")
}

/// Lines, whatever ends them; what follows the last end is one only when there is something.
fn for_each_line(text: &str, mut each: impl FnMut(&[u8])) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
        each(&rest[..end]);
        let ended = if rest[end..].starts_with(b"\r\n") { end + 2 } else { end + 1 };
        rest = rest.get(ended..).unwrap_or_default();
    }
}

/// Appends one line in quoted-printable (RFC 2045, section 6.7), as as many as it takes.
fn quoted_printable(line: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(line.len() + line.len() / 2 + 2);
    let mut column = 0;
    for (at, &byte) in line.iter().enumerate() {
        let last = at + 1 == line.len();
        let blank_at_end = last && matches!(byte, b' ' | b'\t');
        let plain = matches!(byte, b'\t' | b' '..=b'~') && byte != b'=' && !blank_at_end;
        // One column is kept for the `=` that says that the line goes on.
        if column + if plain { 1 } else { 3 } > ENCODED_LINE - usize::from(!last) {
            out.extend_from_slice(b"=\r\n");
            column = 0;
        }
        if plain && !(column == 0 && begins_badly(&line[at..])) {
            out.push(byte);
            column += 1;
        } else {
            out.extend_from_slice(&[b'=', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            column += 3;
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use mail_parser::MessageParser;
    use proptest::prelude::*;

    use super::*;

    fn read(lines: &[u8]) -> String {
        let mut raw = b"Content-Type: text/plain; charset=utf-8\r\n".to_vec();
        raw.extend_from_slice(lines);
        MessageParser::new().parse(&raw).unwrap().body_text(0).unwrap_or_default().into_owned()
    }

    fn encoded(body: &str) -> String {
        let mut out = Vec::new();
        text(body, "=_", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_plain_text_stays_readable_and_any_other_is_quoted() {
        assert!(encoded("Hello.\nBye.").ends_with(": 7bit\r\n\r\nHello.\r\nBye.\r\n"));
        for other in ["Grüße", "a=_b", ".", "one\r\n.two", "From me", "blank ", "nul\0", &"x".repeat(999)] {
            let encoded = encoded(other);
            assert!(encoded.contains("quoted-printable"), "{other}");
            assert!(!encoded.contains("=_") && encoded.split("\r\n").skip(2).all(|line| line.len() <= 76));
            assert!(!encoded.contains("\r\n."), "{encoded}");
            assert_eq!(read(encoded.as_bytes()).trim_end_matches(['\r', '\n']), other);
        }
    }

    #[test]
    fn the_size_of_a_file_is_known_before_it_is_encoded() {
        for size in [0, 1, 2, 3, 56, 57, 58, 114, 1000] {
            let mut out = Vec::new();
            base64_lines(&vec![7; size], &mut out);
            assert_eq!(out.len() as u64, encoded_size(size as u64), "{size}");
            assert!(out.split(|byte| *byte == b'\n').all(|line| line.len() <= 77));
        }
    }

    proptest! {
        #[test]
        fn a_text_comes_back_with_its_lines(body in "(?s)(\\PC|\r|\n|\r\n|=|\t| |\\.|From ){0,200}") {
            let encoded = encoded(&body);
            prop_assert!(encoded.is_ascii());
            for line in encoded.split("\r\n") {
                prop_assert!(line.len() <= LINE_LIMIT && !line.contains(['\r', '\n']));
                prop_assert!(!line.starts_with('.') && !line.starts_with("From "));
            }
            let lines = |text: &str| text.replace("\r\n", "\n").replace('\r', "\n");
            let (sent, got) = (lines(&body), lines(&read(encoded.as_bytes())));
            prop_assert_eq!(got.trim_end_matches('\n'), sent.trim_end_matches('\n'));
        }
    }
}
