//! Patterns, cursors, payloads and the expressions of routes.

use std::sync::LazyLock;

use minijinja::Value;

use super::cursor::Cursor;
use super::model::{Fact, check_data, check_event_type};
use super::pattern::Pattern;
use super::route::expression::{Expression, Scope, Text};
use super::topic::{self, TopicPattern};
use crate::clock::Timestamp;
use crate::fuzz::texts;

/// Whether a pattern takes a name, told without the code that is tested: word by word.
fn takes(pattern: &str, name: &str, between: char) -> bool {
    let (pattern, name): (Vec<&str>, Vec<&str>) =
        (pattern.split(between).collect(), name.split(between).collect());
    match pattern.split_last() {
        Some((&"*", front)) => name.len() > front.len() && name.starts_with(front),
        _ => pattern == name,
    }
}

/// A pattern over event types and a type.
pub fn event_pattern(data: &[u8]) {
    let Some([pattern, event_type]) = texts(data) else { return };
    let is_word =
        |word: &str| !word.is_empty() && word.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_'));
    let is_type = |text: &str| text.len() <= 128 && text.split('.').all(is_word);
    assert_eq!(check_event_type(event_type).is_ok(), is_type(event_type), "{event_type:?}");
    let read = Pattern::parse(pattern);
    let is_pattern = pattern == "*" || is_type(pattern.strip_suffix(".*").unwrap_or(pattern));
    assert_eq!(read.is_ok(), is_pattern, "{pattern:?}");
    let Ok(read) = read else { return };
    assert_eq!(read.to_string(), pattern);
    assert_eq!(Pattern::parse(&read.to_string()), Ok(read.clone()));
    if is_type(event_type) {
        assert_eq!(read.matches(event_type), takes(pattern, event_type, '.'), "{pattern} and {event_type}");
    }
}

/// Two patterns over topics and a topic.
pub fn topic_pattern(data: &[u8]) {
    let Some([pattern, other, name]) = texts(data) else { return };
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._@+-".contains(&byte))
    };
    let is_topic = |text: &str| text.len() <= 128 && text.split(':').all(is_word);
    assert_eq!(topic::check(name).is_ok(), is_topic(name), "{name:?}");
    if let Some(user) = topic::user(name) {
        assert_eq!(topic::of_user(user), name);
        assert!(is_topic(name) && !user.contains(':'));
    }
    if topic::check_user_id(name).is_ok() {
        assert_eq!(topic::user(&topic::of_user(name)), Some(name));
    }
    let Ok(read) = TopicPattern::parse(pattern) else { return };
    assert_eq!(read.to_string(), pattern);
    if is_topic(name) {
        assert_eq!(read.matches(name), takes(pattern, name, ':'), "{pattern} and {name}");
    }
    let Ok(other) = TopicPattern::parse(other) else { return };
    if read.covers(&other) {
        assert!(!other.matches(name) || read.matches(name), "{read} does not take all that {other} takes");
    } else {
        // Then there is something that only the other takes.
        let witness = match &other {
            TopicPattern::Exactly(topic) => topic.clone(),
            TopicPattern::Below(front) => format!("{front}~"),
            TopicPattern::All => "~".to_owned(),
        };
        assert!(other.matches(&witness) && !read.matches(&witness), "{read} takes all that {other} takes");
    }
}

/// A cursor has one form.
pub fn cursor(data: &[u8]) {
    if let Some([text]) = texts(data)
        && let Some(cursor) = Cursor::decode(text)
    {
        assert_eq!(cursor.encode(), text);
    }
    if let Some((numbers, _)) = data.split_first_chunk::<16>() {
        let [epoch, position] = [&numbers[..8], &numbers[8..]]
            .map(|bytes| i64::from_le_bytes(bytes.try_into().expect("eight bytes")));
        let cursor = Cursor { epoch, position };
        assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
    }
}

/// A payload that is accepted is an object that everybody can read, and its bytes stay as they are.
pub fn event_data(data: &[u8]) {
    let Some([text, schema]) = texts(data) else { return };
    if check_data(text).is_ok() {
        let value: serde_json::Value = serde_json::from_str(text).expect("it is JSON");
        assert!(value.is_object() && text.len() <= 1024 * 1024);
        let written = value.to_string();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&written).expect("it is JSON"), value);
        assert_eq!(check_data(&written), Ok(()), "what was read can be sent again");
    }
    super::registry::fuzz(schema, text);
}

static SCOPE: LazyLock<Scope> = LazyLock::new(|| {
    let data = r#"{"title":"Pump <3>","count":42,"price":9.5,"list":[3,1,2],"deep":{"a":{"b":"c"}},"none":null,"yes":true}"#;
    let fact = Fact {
        id: "evt_1".into(),
        event_type: "ticket.created".into(),
        data: data.into(),
        actor: "jo".into(),
        subject: "ticket:7".into(),
        topic: "events".into(),
        created_at: Timestamp::from_micros(1_700_000_000_000_000),
    };
    Scope::new(&fact, &Value::UNDEFINED)
});

/// The condition of a route, or a text with variables: it ends, and what it makes is bounded.
pub fn expression(data: &[u8]) {
    let Some([text]) = texts(data) else { return };
    if let Ok(expression) = Expression::compile(text) {
        assert!(text.len() <= 1_024);
        let value = expression.evaluate(&SCOPE.context);
        assert_eq!(expression.is_true(&SCOPE.context), value.as_ref().is_ok_and(Value::is_true));
        if let Ok(value) = value {
            let size = value.as_str().map_or(0, str::len).max(value.len().unwrap_or_default());
            assert!(size <= 1024 * 1024, "the value has {size} bytes or entries");
        }
    }
    if let Ok(compiled) = Text::compile(text) {
        assert!(text.len() <= 4_096);
        let made = compiled.render(&SCOPE.for_texts());
        assert!(made.len() <= 1024 * 1024, "the text has {} bytes", made.len());
    }
}
