//! What is wrong with a text, and where.

use std::fmt;

/// Something wrong at a place of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    line: usize,
    column: usize,
    message: String,
}

impl Fault {
    /// At a place in bytes.
    pub(super) fn at(source: &str, at: usize, message: impl Into<String>) -> Self {
        let before = source.get(..at).unwrap_or(source);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: 1 + before.matches('\n').count(),
            column: 1 + before[line_start..].chars().count(),
            message: message.into(),
        }
    }

    /// What the engine found.
    pub(super) fn of(source: &str, error: &minijinja::Error) -> Self {
        let mut message = error.kind().to_string();
        if let Some(detail) = error.detail() {
            message = format!("{message}: {detail}");
        }
        let shown = error.range().and_then(|range| source.get(range)).filter(|shown| shown.len() <= 80);
        if let Some(shown) = shown.filter(|_| error.kind() == minijinja::ErrorKind::UndefinedError) {
            message = format!("{message}: {shown}");
        }
        match error.range() {
            Some(range) => Self::at(source, range.start, message),
            None => Self { line: error.line().unwrap_or(1), column: 1, message },
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}
