//! Which topics somebody watches.

use std::sync::Arc;

use crate::event::topic::TopicPattern;

/// Topics: some by name, some by pattern, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All.
    All,
    /// These: what is not about them costs nothing.
    Exactly(Arc<[Arc<str>]>),
    /// Those that one of these takes.
    Matching(Arc<[TopicPattern]>),
}

impl Wanted {
    /// What these patterns take.
    pub fn of(patterns: &[TopicPattern]) -> Self {
        if patterns.contains(&TopicPattern::All) {
            return Self::All;
        }
        let name = |pattern: &TopicPattern| match pattern {
            TopicPattern::Exactly(topic) => Some(Arc::<str>::from(topic.as_str())),
            _ => None,
        };
        match patterns.iter().map(name).collect::<Option<Vec<_>>>() {
            Some(mut topics) => {
                topics.sort_unstable();
                topics.dedup();
                Self::Exactly(topics.into())
            }
            None => Self::Matching(patterns.into()),
        }
    }

    /// Whether events of this topic are wanted.
    pub fn takes(&self, topic: &str) -> bool {
        match self {
            Self::All => true,
            Self::Exactly(topics) => topics.binary_search_by(|known| (**known).cmp(topic)).is_ok(),
            Self::Matching(patterns) => patterns.iter().any(|pattern| pattern.matches(topic)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_become_names_where_they_are_some() {
        let of = |texts: &[&str]| {
            let patterns: Vec<_> = texts.iter().map(|text| TopicPattern::parse(text).unwrap()).collect();
            Wanted::of(&patterns)
        };
        assert_eq!(of(&["b", "a", "b"]), Wanted::Exactly(["a".into(), "b".into()].into()));
        assert_eq!(of(&["a", "*"]), Wanted::All);
        let mixed = of(&["a", "chat:*"]);
        assert!(mixed.takes("a") && mixed.takes("chat:9") && !mixed.takes("b"));
        assert!(of(&["b", "a"]).takes("a") && !of(&["b", "a"]).takes("c"));
        assert!(!of(&[]).takes("a"), "nobody asks for nothing, and who does gets it");
    }
}
