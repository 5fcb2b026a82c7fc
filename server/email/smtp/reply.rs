//! Replies (RFC 5321, section 4.2) and enhanced status codes (RFC 3463), read within bounds.

use std::fmt;

/// The longest line of a reply, in bytes.  RFC 5321 allows 512; some servers are generous.
pub const LINE_LIMIT: usize = 2048;
/// The most lines of a reply.
pub const LINE_COUNT: usize = 100;
/// How much of a reply's text is kept, in bytes.
const TEXT_LIMIT: usize = 2048;

/// An enhanced status code, such as 5.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enhanced {
    /// 2 for success, 4 for now, 5 for good.
    pub class: u8,
    /// What it is about.
    pub subject: u16,
    /// The detail.
    pub detail: u16,
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The code, 200 to 599.
    pub code: u16,
    /// The enhanced status code, if the text begins with one of the code's class.
    pub enhanced: Option<Enhanced>,
    /// The text, its lines joined by spaces, without control characters.
    pub text: String,
}

/// Why bytes are no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// A line is longer than [`LINE_LIMIT`].
    LongLine,
    /// There are more lines than [`LINE_COUNT`].
    ManyLines,
    /// A line does not begin with a code, or with another one than the first.
    Code,
}

/// A whole reply at the beginning of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its code.
    pub code: u16,
    /// How many bytes it has.
    pub length: usize,
}

/// Looks for a whole reply at the beginning of `bytes`; `None` when there is more to come.
///
/// # Errors
/// When it is none, or larger than allowed.
pub fn find(bytes: &[u8]) -> Result<Option<Found>, Malformed> {
    let mut at = 0;
    let mut first = None;
    for _ in 0..LINE_COUNT {
        let rest = &bytes[at..];
        let window = &rest[..rest.len().min(LINE_LIMIT)];
        let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
            return if rest.len() >= LINE_LIMIT { Err(Malformed::LongLine) } else { Ok(None) };
        };
        let line = trim_end(&rest[..end]);
        at += end + 1;
        let code = code(line).ok_or(Malformed::Code)?;
        if *first.get_or_insert(code) != code {
            return Err(Malformed::Code);
        }
        match line.get(3) {
            None | Some(b' ') => return Ok(Some(Found { code, length: at })),
            Some(b'-') => {}
            Some(_) => return Err(Malformed::Code),
        }
    }
    Err(Malformed::ManyLines)
}

fn trim_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn code(line: &[u8]) -> Option<u16> {
    let digits = line.first_chunk::<3>()?;
    if !digits.iter().all(u8::is_ascii_digit) || !(b'2'..=b'5').contains(&digits[0]) {
        return None;
    }
    Some(digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0')))
}

impl Reply {
    /// Reads the bytes of a whole reply, as [`find`] has found it.
    pub fn read(code: u16, bytes: &[u8]) -> Self {
        let mut text = String::new();
        let mut enhanced = None;
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| line.len() > 3) {
            let line = String::from_utf8_lossy(trim_end(line).get(4..).unwrap_or_default());
            let own = Enhanced::at_start(&line).filter(|own| u16::from(own.class) == code / 100);
            let line = match (own, enhanced) {
                // Repeated in front of every line.
                (Some(own), Some(first)) if own == first => line.split_once(' ').map_or("", |(_, rest)| rest),
                (own, None) if text.is_empty() => {
                    enhanced = own;
                    &line
                }
                _ => &line,
            };
            if !text.is_empty() && !line.is_empty() {
                text.push(' ');
            }
            text.extend(line.chars().map(|c| if c.is_control() { ' ' } else { c }));
            if text.len() > TEXT_LIMIT {
                text.truncate(text.floor_char_boundary(TEXT_LIMIT));
                break;
            }
        }
        Self { code, enhanced, text: text.trim_end().to_owned() }
    }

    /// Whether it says yes.
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// Whether its enhanced code has this subject and one of these details.
    pub fn is_about(&self, subject: u16, details: &[u16]) -> bool {
        self.enhanced.is_some_and(|own| own.subject == subject && details.contains(&own.detail))
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text.is_empty() {
            write!(f, "{}", self.code)
        } else {
            write!(f, "{} {}", self.code, self.text)
        }
    }
}

