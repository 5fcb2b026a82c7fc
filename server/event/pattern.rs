//! Which event types somebody wants: a type, everything below a word, or all.

use std::fmt;

use super::model::check_event_type;

/// A pattern over event types.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// `*`.
    All,
    /// `ticket.*`, kept as `ticket.`.
    Below(String),
    /// One type.
    Exactly(String),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::All);
        }
        let wrong = |_| "must be an event type, `word.*` for all below it, or `*`".to_owned();
        match text.strip_suffix('*') {
            Some(prefix) => {
                let word = prefix.strip_suffix('.').unwrap_or_default();
                check_event_type(word).map_err(wrong)?;
                Ok(Self::Below(prefix.to_owned()))
            }
            None => check_event_type(text).map(|()| Self::Exactly(text.to_owned())).map_err(wrong),
        }
    }

    /// Whether it takes events of this type.
    pub fn matches(&self, event_type: &str) -> bool {
        match self {
            Self::All => true,
            Self::Below(prefix) => event_type.starts_with(prefix),
            Self::Exactly(wanted) => event_type == wanted,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Below(prefix) => write!(f, "{prefix}*"),
            Self::Exactly(event_type) => f.write_str(event_type),
        }
    }
}

/// Reads several patterns; says for each bad one which it is.
pub fn parse_all(violations: &mut crate::error::Violations, field: &str, texts: &[String]) -> Vec<Pattern> {
    let parse = |(index, text): (usize, &String)| {
        violations.check(&format!("{field}[{index}]"), Pattern::parse(text))
    };
    texts.iter().enumerate().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_take_a_type_or_all_below_a_word() {
        let matches = |pattern, event_type| Pattern::parse(pattern).unwrap().matches(event_type);
        assert!(matches("ticket.created", "ticket.created"));
        assert!(!matches("ticket.created", "ticket.created.late"));
        assert!(matches("ticket.*", "ticket.created.late"));
        assert!(!matches("ticket.*", "ticket"));
        assert!(!matches("ticket.*", "tickets.created"));
        assert!(matches("*", "anything"));
        for bad in ["", "**", "*.created", "ticket*", "ticket.*.x", "Ticket.*", ".*"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
