//! Content made safe for the wire (RFC 5321, sections 2.3.8 and 4.5.2).
//!
//! Servers disagree about what ends a line: one that takes a bare LF or CR for an end sees a lone dot where another
//! sees text, and what follows becomes commands (RUSTSEC-2026-0561, and what is known as SMTP smuggling).  Whatever
//! comes in, what goes out has CRLF as its only end of a line, and no line that begins with a single dot.

use bytes::Bytes;

/// What ends the content; sent right behind it.
pub const END: &[u8] = b".\r\n";

/// The content as it goes out, without [`END`]: empty, or ended by CRLF.  Copied only when something has to change.
pub fn stuff(content: &Bytes) -> Bytes {
    if is_clean(content) {
        return content.clone();
    }
    let mut out = Vec::with_capacity(content.len() + content.len() / 32 + 16);
    let mut line_start = true;
    let mut bytes = content.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' | b'\n' => {
                if byte == b'\r' {
                    bytes.next_if_eq(&b'\n');
                }
                out.extend_from_slice(b"\r\n");
                line_start = true;
                continue;
            }
            b'.' if line_start => out.extend_from_slice(b".."),
            _ => out.push(byte),
        }
        line_start = false;
    }
    if !line_start {
        out.extend_from_slice(b"\r\n");
    }
    out.into()
}

/// Whether nothing has to change.
fn is_clean(content: &[u8]) -> bool {
    let mut before = b'\n';
    let mut before_that = b'\r';
    for &byte in content {
        let wrong = match before {
            b'\n' => byte == b'.' || before_that != b'\r',
            b'\r' => byte != b'\n',
            _ => byte == b'\n',
        };
        // Behind an end of a line, LF is as bare as anywhere else.
        if wrong || (before == b'\n' && byte == b'\n') {
            return false;
        }
        (before_that, before) = (before, byte);
    }
    before == b'\n' && before_that == b'\r'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes the wire apart as RFC 5321 says, and knows nothing of how it was made.
    fn unstuff(wire: &[u8]) -> Vec<u8> {
        let mut content = Vec::new();
        let mut rest = wire;
        loop {
            let end = rest.windows(2).position(|pair| pair == b"\r\n").expect("the dot comes before the end");
            let (line, after) = (&rest[..end], &rest[end + 2..]);
            if line == b"." {
                assert!(
                    after.is_empty(),
                    "the data ended early, and this would be read as commands: {after:?}"
                );
                return content;
            }
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            content.extend_from_slice(b"\r\n");
            rest = after;
        }
    }

    /// With CRLF for CRLF, CR and LF.
    fn canonical(content: &[u8]) -> Vec<u8> {
        let text: String = content.iter().map(|byte| char::from(*byte)).collect();
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let text = if text.is_empty() || text.ends_with('\n') { text } else { text + "\n" };
        text.replace('\n', "\r\n").chars().map(|c| c as u8).collect()
    }

    fn wire(content: &[u8]) -> Vec<u8> {
        [&stuff(&Bytes::copy_from_slice(content)), END].concat()
    }

    fn check(content: &[u8]) {
        let wire = wire(content);
        assert_eq!(unstuff(&wire), canonical(content), "{content:?}");
        for (at, byte) in wire.iter().enumerate() {
            match byte {
                b'\r' => assert_eq!(wire.get(at + 1), Some(&b'\n'), "a bare CR in {wire:?}"),
                b'\n' => assert!(at > 0 && wire[at - 1] == b'\r', "a bare LF in {wire:?}"),
                _ => {}
            }
        }
    }

    #[test]
    fn what_is_clean_is_not_copied() {
        for content in ["a: b\r\n\r\nc\r\n", "\r\n", "a.b\r\n", "a\r\n\r\n\r\n"] {
            let content = Bytes::from(content);
            assert_eq!(stuff(&content).as_ptr(), content.as_ptr(), "{content:?}");
        }
    }

    #[test]
    fn no_way_of_ending_the_data_early_gets_through() {
        for ends in [
            "\n.\n",
            "\r.\r",
            "\n.\r\n",
            "\r\n.\n",
            "\r.\r\n",
            "\r\n.\r",
            "\r\n.\r\n",
            "\n\n.\r\r\n",
            "\r\r\n.\r\n",
        ] {
            check(format!("a{ends}MAIL FROM:<x@example.com>\r\n").as_bytes());
            check(ends.as_bytes());
            check(format!("{ends}.").as_bytes());
        }
        for content in ["", ".", "..", ".\r\n", "a", "a\r", "a\n", "\n", "\r", "\n\n", "\r\n\n"] {
            check(content.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn the_content_comes_back_and_ends_once(content in prop::collection::vec(prop_oneof![
            Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a'), any::<u8>()
        ], 0..200)) {
            check(&content);
        }

        #[test]
        fn made_safe_once_it_only_gets_its_dots_doubled(lines in prop::collection::vec("[a-z.]{0,10}", 0..20)) {
            let content: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let expected: String = lines.iter().map(|line| {
                if line.starts_with('.') { format!(".{line}\r\n") } else { format!("{line}\r\n") }
            }).collect();
            let stuffed = stuff(&content.into());
            prop_assert_eq!(&stuffed[..], expected.as_bytes());
        }
    }
}
