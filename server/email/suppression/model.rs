//! What a suppression is.

use crate::clock::Timestamp;
use crate::email::address;

/// Why an address gets no mail, the weakest reason first: one that the server finds by itself takes the place of a
/// weaker one, never of a stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The address does not exist.
    Bounce,
    /// Its owner unsubscribed.
    Unsubscribe,
    /// Somebody put it on the list.
    Manual,
    /// Its owner called a mail spam.
    Complaint,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Bounce, Self::Unsubscribe, Self::Manual, Self::Complaint];

    /// The word in the column `reason`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bounce => "bounce",
            Self::Unsubscribe => "unsubscribe",
            Self::Manual => "manual",
            Self::Complaint => "complaint",
        }
    }

    /// The reason of a word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }
}

/// Who put an address on the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A caller of the API.
    Api,
    /// A server that refused the address.
    Smtp,
    /// A report that a mail came back (RFC 3464).
    Bounce,
    /// A report that a mail was called spam (RFC 5965).
    Complaint,
    /// The link to unsubscribe.
    Link,
}

impl Origin {
    /// The word in the column `origin`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Smtp => "smtp",
            Self::Bounce => "bounce",
            Self::Complaint => "complaint",
            Self::Link => "link",
        }
    }
}

/// An address on the list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Suppression {
    pub address: String,
    pub topic: String,
    pub reason: Reason,
    pub origin: String,
    pub detail: String,
    pub email_id: Option<String>,
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// An address that the server puts on the list by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSuppression {
    /// The address, as [`key`] writes it.
    pub address: String,
    /// The topic; empty for every mail.
    pub topic: String,
    /// Why.
    pub reason: Reason,
    /// Who says so.
    pub origin: Origin,
    /// What was said; cut to [`DETAIL_LIMIT`] characters.
    pub detail: String,
    /// The mail that it came of.
    pub email_id: Option<String>,
    /// When it ends; `None` when it does not.
    pub expires_at: Option<Timestamp>,
    /// The time.
    pub now: Timestamp,
}

/// Which suppressions to list.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct SuppressionFilter {
    pub reasons: Vec<Reason>,
    pub address_prefix: String,
    pub topic: String,
    /// Those after this address and topic.
    pub after: Option<(String, String)>,
}

/// How many characters a detail has at most.
pub const DETAIL_LIMIT: usize = 1_024;
const TOPIC_LIMIT: usize = 64;

/// What an address is known by here: bare, in lower case, its domain in ASCII.  RFC 5321 allows the part before the `@`
/// to differ by case alone; no mailbox that somebody uses does, and an owner who unsubscribed expects to be believed.
///
/// # Errors
/// What is wrong with the address.
pub fn key(text: &str) -> Result<String, String> {
    let mailbox = address::parse(text)?;
    let (user, domain) = (mailbox.email.user().to_lowercase(), mailbox.email.domain());
    // A domain that is an address, such as `[192.0.2.1]`, has no other form.
    let domain = address::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_lowercase());
    Ok(format!("{user}@{domain}"))
}

/// Whether a text can name a topic, or is empty.
pub fn is_topic(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-');
    text.len() <= TOPIC_LIMIT && text.bytes().all(allowed)
}

/// The text cut to so many characters, and without what a database does not hold.
pub fn cut(text: &str, limit: usize) -> String {
    text.chars().filter(|&c| c != '\0').take(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_key_however_it_is_written() {
        for text in ["jo@example.com", " Jo Doe <JO@Example.COM> ", "\"Doe, Jo\" <Jo@example.com>"] {
            assert_eq!(key(text).as_deref(), Ok("jo@example.com"), "{text}");
        }
        assert!(key("nobody").is_err());
        assert!(key("jo@example.com\r\nBcc: x@example.com").is_err());
    }

    #[test]
    fn topics_are_short_words() {
        for good in ["", "job_alerts", "news.2026-11", &"a".repeat(64)] {
            assert!(is_topic(good), "{good}");
        }
        for bad in ["Jobs", "a b", "ä", "a/b", "a\n", &"a".repeat(65)] {
            assert!(!is_topic(bad), "{bad}");
        }
    }

    #[test]
    fn words_name_reasons() {
        for reason in Reason::ALL {
            assert_eq!(Reason::of_word(reason.word()), Some(reason));
        }
        assert_eq!(Reason::of_word("other"), None);
    }
}
