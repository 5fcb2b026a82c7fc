//! What was said, for those who have to find out why a mail did not go.

/// How much is kept of one, in bytes; the oldest lines go first.
const LIMIT: usize = 16 * 1024;

/// What client and server said, one line each: `> ` before the client's, `< ` before the server's.
#[derive(Debug, Clone, Default)]
pub struct Transcript(Vec<u8>);

impl Transcript {
    /// Adds what the client sent: whole lines.  Secrets must have been left out.
    pub fn client(&mut self, lines: &[u8]) {
        self.add(b"> ", lines);
    }

    /// Adds what the server sent: whole lines.
    pub fn server(&mut self, lines: &[u8]) {
        self.add(b"< ", lines);
    }

    /// Adds a remark.
    pub fn note(&mut self, text: &str) {
        self.add(b"* ", text.as_bytes());
    }

    /// Forgets everything, and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn add(&mut self, mark: &[u8], lines: &[u8]) {
        for line in lines.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                continue;
            }
            self.0.extend_from_slice(mark);
            let kept = &line[..line.len().min(512)];
            self.0.extend(kept.iter().map(|byte| if byte.is_ascii_control() { b' ' } else { *byte }));
            self.0.push(b'\n');
        }
        if self.0.len() > 2 * LIMIT {
            let cut = self.0.len() - LIMIT;
            let line = self.0[cut..].iter().position(|byte| *byte == b'\n').map_or(cut, |end| cut + end + 1);
            self.0.drain(..line);
        }
    }

    /// All that is kept, and before it what was said at the beginning of the connection.
    pub fn show(&self, beginning: &str) -> String {
        let cut = self.0.len().saturating_sub(LIMIT);
        format!("{beginning}{}", String::from_utf8_lossy(&self.0[cut..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_who_said_what_and_stays_small() {
        let mut transcript = Transcript::default();
        transcript.client(b"MAIL FROM:<a@example.com>\r\nDATA\r\n");
        transcript.server(b"250-a\x1b\r\n250 b\r\n");
        transcript.note("the link dropped");
        let expected =
            "* start\n> MAIL FROM:<a@example.com>\n> DATA\n< 250-a \n< 250 b\n* the link dropped\n";
        assert_eq!(transcript.show("* start\n"), expected);
        for _ in 0..10_000 {
            transcript.server(b"250 again and again\r\n");
        }
        assert!(transcript.0.len() <= 2 * LIMIT && transcript.show("").len() <= LIMIT);
        assert!(transcript.show("").ends_with("< 250 again and again\n"));
    }
}
