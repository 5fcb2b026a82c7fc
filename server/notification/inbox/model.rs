//! What a notification is, and what may be said of it.

use crate::clock::Timestamp;
use crate::error::Violations;
use crate::event::model::{check_data, check_event_type};

/// How many notifications the inbox of a user holds; the oldest go.
pub const INBOX_LIMIT: i64 = 10_000;
/// How many broadcasts there are; the oldest go.
pub const BROADCAST_LIMIT: i64 = 1_000;
/// How many users one call tells.
pub const USER_LIMIT: usize = 500;
/// How many notifications one call marks by their ids.
pub const SELECTION_LIMIT: usize = 500;
/// The category of what has none.
pub const GENERAL: &str = "general";
/// The greatest text, in characters.
pub const MESSAGE_LIMIT: usize = 4_096;
/// The greatest heading, in characters.
pub const TITLE_LIMIT: usize = 256;
/// The greatest address, in bytes.
pub const URL_LIMIT: usize = 2_048;
/// The greatest object of the application's, in bytes.
pub const DATA_LIMIT: usize = 16 * 1024;
/// The greatest key that a later notification takes the place by, in characters.
pub const KEY_LIMIT: usize = 128;
/// How far ahead an end may lie.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// How much a notification matters; kept as its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "explained by the API")]
pub enum Priority {
    Low = 1,
    #[default]
    Normal = 2,
    High = 3,
    Critical = 4,
}

impl Priority {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Low, "low"), (Self::Normal, "normal"), (Self::High, "high"), (Self::Critical, "critical")];

    /// Its word, as events have it.
    pub fn word(self) -> &'static str {
        Self::ALL[self as usize - 1].1
    }

    /// That of a word; any other is normal.
    pub fn of_word(word: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|(_, known)| *known == word)
            .map(|(priority, _)| priority)
            .unwrap_or_default()
    }

    /// That of a number; any other is normal.
    pub fn of_number(number: i16) -> Self {
        Self::ALL.into_iter().map(|(one, _)| one).find(|one| *one as i16 == number).unwrap_or_default()
    }
}

/// What a notification says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Content {
    pub category: String,
    pub title: String,
    pub message: String,
    pub priority: Priority,
    pub action_url: String,
    /// A JSON object as text; may be empty.
    pub data: String,
    pub expires_at: Option<Timestamp>,
}

impl Content {
    /// Notes what is wrong with it, of the fields that `checked` names.
    pub fn check(&self, violations: &mut Violations, now: Timestamp, checked: impl Fn(&str) -> bool) {
        let mut check = |field: &str, result: Result<(), String>| {
            if checked(field) {
                violations.check(&format!("content.{field}"), result);
            }
        };
        if !self.category.is_empty() {
            check("category", check_category(&self.category));
        }
        check("title", check_line(&self.title, TITLE_LIMIT));
        check("message", check_message(&self.message));
        check("action_url", check_url(&self.action_url));
        if !self.data.is_empty() {
            let size =
                if self.data.len() > DATA_LIMIT { Err("must have at most 16 KiB".into()) } else { Ok(()) };
            check("data", size.and_then(|()| check_data(&self.data)));
        }
        let ends = |at: Timestamp| at > now && at <= now + LONGEST;
        if !self.expires_at.is_none_or(ends) {
            check("expire_time", Err("must be in the future, and at most ten years ahead".into()));
        }
    }
}

/// Checks the name of a category.
///
/// # Errors
/// What is wrong with it.
pub fn check_category(category: &str) -> Result<(), String> {
    check_event_type(category).map_err(|_| {
        "must be lower-case words joined by dots, at most 128 characters, such as chat.mention".to_owned()
    })
}

/// Checks a text of one line.
///
/// # Errors
/// What is wrong with it.
pub fn check_line(text: &str, limit: usize) -> Result<(), String> {
    if text.chars().count() > limit || text.chars().any(char::is_control) {
        return Err(format!("must have at most {limit} characters, and no control characters"));
    }
    Ok(())
}

fn check_message(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        Err("is required".into())
    } else if text.chars().count() > MESSAGE_LIMIT || text.contains('\0') {
        Err(format!("must have at most {MESSAGE_LIMIT} characters, and no NUL"))
    } else {
        Ok(())
    }
}

/// Checks where opening a notification leads.
///
/// # Errors
/// What is wrong with it.
pub fn check_url(url: &str) -> Result<(), String> {
    let path = url.starts_with('/') && !url.starts_with("//");
    // As it stands: a browser takes `https:/x` and `https:///x` for the host x.
    let host = url.strip_prefix("https://").is_some_and(|rest| !rest.starts_with('/'))
        && url::Url::parse(url).is_ok_and(|url| url.has_host());
    // A backslash is a slash to browsers, and a path that begins with two is another host.
    let clean =
        url.len() <= URL_LIMIT && !url.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\');
    if url.is_empty() || ((path || host) && clean) {
        return Ok(());
    }
    Err("must be an absolute https URL or a path that begins with one /, of at most 2048 characters".into())
}

/// How many notifications of a user wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Counts {
    pub unread: i64,
    pub unseen: i64,
    pub version: i64,
}

/// What a user does with notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "explained by the API")]
pub enum Mark {
    Seen,
    Read,
    Unread,
    Archived,
    Unarchived,
}

impl Mark {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Seen, "seen"),
        (Self::Read, "read"),
        (Self::Unread, "unread"),
        (Self::Archived, "archived"),
        (Self::Unarchived, "unarchived"),
    ];

    /// Its word, as events have it.
    pub fn word(self) -> &'static str {
        Self::ALL.into_iter().find(|(mark, _)| *mark == self).map_or("", |(_, word)| word)
    }

    /// That of a word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == word).map(|(mark, _)| mark)
    }
}

/// Some notifications of an inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Whose.
    pub user_id: String,
    /// Which.
    pub which: Which,
    /// Only those of this category; empty means all.
    pub category: String,
}

/// Which notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// These.
    Ids(Vec<String>),
    /// All that came no later than this one.
    UpTo(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_to_the_application_or_to_a_secured_page() {
        for good in ["", "/", "/tickets/42?a=b#c", "https://example.com", "https://example.com/a"] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "//evil.example",
            "/\\evil.example",
            "http://example.com",
            "javascript:alert(1)",
            "a",
            "https://",
            "https:///a",
            "/a b",
            "/a\n",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn priorities_and_marks_read_as_they_are_written() {
        for (priority, word) in Priority::ALL {
            assert_eq!((Priority::of_word(word), priority.word()), (priority, word));
            assert_eq!(Priority::of_number(priority as i16), priority);
        }
        assert_eq!(Priority::of_word("urgent"), Priority::Normal);
        for (mark, word) in Mark::ALL {
            assert_eq!((Mark::of_word(word), mark.word()), (Some(mark), word));
        }
    }
}
