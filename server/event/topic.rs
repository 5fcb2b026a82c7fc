//! Topics: who may see an event live.

use std::fmt;

use crate::error::Violations;

/// The topic of events that were published without one.
pub const DEFAULT: &str = "events";
/// The topic that every user has.
pub const BROADCAST: &str = "broadcast";
/// The topic of presence: who came and who went.
pub const PRESENCE: &str = "presence";
/// The topic of the server's own numbers.
pub const DASHBOARD: &str = "dashboard";
/// What a user's own topic begins with.
const USER: &str = "user:";
const LIMIT: usize = 128;
const USER_ID_LIMIT: usize = LIMIT - USER.len();

/// A user's own topic.
pub fn of_user(user_id: &str) -> String {
    format!("{USER}{user_id}")
}

/// Whose own topic it is; `None` when it is nobody's.
pub fn user(topic: &str) -> Option<&str> {
    topic.strip_prefix(USER).filter(|user_id| check_user_id(user_id).is_ok())
}

/// Checks a topic: words joined by `:`.
///
/// # Errors
/// What is wrong with it.
pub fn check(topic: &str) -> Result<(), String> {
    if topic.len() > LIMIT {
        return Err(format!("must have at most {LIMIT} characters"));
    }
    if !topic.split(':').all(is_word) {
        return Err("must be words joined by colons, such as chat:9".into());
    }
    Ok(())
}

/// Checks a user's id: a word, so that it is a part of a topic.
///
/// # Errors
/// What is wrong with it.
pub fn check_user_id(user_id: &str) -> Result<(), String> {
    if user_id.is_empty() {
        return Err("is required".into());
    }
    if user_id.len() > USER_ID_LIMIT {
        return Err(format!("must have at most {USER_ID_LIMIT} characters"));
    }
    if !is_word(user_id) {
        return Err("must be letters, digits and . _ @ + - only".into());
    }
    Ok(())
}

fn is_word(word: &str) -> bool {
    let character = |byte: u8| byte.is_ascii_alphanumeric() || b"._@+-".contains(&byte);
    !word.is_empty() && word.bytes().all(character)
}

/// A pattern over topics.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TopicPattern {
    /// `*`.
    All,
    /// `chat:*`, kept as `chat:`.
    Below(String),
    /// One topic.
    Exactly(String),
}

impl TopicPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::All);
        }
        let wrong = |_| "must be a topic, `word:*` for all that begin with it, or `*`".to_owned();
        match text.strip_suffix('*') {
            Some(prefix) => {
                check(prefix.strip_suffix(':').unwrap_or_default()).map_err(wrong)?;
                Ok(Self::Below(prefix.to_owned()))
            }
            None => check(text).map(|()| Self::Exactly(text.to_owned())).map_err(wrong),
        }
    }

    /// Whether it takes this topic.
    pub fn matches(&self, topic: &str) -> bool {
        match self {
            Self::All => true,
            Self::Below(prefix) => topic.starts_with(prefix.as_str()),
            Self::Exactly(wanted) => topic == wanted,
        }
    }

    /// Whether it takes every topic that `other` takes.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (_, Self::All) => false,
            (Self::Below(wide), Self::Below(narrow)) => narrow.starts_with(wide.as_str()),
            (Self::Exactly(_), Self::Below(_)) => false,
            (_, Self::Exactly(topic)) => self.matches(topic),
        }
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Below(prefix) => write!(f, "{prefix}*"),
            Self::Exactly(topic) => f.write_str(topic),
        }
    }
}

/// Reads several patterns; says for each bad one which it is.
pub fn parse_all(violations: &mut Violations, field: &str, texts: &[String]) -> Vec<TopicPattern> {
    let parse = |(index, text): (usize, &String)| {
        violations.check(&format!("{field}[{index}]"), TopicPattern::parse(text))
    };
    texts.iter().enumerate().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_words_joined_by_colons() {
        for good in ["events", "chat:9", "user:jo@example.com", "tenant:7:tickets"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", ":", "a:", ":a", "a b", "a*", "a:*", "ä", "a/b"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_users_topic_is_theirs_alone() {
        assert_eq!(user(&of_user("42")), Some("42"));
        assert_eq!(user("user:4:2"), None);
        assert_eq!(user("users:42"), None);
    }

    #[test]
    fn a_pattern_covers_what_it_matches() {
        let parse = |text| TopicPattern::parse(text).unwrap();
        assert!(parse("chat:*").matches("chat:9"));
        assert!(!parse("chat:*").matches("chat"));
        assert!(!parse("chat:*").matches("chats:9"));
        assert!(parse("*").covers(&parse("chat:*")));
        assert!(parse("chat:*").covers(&parse("chat:9:*")));
        assert!(parse("chat:*").covers(&parse("chat:9")));
        assert!(parse("chat:9").covers(&parse("chat:9")));
        assert!(!parse("chat:9").covers(&parse("chat:*")));
        assert!(!parse("chat:9:*").covers(&parse("chat:*")));
        assert!(!parse("chat:*").covers(&parse("*")));
        for bad in ["", "chat*", ":*", "**", "chat::*"] {
            assert!(TopicPattern::parse(bad).is_err(), "{bad}");
        }
    }
}
