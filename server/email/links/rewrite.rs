//! Puts links that are counted into a finished HTML body.
//!
//! The body is read once from left to right, as the tokenizer of the HTML standard reads it (13.2.5), and copied byte by
//! byte; only the values of `href` in `<a>` that lead to the web are replaced.  What is not understood is left as it is:
//! a link that is not counted still works.

use super::token::{Links, TARGET_LIMIT, web_target};

/// Elements whose content is text whatever it looks like.
const RAW: [&str; 8] = ["script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes"];

/// Leads the links of an HTML body over this server, so that following one is counted.
pub fn rewrite_links(html: &str, links: &Links, email_id: &str, address: &str) -> String {
    if !links.are_reachable() {
        return html.to_owned();
    }
    let mut scanner = Scanner { html, at: 0 };
    let (mut out, mut copied) = (String::with_capacity(html.len() * 2), 0);
    while let Some(href) = scanner.next_href() {
        let Some(target) = decode(href.value).and_then(|value| target(&value, links)) else {
            continue;
        };
        out.push_str(&html[copied..href.start]);
        out.push('"');
        escape(&links.click_url(email_id, address, &target), &mut out);
        out.push('"');
        copied = href.end;
    }
    out.push_str(&html[copied..]);
    out
}

/// Puts a picture that nobody sees at the end of an HTML body; loading it counts as opening the mail.
pub fn add_open_picture(html: &str, url: &str) -> String {
    if html.is_empty() {
        return String::new();
    }
    let end = b"</body";
    let found = html.as_bytes().windows(end.len()).rposition(|bytes| bytes.eq_ignore_ascii_case(end));
    let (before, after) = html.split_at(found.unwrap_or(html.len()));
    let mut out = String::with_capacity(html.len() + url.len() + 80);
    out.push_str(before);
    out.push_str("<img src=\"");
    escape(url, &mut out);
    out.push_str("\" alt=\"\" width=\"1\" height=\"1\" border=\"0\" style=\"display:block;width:1px;height:1px;border:0;\">");
    out.push_str(after);
    out
}

/// Where to lead a link, if it is to be counted.
fn target(value: &str, links: &Links) -> Option<String> {
    let url = web_target(value)?;
    let counted = url.as_str().len() <= TARGET_LIMIT && !links.is_own(url.as_str());
    counted.then(|| url.into())
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
}

/// The text of an attribute's value.  `None` when it has a character reference that is not known here: one that is read
/// wrongly would lead elsewhere.
fn decode(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(number) = rest.strip_prefix('#') {
            let (digits, radix) = match number.strip_prefix(['x', 'X']) {
                Some(digits) => (digits, 16),
                None => (number, 10),
            };
            let length = digits.bytes().take_while(|b| char::from(*b).is_digit(radix)).count();
            // Browsers read 0x80 to 0x9f as another character set, and replace what is no character.
            let code = u32::from_str_radix(&digits[..length], radix).ok()?;
            out.push(char::from_u32(code).filter(|c| !c.is_control())?);
            rest = &digits[length..];
            rest = rest.strip_prefix(';').unwrap_or(rest);
            continue;
        }
        let length = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let (name, after) = rest.split_at(length);
        let known = match name {
            "amp" | "AMP" => Some('&'),
            "lt" | "LT" => Some('<'),
            "gt" | "GT" => Some('>'),
            "quot" | "QUOT" => Some('"'),
            "apos" if after.starts_with(';') => Some('\''),
            _ => None,
        };
        match (known, after.strip_prefix(';')) {
            (Some(c), Some(after)) => {
                out.push(c);
                rest = after;
            }
            // An old form without its semicolon, unless it is the name of a parameter, as in `?a=1&lt=2`.
            (Some(c), None) if !after.starts_with('=') => {
                out.push(c);
                rest = after;
            }
            (None, Some(_)) if length > 0 => return None,
            _ => out.push('&'),
        }
    }
    out.push_str(rest);
    Some(out)
}

