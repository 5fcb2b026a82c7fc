//! Who sees what: a pure decision, made once for each topic and type and remembered.
//!
//! A **grant** ([`Grant`]) is what a caller may see.  A **filter** ([`Filter`]) is what they ask for.  A **view**
//! ([`View`]) is what is in both, and what a stream asks about each event.

mod filter;
mod grant;

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::event::Fact;
use crate::event::bus::Wanted;
use crate::event::topic::TopicPattern;

pub use filter::{FILTER_LIMIT, Filter, Wish};
pub use grant::Grant;

/// How many decisions are remembered.
const REMEMBERED: usize = 512;

/// What a stream shows.
#[derive(Debug, Clone)]
pub struct View {
    grant: Arc<Grant>,
    filter: Arc<Filter>,
    topics: Vec<TopicPattern>,
    known: Known,
}

/// Decisions by topic and type.
#[derive(Debug, Clone, Default)]
struct Known {
    count: usize,
    topics: HashMap<Arc<str>, HashMap<Arc<str>, bool>>,
}

impl View {
    /// What a caller sees of what they ask for.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` with the reason `TOPIC_DENIED` for topics that the caller may not see.
    pub fn new(grant: &Arc<Grant>, filter: &Arc<Filter>) -> Result<Self> {
        if let Some(denied) = filter.topics.iter().find(|pattern| !grant.covers(pattern)) {
            let message = format!("the caller may not see the topic {denied}");
            return Err(
                Error::new(Kind::PermissionDenied, "TOPIC_DENIED", message).with("topic", denied.to_string())
            );
        }
        let topics = if filter.topics.is_empty() {
            grant.topics().to_vec()
        } else {
            let own = grant.own_topic().map(|own| TopicPattern::Exactly(own.to_owned()));
            filter.topics.iter().cloned().chain(own).collect()
        };
        let (grant, filter) = (Arc::clone(grant), Arc::clone(filter));
        Ok(Self { grant, filter, topics, known: Known::default() })
    }

    /// The topics to watch.
    pub fn wanted(&self) -> Wanted {
        Wanted::of(&self.topics)
    }

    /// Whether the stream shows an event.
    pub fn shows(&mut self, fact: &Fact) -> bool {
        let Self { filter, .. } = self;
        if !filter.subjects.is_empty() && !filter.subjects.contains(&fact.subject) {
            return false;
        }
        if let Some(&known) = self.known.topics.get(&fact.topic).and_then(|types| types.get(&fact.event_type))
        {
            return known;
        }
        let shows = self.decide(&fact.topic, &fact.event_type);
        if self.known.count >= REMEMBERED {
            self.known = Known::default();
        }
        self.known.count += 1;
        let types = self.known.topics.entry(Arc::clone(&fact.topic)).or_default();
        types.insert(Arc::clone(&fact.event_type), shows);
        shows
    }

