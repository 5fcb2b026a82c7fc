//! What of a path is counted together: a path with an id in it is one of very many.

use std::borrow::Cow;

const LONGEST: usize = 256;

/// The path without its query, with `{id}` in place of what looks like an id: numbers, and long words with digits in them.
pub fn of(path: &str) -> Cow<'_, str> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = cut(path, LONGEST);
    if !path.split('/').any(is_id) {
        return Cow::Borrowed(path);
    }
    let parts: Vec<&str> = path.split('/').map(|part| if is_id(part) { "{id}" } else { part }).collect();
    Cow::Owned(parts.join("/"))
}

/// The path without its query, for the log.
pub fn without_query(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or_default()
}

fn is_id(part: &str) -> bool {
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    let plain = part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    plain && digits > 0 && (digits == part.len() || (part.len() >= 16 && digits >= 3))
}

fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_counted_together() {
        for (path, endpoint) in [
            ("/orders/17", "/orders/{id}"),
            ("/orders/17/items/3?x=1", "/orders/{id}/items/{id}"),
            ("/v1/users", "/v1/users"),
            ("/files/0b5bd9a4-8e3c-4f5e-9d8a-1c2d3e4f5a6b", "/files/{id}"),
            ("/events/evt_01jd0000000000000000000000", "/events/{id}"),
            (
                "/switchboard.event.v1.EventService/ListEvents",
                "/switchboard.event.v1.EventService/ListEvents",
            ),
            ("/a-long-name-without-a-number", "/a-long-name-without-a-number"),
            ("", ""),
            ("/?key=secret", "/"),
        ] {
            assert_eq!(of(path), endpoint, "{path}");
        }
        assert_eq!(of(&"ä".repeat(1_000)).len(), LONGEST);
    }
}
