//! What a caller may see.

use crate::event::pattern::Pattern;
use crate::event::topic::{self, TopicPattern};
use crate::rpc::Principal;

/// The types that a user always sees on their own topic and on everybody's: this, and all below it.
const NOTIFICATION: &str = "notification";

/// What a caller may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// A user's own topic.
    own: Option<String>,
    topics: Vec<TopicPattern>,
    /// `None` means all.
    types: Option<Vec<Pattern>>,
}

impl Grant {
    /// An application sees all; a user sees their own topic, everybody's, and what their token has.
    pub fn of(principal: &Principal) -> Self {
        let Some(user) = &principal.user else {
            return Self { own: None, topics: vec![TopicPattern::All], types: None };
        };
        let own = topic::of_user(&user.id);
        // What can not be read grants nothing.
        let granted = user.topics.iter().filter_map(|text| TopicPattern::parse(text).ok());
        let always = [own.clone(), topic::BROADCAST.to_owned()].map(TopicPattern::Exactly);
        let types = || user.event_types.iter().filter_map(|text| Pattern::parse(text).ok()).collect();
        Self {
            topics: always.into_iter().chain(granted).collect(),
            types: (!user.event_types.is_empty()).then(types),
            own: Some(own),
        }
    }

    /// A user's own topic.
    pub fn own_topic(&self) -> Option<&str> {
        self.own.as_deref()
    }

    /// The topics.
    pub fn topics(&self) -> &[TopicPattern] {
        &self.topics
    }

    /// Whether all that a pattern takes may be seen.
    pub fn covers(&self, pattern: &TopicPattern) -> bool {
        self.topics.iter().any(|granted| granted.covers(pattern))
    }

    /// Whether events of this topic and type may be seen.
    pub fn sees(&self, topic: &str, event_type: &str) -> bool {
        self.topics.iter().any(|granted| granted.matches(topic))
            && match &self.types {
                None => true,
                Some(types) => {
                    types.iter().any(|granted| granted.matches(event_type))
                        || self.is_theirs(topic) && is_notification(event_type)
                }
            }
    }

    fn is_theirs(&self, topic: &str) -> bool {
        self.own.as_deref() == Some(topic) || topic == topic::BROADCAST
    }
}

fn is_notification(event_type: &str) -> bool {
    event_type.strip_prefix(NOTIFICATION).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