/// The value of an `href`, and where it stands with its quotes.
struct Href<'a> {
    value: &'a str,
    start: usize,
    end: usize,
}

struct Scanner<'a> {
    html: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// The first `href` of the next `<a>` that has one.
    fn next_href(&mut self) -> Option<Href<'a>> {
        loop {
            let rest = &self.html[self.at..];
            self.at += rest.find('<')? + 1;
            let rest = &self.html[self.at..];
            if let Some(comment) = rest.strip_prefix("!--") {
                // `<!-->` is a whole comment.
                let from = self.at + 3;
                let end = if comment.starts_with('>') { 1 } else { comment.find("-->")? + 3 };
                self.at = from + end;
            } else if rest.starts_with(['!', '?']) {
                self.at += rest.find('>')? + 1;
            } else if let Some(end_tag) = rest.strip_prefix('/') {
                if end_tag.starts_with(|c: char| c.is_ascii_alphabetic()) {
                    self.at += 1;
                    self.tag()?;
                } else {
                    self.at += rest.find('>')? + 1;
                }
            } else if rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
                let (name, href) = self.tag()?;
                if name.eq_ignore_ascii_case("a") && href.is_some() {
                    return href;
                }
                if name.eq_ignore_ascii_case("plaintext") {
                    return None;
                }
                if RAW.iter().any(|raw| name.eq_ignore_ascii_case(raw)) {
                    self.skip_raw(name)?;
                }
            }
        }
    }

    /// Reads a tag from its name to behind its `>`; `None` when it does not end.
    fn tag(&mut self) -> Option<(&'a str, Option<Href<'a>>)> {
        let html = self.html;
        let name = self.take_until(|b| is_space(b) || matches!(b, b'/' | b'>'));
        let mut href = None;
        loop {
            self.take_until(|b| !is_space(b) && b != b'/');
            if self.peek()? == b'>' {
                self.at += 1;
                return Some((name, href));
            }
            // An attribute's name may begin with `=`.
            let start = self.at;
            self.at += 1;
            self.take_until(|b| is_space(b) || matches!(b, b'/' | b'>' | b'='));
            let attribute = html.get(start..self.at)?;
            self.take_until(|b| !is_space(b));
            if self.peek()? != b'=' {
                continue;
            }
            self.at += 1;
            self.take_until(|b| !is_space(b));
            let start = self.at;
            let value = match self.peek()? {
                quote @ (b'"' | b'\'') => {
                    self.at += 1;
                    let value = self.take_until(|b| b == quote);
                    self.peek()?;
                    self.at += 1;
                    value
                }
                _ => self.take_until(|b| is_space(b) || b == b'>'),
            };
            // Of an attribute that is there twice, the first one counts.
            if href.is_none() && attribute.eq_ignore_ascii_case("href") {
                href = Some(Href { value, start, end: self.at });
            }
        }
    }

    /// Goes on behind the end of an element whose content is text.
    fn skip_raw(&mut self, name: &str) -> Option<()> {
        loop {
            let rest = &self.html[self.at..];
            self.at += rest.find("</")? + 2;
            let rest = &self.html.as_bytes()[self.at..];
            let is_end =
                rest.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()))
                    && rest.get(name.len()).is_none_or(|&b| is_space(b) || matches!(b, b'/' | b'>'));
            if is_end {
                self.tag()?;
                return Some(());
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.html.as_bytes().get(self.at).copied()
    }

    /// Goes on to the first byte that is an end, or to the end of all.  Ends are ASCII, so that what is taken is whole
    /// characters.
    fn take_until(&mut self, is_end: impl Fn(u8) -> bool) -> &'a str {
        let rest = &self.html.as_bytes()[self.at..];
        let length = rest.iter().position(|&b| is_end(b)).unwrap_or(rest.len());
        let start = self.at;
        self.at += length;
        self.html.get(start..self.at).unwrap_or_default()
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c')
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
