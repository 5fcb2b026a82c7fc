//! Reads typed values out of a JSON object and keeps count of everything that is wrong with it.

use super::Violation;
use super::value::is_blank;
use serde_json::{Map, Value};

/// A type that a template variable can have.
pub(super) trait Kind: Sized {
    /// Whether a mail without the variable is refused.
    const REQUIRED: bool = true;

    /// What stands for a variable that was not given; nothing for a required one.
    fn absent() -> Option<Self> {
        None
    }

    /// Reads a value that is there. Nothing is returned only if a violation was reported.
    fn read(value: &Value, path: &str, violations: &mut Vec<Violation>) -> Option<Self>;
}

impl<K: Kind> Kind for Option<K> {
    const REQUIRED: bool = false;

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn read(value: &Value, path: &str, violations: &mut Vec<Violation>) -> Option<Self> {
        K::read(value, path, violations).map(Some)
    }
}

/// The variables of one mail, or of one entry of a list in it, while they are being read.
pub(super) struct Fields<'a> {
    values: &'a Map<String, Value>,
    prefix: String,
    violations: Vec<Violation>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(values: &'a Map<String, Value>) -> Self {
        Self::nested(values, String::new())
    }

    /// For an object inside another; `prefix` is how its variables are named in violations.
    pub(super) fn nested(values: &'a Map<String, Value>, prefix: String) -> Self {
        Self { values, prefix, violations: Vec::new() }
    }

    /// Reads one variable. `null`, empty text and empty lists count as not given.
    pub(super) fn take<K: Kind>(&mut self, name: &str) -> Option<K> {
        let path = format!("{}{name}", self.prefix);
        let given = self.values.get(name).filter(|value| !is_blank(value));
        let taken = given.map_or_else(K::absent, |value| K::read(value, &path, &mut self.violations));
        if taken.is_none() && given.is_none() {
            report(&mut self.violations, &path, "is required");
        }
        taken
    }

    /// Ends the reading: what was read if nothing was wrong, else everything that was.
    pub(super) fn finish<T>(self, read: Option<T>) -> Result<T, Vec<Violation>> {
        read.filter(|_| self.violations.is_empty()).ok_or(self.violations)
    }
}

pub(super) fn report(violations: &mut Vec<Violation>, path: &str, message: impl Into<String>) {
    violations.push(Violation { variable: path.to_owned(), message: message.into() });
}
