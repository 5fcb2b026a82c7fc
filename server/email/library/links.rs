//! Keeps a value from becoming a link that does something: `javascript:` in `href="{{ url }}"`.

use std::borrow::Cow;

/// Attributes that hold an address.
const ATTRIBUTES: [&str; 8] =
    ["href", "src", "action", "formaction", "background", "poster", "cite", "longdesc"];
/// What an address may begin with; one without a scheme stays below the page that it is on.
const SCHEMES: [&str; 6] = ["http", "https", "mailto", "tel", "sms", "cid"];
/// Pictures may stand in the page itself.
const PICTURES: [&str; 4] = ["data:image/png", "data:image/jpeg", "data:image/gif", "data:image/webp"];

/// The page with `#` in place of every address that is none of the usual kinds.
///
/// It looks for the attributes wherever they stand, in comments too: a reader that tells tags from text otherwise than
/// this one can not be led past it.
pub(super) fn neutralise(html: &str) -> Cow<'_, str> {
    let bytes = html.as_bytes();
    let (mut safe, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(offset) = bytes[at..].iter().position(|&byte| byte == b'=') {
        let equals = at + offset;
        at = equals + 1;
        if !is_address(&html[..equals]) {
            continue;
        }
        let value = skip_space(html, at);
        let (start, end) = match bytes.get(value) {
            Some(&quote @ (b'"' | b'\'')) => {
                let start = value + 1;
                (start, html[start..].find(char::from(quote)).map_or(html.len(), |length| start + length))
            }
            _ => {
                let is_end = |c: char| c.is_ascii_whitespace() || c == '>';
                (value, html[value..].find(is_end).map_or(html.len(), |length| value + length))
            }
        };
        if !is_harmless(&html[start..end]) {
            safe.push_str(&html[copied..start]);
            safe.push('#');
            (copied, at) = (end, end);
        }
    }
    if copied == 0 {
        return Cow::Borrowed(html);
    }
    safe.push_str(&html[copied..]);
    Cow::Owned(safe)
}

/// Whether the name of an attribute that holds an address stands at the end.
fn is_address(before: &str) -> bool {
    let before = before.trim_end_matches(|c: char| c.is_ascii_whitespace());
    ATTRIBUTES.iter().any(|name| {
        let Some(start) =
            before.len().checked_sub(name.len()).filter(|&start| before.is_char_boundary(start))
        else {
            return false;
        };
        let (rest, found) = before.split_at(start);
        found.eq_ignore_ascii_case(name) && !rest.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '-')
    })
}

fn skip_space(html: &str, at: usize) -> usize {
    html.len() - html[at..].trim_start_matches(|c: char| c.is_ascii_whitespace()).len()
}

fn is_harmless(written: &str) -> bool {
    // Readers drop white space and control characters, and decode what is encoded, before they look for the scheme.
    let target: String = decode(written)
        .chars()
        .filter(|&c| !c.is_control() && !c.is_whitespace() && !is_invisible(c))
        .collect::<String>()
        .to_ascii_lowercase();
    let Some(colon) = target.find(':') else {
        return true;
    };
    let scheme = &target[..colon];
    scheme.contains(['/', '?', '#'])
        || SCHEMES.contains(&scheme)
        || PICTURES
            .iter()
            .any(|picture| target.strip_prefix(picture).is_some_and(|rest| rest.starts_with([';', ','])))
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Decodes the references of HTML that can hide a scheme: numbers, and the named ones of ASCII characters in it.
fn decode(written: &str) -> Cow<'_, str> {
    const NAMED: [(&str, char); 6] =
        [("colon;", ':'), ("tab;", '\t'), ("newline;", '\n'), ("sol;", '/'), ("num;", '#'), ("amp;", '&')];
    if !written.contains('&') {
        return Cow::Borrowed(written);
    }
    let mut decoded = String::with_capacity(written.len());
    let mut rest = written;
    while let Some(position) = rest.find('&') {
        decoded.push_str(&rest[..position]);
        rest = &rest[position + 1..];
        let named = NAMED
            .iter()
            .find(|(name, _)| rest.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name)));
        if let Some((name, letter)) = named {
            decoded.push(*letter);
            rest = &rest[name.len()..];
        } else if let Some((letter, length)) = numeric(rest) {
            decoded.extend(letter);
            rest = &rest[length..];
        } else {
            decoded.push('&');
        }
    }
    decoded.push_str(rest);
    Cow::Owned(decoded)
}

/// The character of `#58;` or `#x3a`, with the length of what says so.
fn numeric(reference: &str) -> Option<(Option<char>, usize)> {
    let digits = reference.strip_prefix('#')?;
    let (digits, radix) = match digits.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    let length = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    if length == 0 {
        return None;
    }
    let letter = u32::from_str_radix(&digits[..length], radix).ok().and_then(char::from_u32);
    let semicolon = usize::from(digits[length..].starts_with(';'));
    Some((letter, reference.len() - digits.len() + length + semicolon))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_do_something_are_taken_out() {
        for target in [
            "javascript:alert(1)",
            " JaVaScRiPt:alert(1)",
            "java\tscript:alert(1)",
            "java&#10;script:alert(1)",
            "javascript&#58;alert(1)",
            "javascript&#x3A;alert(1)",
            "javascript&#0000058alert(1)",
            "javascript&colon;alert(1)",
            "java&Tab;script:alert(1)",
            "\u{1}javascript:alert(1)",
            "java\u{200b}script:alert(1)",
            "&#106;avascript:alert(1)",
            "vbscript:x",
            "data:text/html,<script>",
            "data:text/html;base64,AAAA",
            "data:image/svg+xml,x",
            "file:///etc/passwd",
            "blob:x",
            "x&#99999999999;:y",
        ] {
            assert_eq!(neutralise(&format!("<a href=\"{target}\">x</a>")), "<a href=\"#\">x</a>", "{target}");
            assert_eq!(neutralise(&format!("<img\nSRC = '{target}'>")), "<img\nSRC = '#'>", "{target}");
            assert_eq!(
                neutralise(&format!("<!-- <a href='{target}'> -->")),
                "<!-- <a href='#'> -->",
                "{target}"
            );
        }
        assert_eq!(neutralise("<a href=javascript:x>a</a>"), "<a href=#>a</a>");
        assert_eq!(neutralise("<a title=\"x\"href=\"javascript:x"), "<a title=\"x\"href=\"#");
        assert_eq!(neutralise("<svg><a xlink:href='javascript:x'>"), "<svg><a xlink:href='#'>");
    }

    #[test]
    fn the_usual_addresses_stay() {
        for html in [
            "<a href=\"https://example.com/a?b=c:d&amp;e=1#f\">x</a>",
            "<a href='mailto:jo@example.com'>x</a><a href=tel:+351123>y</a>",
            "<img src=\"cid:logo\"><img src=\"data:image/png;base64,AAAA\">",
            "<a href=\"/tickets/4:2\">x</a><a href=\"#top\">y</a><a href=\"\">z</a>",
            "<p data-href=\"javascript:x\">hrefs = javascript:x, é=javascript:</p>",
        ] {
            assert_eq!(neutralise(html), html);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_page_is_read_to_its_end(html in "(<a|href|src|=|\"|'|javascript:|&#|x3a;|>|é|\\PC){0,40}") {
            let once = neutralise(&html).into_owned();
            proptest::prop_assert_eq!(neutralise(&once), once.as_str());
        }
    }
}
