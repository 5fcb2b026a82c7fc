//! The types a template variable can have, each made safe to print when it is read.

use super::Violation;
use super::field::{Kind, report};
use serde_json::{Number, Value};
use std::fmt;

/// Longer links break in some readers and are a mistake more often than not.
const LINK_CHARACTERS: usize = 2048;

/// Whole numbers up to this size are exact as a double, and are written without a fraction.
const EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

/// Text on one line, from a JSON string or number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line(String);

/// Text that may have several lines and paragraphs, from a JSON string or number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prose(String);

/// An absolute `http` or `https` address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link(String);

impl Line {
    /// The text with its unit if it is a bare number (`9` gives `9 days`), else as it is.
    pub(super) fn counted(&self, unit: &str) -> String {
        match self.number() {
            Some(1.0) => format!("{self} {unit}"),
            Some(_) => format!("{self} {unit}s"),
            None => self.0.clone(),
        }
    }

    pub(super) fn number(&self) -> Option<f64> {
        self.0.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// With a capital letter at the start.
    pub(super) fn capitalised(&self) -> String {
        capitalised(&self.0)
    }

    /// For words of urgency: the colour that says the same, readable on white.
    pub(super) fn urgency_colour(&self) -> &'static str {
        match self.0.to_lowercase().as_str() {
            "critical" | "emergency" | "urgent" | "high" | "highest" | "error" | "fatal" => "#b42318",
            "warning" | "warn" | "medium" | "moderate" => "#8a5a00",
            _ => "#1f2933",
        }
    }
}

impl Prose {
    /// The paragraphs, each as its lines.
    pub(super) fn paragraphs(&self) -> Vec<Vec<&str>> {
        let lines: Vec<&str> = self.0.lines().map(str::trim).collect();
        lines
            .split(|line| line.is_empty())
            .filter(|paragraph| !paragraph.is_empty())
            .map(<[&str]>::to_vec)
            .collect()
    }

    pub(super) fn first_line(&self) -> Option<&str> {
        self.0.lines().find(|line| !line.is_empty())
    }
}

impl Link {
    /// The address if it is one that a mail may link to. Scripts, files and relative ones are not.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://")?;
        let is_web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let is_clean = !text.contains(|character: char| {
            is_unprintable(character)
                || character.is_whitespace()
                || matches!(character, '"' | '<' | '>' | '\\' | '`')
        });
        let is_short = text.chars().count() <= LINK_CHARACTERS;
        let has_host = host.contains(char::is_alphanumeric);
        (is_web && has_host && is_clean && is_short).then(|| Self(text.to_owned()))
    }
}

impl Kind for Line {
    fn read(value: &Value, path: &str, violations: &mut Vec<Violation>) -> Option<Self> {
        scalar(value, path, violations).map(|text| Self(clean(&text)))
    }
}

impl Kind for Prose {
    fn read(value: &Value, path: &str, violations: &mut Vec<Violation>) -> Option<Self> {
        let text = scalar(value, path, violations)?.replace("\r\n", "\n").replace('\r', "\n");
        let lines: Vec<String> = text.split('\n').map(clean).collect();
        Some(Self(lines.join("\n")))
    }
}

impl Kind for Link {
    fn read(value: &Value, path: &str, violations: &mut Vec<Violation>) -> Option<Self> {
        let link = value.as_str().and_then(Self::parse);
        if link.is_none() {
            report(violations, path, "must be an http or https address");
        }
        link
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for Prose {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Whether a value says nothing, so that the mail reads as if it had not been given.
pub(super) fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => clean(text).is_empty(),
        Value::Array(entries) => entries.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Text on one line, without the characters that break or disguise it.
pub(super) fn clean(text: &str) -> String {
    text.replace(is_unprintable, " ").trim().to_owned()
}

pub(super) fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A number as a person would write it: whole ones lose the fraction that a wire format of doubles
/// gives them.
pub(super) fn plain(number: &Number) -> String {
    match number.as_f64() {
        Some(value) if value.fract() == 0.0 && value.abs() < EXACT_INTEGER => format!("{value:.0}"),
        _ => number.to_string(),
    }
}

/// Control characters, line separators and the marks that reverse the order of what follows.
fn is_unprintable(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn scalar(value: &Value, path: &str, violations: &mut Vec<Violation>) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(plain(number)),
        _ => {
            report(violations, path, "must be text or a number");
            None
        }
    }
}
