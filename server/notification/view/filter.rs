//! What a subscriber asks for.

use serde::{Deserialize, Serialize};

use crate::error::{Result, Violations};
use crate::event::pattern::{self, Pattern};
use crate::event::topic::{self, TopicPattern};

/// How many entries each filter may have.
pub const FILTER_LIMIT: usize = 100;

/// A filter as it was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Wish {
    pub event_types: Vec<String>,
    pub subjects: Vec<String>,
    pub topics: Vec<String>,
}

/// A filter that was read; what is empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Events of these types.
    pub types: Vec<Pattern>,
    /// Events with one of these subjects.
    pub subjects: Vec<String>,
    /// Events of these topics.
    pub topics: Vec<TopicPattern>,
}

impl Wish {
    /// Reads it.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with everything that is wrong.
    pub fn check(&self) -> Result<Filter> {
        let mut violations = Violations::default();
        let filter = self.read(&mut violations);
        violations.finish()?;
        Ok(filter)
    }

    /// Reads it, and notes what is wrong.
    pub fn read(&self, violations: &mut Violations) -> Filter {
        for (field, texts) in
            [("event_types", &self.event_types), ("subjects", &self.subjects), ("topics", &self.topics)]
        {
            violations.require(texts.len() <= FILTER_LIMIT, field, "must have at most 100 entries");
        }
        if [&self.event_types, &self.subjects, &self.topics].iter().any(|texts| texts.len() > FILTER_LIMIT) {
            return Filter::default();
        }
        Filter {
            types: pattern::parse_all(violations, "event_types", &self.event_types),
            subjects: self.subjects.clone(),
            topics: topic::parse_all(violations, "topics", &self.topics),
        }
    }
}