impl Enhanced {
    /// Reads one at the start of a text.
    fn at_start(text: &str) -> Option<Self> {
        let word = text.split(' ').next()?;
        let mut parts = word.split('.');
        let number = |part: Option<&str>| {
            let part = part.filter(|part| (1..=3).contains(&part.len()))?;
            part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u16>().ok()).flatten()
        };
        let class = number(parts.next()).filter(|class| matches!(class, 2 | 4 | 5))?;
        let own = Self {
            class: u8::try_from(class).ok()?,
            subject: number(parts.next())?,
            detail: number(parts.next())?,
        };
        parts.next().is_none().then_some(own)
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LongLine => write!(f, "a line of the reply has more than {LINE_LIMIT} bytes"),
            Self::ManyLines => write!(f, "the reply has more than {LINE_COUNT} lines"),
            Self::Code => f.write_str("the answer is no SMTP reply"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Reply {
        let found = find(text.as_bytes()).unwrap().unwrap();
        assert_eq!(found.length, text.len());
        Reply::read(found.code, text.as_bytes())
    }

    #[test]
    fn replies_are_read_with_their_enhanced_codes() {
        let reply = read("550-5.1.1 No such user\r\n550 5.1.1 here\r\n");
        assert_eq!(reply.to_string(), "550 5.1.1 No such user here");
        assert_eq!(reply.enhanced, Some(Enhanced { class: 5, subject: 1, detail: 1 }));
        assert!(reply.is_about(1, &[1]) && !reply.is_about(1, &[2]));
        assert_eq!(read("250\r\n").to_string(), "250");
        assert_eq!(read("250 \n").to_string(), "250");
        assert_eq!(read("220-a\r\n220-\r\n220 b\r\n").text, "a b");
        for text in
            ["250 4.0.0 other class\r\n", "250 2.0 short\r\n", "250 2.0.0.0 long\r\n", "250 2.1234.0\r\n"]
        {
            assert_eq!(read(text).enhanced, None, "{text}");
        }
        assert_eq!(read("250 a\0b\x1bc\r\n").text, "a b c");
    }

    #[test]
    fn what_is_not_whole_waits_and_what_is_wrong_is_refused() {
        for partial in ["", "2", "250", "250 ok", "250 ok\r", "250-ok\r\n", "250-ok\r\n250 "] {
            assert_eq!(find(partial.as_bytes()), Ok(None), "{partial:?}");
        }
        for wrong in ["25\r\n", "abc\r\n", "150 x\r\n", "650 x\r\n", "250x\r\n", "250-a\r\n251 b\r\n", "\r\n"]
        {
            assert_eq!(find(wrong.as_bytes()), Err(Malformed::Code), "{wrong:?}");
        }
        assert_eq!(find("250-x\r\n".repeat(LINE_COUNT).as_bytes()), Err(Malformed::ManyLines));
        assert_eq!(find(&[b'2'; LINE_LIMIT]), Err(Malformed::LongLine));
        let long = format!("250 {}\r\n", "x".repeat(LINE_LIMIT));
        assert_eq!(find(long.as_bytes()), Err(Malformed::LongLine));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            if let Ok(Some(found)) = find(&bytes) {
                prop_assert!(found.length <= bytes.len());
                let reply = Reply::read(found.code, &bytes[..found.length]);
                prop_assert!(!reply.text.chars().any(char::is_control));
            }
        }

        #[test]
        fn a_reply_is_found_wherever_it_is_cut(text in "[ -~]{0,60}", cut in 0usize..70) {
            let whole = format!("250-{text}\r\n250 {text}\r\n");
            let cut = cut.min(whole.len() - 1);
            prop_assert_eq!(find(&whole.as_bytes()[..cut]), Ok(None));
            prop_assert_eq!(find(whole.as_bytes()).unwrap().unwrap().length, whole.len());
        }
    }
}
