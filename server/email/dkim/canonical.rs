//! The relaxed form of headers and bodies (RFC 6376, sections 3.4.2 and 3.4.4): what stays of a message when servers on
//! the way change blanks and line ends.

use ring::digest::{Context, Digest, SHA256};

/// Hashing a little at a time is slow, and keeping a whole body twice is large.
const CHUNK: usize = 16 * 1024;

/// A message's headers and its body, without the empty line between.
pub(super) fn split(message: &[u8]) -> (&[u8], &[u8]) {
    let end = message.windows(4).position(|window| window == b"\r\n\r\n");
    end.map_or((message, &[]), |end| (&message[..end + 2], &message[end + 4..]))
}

/// One header with the lines that continue it.
pub(super) struct Field<'a> {
    name: &'a [u8],
    value: &'a [u8],
}

/// The headers, in their order.
pub(super) fn fields(head: &[u8]) -> Vec<Field<'_>> {
    let mut fields = Vec::with_capacity(16);
    let mut start = 0;
    for at in 0..head.len() {
        // A line that begins with a blank continues the one before.
        let ends = head[at] == b'\n' && !matches!(head.get(at + 1), Some(b' ' | b'\t'));
        if ends || at + 1 == head.len() {
            let field = &head[start..=at];
            start = at + 1;
            if let Some(colon) = field.iter().position(|byte| *byte == b':') {
                fields.push(Field { name: &field[..colon], value: &field[colon + 1..] });
            }
        }
    }
    fields
}

impl Field<'_> {
    /// Whether it has this name, which is in lower case.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.trim_ascii_end().eq_ignore_ascii_case(name.as_bytes())
    }

    /// Appends its relaxed form.
    pub(super) fn relaxed(&self, out: &mut Vec<u8>) {
        out.extend(self.name.trim_ascii_end().iter().map(u8::to_ascii_lowercase));
        out.push(b':');
        let start = out.len();
        let mut blank = false;
        for &byte in self.value {
            match byte {
                b'\r' | b'\n' => {}
                b' ' | b'\t' => blank = true,
                byte => {
                    if blank && out.len() > start {
                        out.push(b' ');
                    }
                    blank = false;
                    out.push(byte);
                }
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// The hash of a body's relaxed form.
pub(super) fn body_hash(body: &[u8]) -> Digest {
    let mut context = Context::new(&SHA256);
    relaxed_body(body, |piece| context.update(piece));
    context.finish()
}

/// Gives the relaxed form of a body away, piece by piece.
pub(super) fn relaxed_body(body: &[u8], mut give: impl FnMut(&[u8])) {
    let mut buffer = Vec::with_capacity(CHUNK.min(body.len() + 2));
    // Empty lines count only when something follows.
    let mut empty = 0_usize;
    for line in body.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let end = line.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |last| last + 1);
        if end == 0 {
            empty += 1;
            continue;
        }
        for _ in 0..std::mem::take(&mut empty) {
            buffer.extend_from_slice(b"\r\n");
            if buffer.len() >= CHUNK {
                give(&buffer);
                buffer.clear();
            }
        }
        let mut rest = &line[..end];
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b' ' | b'\t')) {
            buffer.extend_from_slice(&rest[..at]);
            buffer.push(b' ');
            let blanks = rest[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            rest = &rest[at + blanks..];
        }
        buffer.extend_from_slice(rest);
        buffer.extend_from_slice(b"\r\n");
        if buffer.len() >= CHUNK {
            give(&buffer);
            buffer.clear();
        }
    }
    give(&buffer);
}
