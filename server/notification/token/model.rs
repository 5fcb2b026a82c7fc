//! What a token says, and what it may say.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::Violations;
use crate::event::{pattern, topic};
use crate::rpc::{Principal, User};
use crate::scope;

/// What a token may be used for when nobody says it.
pub const DEFAULT_SCOPES: [&str; 3] = ["notifications:read", "inbox:read", "inbox:write"];
/// What no token is for: with it a user would make a key or a token, or say whose tokens are believed, and so outlive the end
/// of their own.
pub const NOT_FOR_USERS: [&str; 3] = ["apikeys:write", "settings:write", "tokens:write"];
/// The longest that a token lives, whatever the settings or an identity provider say: what was ended is remembered for as long.
pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// How far the clocks of two machines may differ.
pub const LEEWAY: Duration = Duration::from_secs(30);
pub(super) const SHORTEST: Duration = Duration::from_secs(10);
pub(super) const NAME_LIMIT: usize = 256;
const LIST_LIMIT: usize = 100;

/// A token that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct NewToken {
    pub user_id: String,
    pub username: String,
    pub topics: Vec<String>,
    pub event_types: Vec<String>,
    pub scopes: Vec<String>,
    pub lifetime: Option<Duration>,
}

impl NewToken {
    /// Takes the scopes that are meant when none are named.
    pub(super) fn with_scopes(mut self) -> Self {
        if self.scopes.is_empty() {
            self.scopes = DEFAULT_SCOPES.map(str::to_owned).to_vec();
        }
        self
    }

    /// Checks all of it; `longest` is what the settings allow.
    pub(in crate::notification) fn check(&self, longest: Duration, violations: &mut Violations) {
        violations.check("user_id", topic::check_user_id(&self.user_id));
        let named =
            self.username.chars().count() <= NAME_LIMIT && !self.username.chars().any(char::is_control);
        violations.require(named, "username", "must have at most 256 characters, without control characters");
        check_grants(&self.topics, &self.event_types, &self.scopes, violations);
        let lifetime = self.lifetime.unwrap_or(longest);
        if !(SHORTEST..=longest).contains(&lifetime) {
            let what = format!("must be 10 to {} seconds", longest.as_secs());
            violations.add("lifetime", what);
        }
    }
}

/// Checks what a token lets its user see and do.
pub(super) fn check_grants(
    topics: &[String],
    event_types: &[String],
    scopes: &[String],
    violations: &mut Violations,
) {
    for (field, list) in [("topics", topics), ("event_types", event_types), ("scopes", scopes)] {
        violations.require(list.len() <= LIST_LIMIT, field, "must have at most 100 entries");
    }
    topic::parse_all(violations, "topics", topics);
    pattern::parse_all(violations, "event_types", event_types);
    for (index, held) in scopes.iter().enumerate() {
        let field = format!("scopes[{index}]");
        violations.check(&field, scope::check(held));
        if let Some(needed) = NOT_FOR_USERS.iter().find(|needed| scope::covers(held, needed)) {
            violations.add(field, format!("allows {needed}, which is for API keys only"));
        }
    }
}

/// Who made a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Maker {
    /// The key with this id.
    Key(Arc<str>),
    /// The identity provider, with the keys that it had at this generation.
    Provider(u64),
}

/// What the key of an identity provider would be called.
pub const PROVIDER: &str = "identity-provider";

/// A token whose signature is right.
#[derive(Debug)]
pub(super) struct Verified {
    pub user: Arc<User>,
    pub scopes: Arc<[String]>,
    pub maker: Maker,
    /// It is nothing yet before this time.
    pub from: Timestamp,
    /// It is nothing any more from this time on.
    pub until: Timestamp,
}

impl Verified {
    /// Its holder, who may do what the maker may do as well.
    pub fn principal(&self, maker: Option<&[String]>) -> Principal {
        let key_id = match &self.maker {
            Maker::Key(key_id) => Arc::clone(key_id),
            Maker::Provider(_) => PROVIDER.into(),
        };
        let covered = |held: &String| maker.is_none_or(|maker| scope::any_covers(maker, held));
        let scopes = if self.scopes.iter().all(covered) {
            Arc::clone(&self.scopes)
        } else {
            self.scopes.iter().filter(|held| covered(held)).cloned().collect()
        };
        Principal { key_id, scopes, user: Some(Arc::clone(&self.user)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(new: &NewToken) -> Vec<String> {
        let mut violations = Violations::default();
        new.check(Duration::from_secs(3_600), &mut violations);
        violations
            .finish()
            .err()
            .map(|error| error.violations().iter().map(|one| one.field.clone()).collect())
            .unwrap_or_default()
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn everything_that_is_wrong_is_named() {
        let good = NewToken { user_id: "jo@example.com".into(), ..NewToken::default() }.with_scopes();
        assert!(wrong(&good).is_empty());
        let bad = NewToken {
            user_id: "a b".into(),
            username: "a\n".into(),
            topics: texts(&["chat:*", "c*"]),
            event_types: texts(&["*", "a.*", "A"]),
            scopes: texts(&["events:write", "events"]),
            lifetime: Some(Duration::from_secs(9)),
        };
        let fields = ["user_id", "username", "topics[1]", "event_types[2]", "scopes[1]", "lifetime"];
        assert_eq!(wrong(&bad), fields);
        let long = NewToken { lifetime: Some(Duration::from_secs(3_601)), ..good.clone() };
        assert_eq!(wrong(&long), ["lifetime"]);
        let many = NewToken { topics: vec!["a".into(); 101], ..good };
        assert_eq!(wrong(&many), ["topics"]);
    }

    #[test]
    fn no_token_makes_what_outlives_it() {
        for held in ["admin:*", "admin:write", "apikeys:*", "apikeys:write", "tokens:*", "settings:*"] {
            let new = NewToken {
                user_id: "jo".into(),
                scopes: texts(&["inbox:read", held]),
                lifetime: None,
                ..NewToken::default()
            };
            assert_eq!(wrong(&new), ["scopes[1]"], "{held}");
        }
        let fine = texts(&["admin:read", "events:*", "apikeys:read", "settings:read", "inbox:*"]);
        assert!(wrong(&NewToken { user_id: "jo".into(), scopes: fine, ..NewToken::default() }).is_empty());
    }
}
