//! What an event is.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::error::Violations;

/// The greatest payload, in bytes.
pub const DATA_LIMIT: usize = 1024 * 1024;
const TYPE_LIMIT: usize = 128;
/// As deep as serde_json reads.
const NESTING_LIMIT: usize = 100;
const TEXT_LIMIT: usize = 256;
const COLLAPSE_KEY_LIMIT: usize = 128;

/// What an application published, without its place in the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Fact {
    /// `evt_…`.
    pub id: Arc<str>,
    /// Such as `ticket.created`.
    pub event_type: Arc<str>,
    /// One JSON object, byte for byte as published.
    pub data: String,
    /// Who caused it; may be empty.
    pub actor: String,
    /// What it is about; may be empty.
    pub subject: String,
    /// Who may see it live.
    pub topic: Arc<str>,
    /// When it was accepted.
    pub created_at: Timestamp,
}

/// An event: a fact at its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place: positions grow by one in the order of commits.
    pub position: i64,
    /// The fact.
    pub fact: Arc<Fact>,
}

/// Checks the name of an event type.
///
/// # Errors
/// What is wrong with it.
pub fn check_event_type(name: &str) -> Result<(), String> {
    let word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    if name.is_empty() {
        Err("is required".into())
    } else if name.len() > TYPE_LIMIT {
        Err(format!("must have at most {TYPE_LIMIT} characters"))
    } else if !name.split('.').all(word) {
        Err("must be lower-case words joined by dots, such as ticket.created".into())
    } else {
        Ok(())
    }
}

/// Checks a payload: one JSON object of bounded size.
///
/// # Errors
/// What is wrong with it.
pub fn check_data(data: &str) -> Result<(), String> {
    if data.len() > DATA_LIMIT {
        return Err(format!("must have at most {DATA_LIMIT} bytes, and has {}", data.len()));
    }
    if !data.trim_ascii_start().starts_with('{') {
        return Err("must be a JSON object".into());
    }
    if nesting(data) > NESTING_LIMIT {
        return Err(format!("must not be nested deeper than {NESTING_LIMIT} levels"));
    }
    // As those read it who come later: routes, schemas and most receivers, for whom numbers beyond a double and halves of
    // characters are nothing (RFC 7493, 2.1 and 2.2).
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(data)
        .map(drop)
        .map_err(|error| format!("is not JSON: {error}"))
}

/// How deep a JSON text is nested; too deep, and readers of it run out of stack.
fn nesting(json: &str) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Checks a short text of the application's own.
pub fn check_text(violations: &mut Violations, field: &str, text: &str) {
    if text.chars().count() > TEXT_LIMIT {
        violations.add(field, format!("must have at most {TEXT_LIMIT} characters"));
    } else if text.chars().any(char::is_control) {
        violations.add(field, "must not have control characters");
    }
}

/// Checks the key under which only the newest ephemeral event counts.
pub fn check_collapse_key(violations: &mut Violations, field: &str, key: &str) {
    if key.chars().count() > COLLAPSE_KEY_LIMIT {
        violations.add(field, format!("must have at most {COLLAPSE_KEY_LIMIT} characters"));
    } else if key.chars().any(char::is_control) {
        violations.add(field, "must not have control characters");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_types_are_words_joined_by_dots() {
        for good in ["notification", "ticket.created", "a.b_2.c"] {
            assert_eq!(check_event_type(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "A.b", "a b", "a.*", "a..b", "ä", "a-b"] {
            assert!(check_event_type(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn data_is_one_json_object() {
        for good in ["{}", " {\"a\": [1, {\"b\": null}]} "] {
            assert_eq!(check_data(good), Ok(()), "{good}");
        }
        for bad in ["", "[]", "1", "{", "{} {}", "{\"a\": 01}", "{\"a\": \"\u{1}\"}"] {
            assert!(check_data(bad).is_err(), "{bad}");
        }
        for unreadable in [r#"{"a":1e999}"#, r#"{"a":"\ud800"}"#] {
            assert!(check_data(unreadable).is_err(), "{unreadable}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(check_data(&deep).is_err(), "deep nesting is refused and not followed");
    }
}