    fn decide(&self, topic: &str, event_type: &str) -> bool {
        let Self { grant, filter, topics, .. } = self;
        topics.iter().any(|pattern| pattern.matches(topic))
            && (filter.types.is_empty() || filter.types.iter().any(|pattern| pattern.matches(event_type)))
            && grant.sees(topic, event_type)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;
    use crate::rpc::{Principal, User};

    fn principal(user: Option<(&str, &[&str], &[&str])>) -> Principal {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let user = user.map(|(id, topics, event_types)| {
            Arc::new(User {
                id: id.into(),
                name: String::new(),
                topics: texts(topics),
                event_types: texts(event_types),
                issued_at: Timestamp::default(),
                expires_at: Timestamp::default(),
            })
        });
        Principal { key_id: "key_1".into(), scopes: ["notifications:read".to_owned()].into(), user }
    }

    fn grant(user: Option<(&str, &[&str], &[&str])>) -> Arc<Grant> {
        Arc::new(Grant::of(&principal(user)))
    }

    fn filter(event_types: &[&str], subjects: &[&str], topics: &[&str]) -> Arc<Filter> {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let (event_types, subjects, topics) = (texts(event_types), texts(subjects), texts(topics));
        Arc::new(Wish { event_types, subjects, topics }.check().unwrap())
    }

    fn fact(topic: &str, event_type: &str) -> Fact {
        Fact {
            id: "evt_1".into(),
            event_type: event_type.into(),
            data: "{}".into(),
            actor: String::new(),
            subject: "s".into(),
            topic: topic.into(),
            created_at: Timestamp::default(),
        }
    }

    #[test]
    fn a_key_sees_every_topic_and_a_user_their_own() {
        let mut all = View::new(&grant(None), &filter(&[], &[], &[])).unwrap();
        assert_eq!(all.wanted(), Wanted::All);
        assert!(all.shows(&fact("user:1", "a.b")) && all.shows(&fact("events", "a.b")));
        let jo = grant(Some(("jo", &["chat:*"], &[])));
        let mut own = View::new(&jo, &filter(&[], &[], &[])).unwrap();
        for (topic, seen) in
            [("user:jo", true), ("broadcast", true), ("chat:9", true), ("user:jim", false), ("events", false)]
        {
            assert_eq!(own.shows(&fact(topic, "a.b")), seen, "{topic}");
        }
        let mut chat = View::new(&jo, &filter(&[], &[], &["chat:9"])).unwrap();
        assert_eq!(chat.wanted(), Wanted::Exactly(["chat:9".into(), "user:jo".into()].into()));
        assert!(chat.shows(&fact("user:jo", "a.b")), "their own is always among them");
        assert!(!chat.shows(&fact("broadcast", "a.b")) && !chat.shows(&fact("chat:8", "a.b")));
        for denied in ["*", "user:*", "user:jim", "events", "chats:*"] {
            let refused = View::new(&jo, &filter(&[], &[], &[denied])).unwrap_err();
            assert_eq!(
                (refused.kind(), refused.reason()),
                (Kind::PermissionDenied, "TOPIC_DENIED"),
                "{denied}"
            );
        }
    }

    #[test]
    fn types_of_the_token_and_of_the_filter_both_count_but_a_users_notifications_always_come() {
        let jo = grant(Some(("jo", &["chat:*"], &["chat.*"])));
        let mut all = View::new(&jo, &filter(&[], &[], &[])).unwrap();
        assert!(all.shows(&fact("chat:9", "chat.sent")) && !all.shows(&fact("chat:9", "ticket.created")));
        for topic in ["user:jo", "broadcast"] {
            assert!(
                all.shows(&fact(topic, "notification")) && all.shows(&fact(topic, "notification.counts"))
            );
            assert!(!all.shows(&fact(topic, "notifications")) && !all.shows(&fact(topic, "ticket.created")));
        }
        assert!(!all.shows(&fact("chat:9", "notification")));
        let mut some = View::new(&jo, &filter(&["chat.sent", "ticket.*"], &[], &[])).unwrap();
        assert!(some.shows(&fact("chat:9", "chat.sent")) && !some.shows(&fact("chat:9", "chat.read")));
        assert!(!some.shows(&fact("chat:9", "ticket.created")), "the filter gives nobody more");
        assert!(!some.shows(&fact("user:jo", "notification")), "they did not ask for it");
        let mut other = View::new(&jo, &filter(&[], &["t"], &[])).unwrap();
        assert!(!other.shows(&fact("chat:9", "chat.sent")));
    }

    #[test]
    fn what_can_not_be_read_grants_nothing() {
        let mut view =
            View::new(&grant(Some(("jo", &["chat*", ""], &["NO", ""]))), &filter(&[], &[], &[])).unwrap();
        assert!(!view.shows(&fact("chat:9", "a.b")) && !view.shows(&fact("user:jo", "a.b")));
        assert!(view.shows(&fact("user:jo", "notification")));
    }

    const TOPICS: [&str; 7] = ["user:jo", "user:jim", "broadcast", "events", "chat:1", "chat:1:2", "chat:2"];
    const PATTERNS: [&str; 9] =
        ["*", "chat:*", "chat:1", "chat:1:*", "events", "user:*", "user:jo", "user:jim", "broadcast"];
    const TYPES: [&str; 5] = ["notification", "notification.counts", "chat.sent", "chat.read", "ticket"];
    const TYPE_PATTERNS: [&str; 5] = ["*", "chat.*", "chat.sent", "notification.*", "ticket"];

    fn some(of: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
        proptest::collection::vec(prop::sample::select(of), 0..3)
    }

    proptest! {
        #[test]
        fn nobody_sees_what_they_were_not_granted_or_did_not_ask_for(
            granted in some(&PATTERNS), granted_types in some(&TYPE_PATTERNS),
            asked in some(&PATTERNS), asked_types in some(&TYPE_PATTERNS),
            events in proptest::collection::vec(
                (prop::sample::select(&TOPICS[..]), prop::sample::select(&TYPES[..])), 1..40),
        ) {
            let jo = grant(Some(("jo", &granted, &granted_types)));
            let Ok(mut view) = View::new(&jo, &filter(&asked_types, &[], &asked)) else {
                prop_assert!(!asked.is_empty());
                return Ok(());
            };
            let wanted = view.wanted();
            let matches = |patterns: &[&str], topic: &str| {
                patterns.iter().any(|text| TopicPattern::parse(text).unwrap().matches(topic))
            };
            let takes = |patterns: &[&str], event_type: &str| {
                patterns.iter().any(|text| crate::event::pattern::Pattern::parse(text).unwrap().matches(event_type))
            };
            for (topic, event_type) in events {
                let theirs = topic == "user:jo" || topic == "broadcast";
                let may = (theirs || matches(&granted, topic))
                    && (granted_types.is_empty()
                        || takes(&granted_types, event_type)
                        || theirs && event_type.starts_with("notification"));
                let wants = (asked.is_empty() || topic == "user:jo" || matches(&asked, topic))
                    && (asked_types.is_empty() || takes(&asked_types, event_type));
                // Twice, so that the second comes from memory.
                for _ in 0..2 {
                    prop_assert_eq!(view.shows(&fact(topic, event_type)), may && wants, "{} {}", topic, event_type);
                }
                prop_assert!(!(may && wants) || wanted.takes(topic), "what is shown is watched");
            }
        }
    }
}
