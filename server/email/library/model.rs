//! What a stored template is.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::email::template::Definition;

/// A variable of a template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Variable {
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub required: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<Value>,
}

impl Variable {
    /// The variables of a template that comes with the server.
    pub fn of(definition: &Definition) -> Vec<Self> {
        let variable = |variable: &crate::email::template::Variable| Self {
            name: variable.name.into(),
            description: variable.description.into(),
            required: variable.required,
            sample: serde_json::from_str(variable.sample).ok(),
        };
        definition.variables.iter().map(variable).collect()
    }
}

/// Values that show a template: every sample, and the name of a required variable that has none.
pub(super) fn samples(variables: &[Variable]) -> Map<String, Value> {
    let sample = |variable: &Variable| {
        let stand_in = || variable.required.then(|| Value::from(variable.name.clone()));
        Some((variable.name.clone(), variable.sample.clone().or_else(stand_in)?))
    };
    variables.iter().filter_map(sample).collect()
}

/// Whether a value says something; one that does not counts as not given.
pub(super) fn is_given(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(entries) => !entries.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

/// The texts of a template, in one language and one version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Text {
    pub subject: String,
    pub html_body: String,
    pub plain_body: String,
    pub preheader: String,
}

/// A template that is kept, in one language.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Stored {
    pub name: String,
    /// Empty for the language that all others fall back to.
    pub locale: String,
    /// Empty for another language, and for a template that comes with the server.
    pub description: String,
    /// Empty for another language, and for a template that comes with the server.
    pub variables: Vec<Variable>,
    pub text: Text,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A version of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Version {
    pub version: i64,
    pub text: Text,
    pub created_by: String,
    pub created_at: Timestamp,
}

/// A template as it is shown, in one language: compiled or stored.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Template {
    pub name: String,
    pub locale: String,
    pub description: String,
    pub variables: Vec<Variable>,
    pub built_in: bool,
    /// What is kept; `None` for a compiled text.
    pub stored: Option<Stored>,
}

impl Template {
    /// One that comes with the server, with what is kept in its place.
    pub(super) fn built_in(definition: &Definition, locale: String, stored: Option<Stored>) -> Self {
        Self {
            name: definition.name.into(),
            locale,
            description: definition.description.into(),
            variables: Variable::of(definition),
            built_in: true,
            stored,
        }
    }

    /// One of its own; `default` is its text in the language that others fall back to.
    pub(super) fn own(default: &Stored, stored: Stored) -> Self {
        Self {
            name: stored.name.clone(),
            locale: stored.locale.clone(),
            description: default.description.clone(),
            variables: default.variables.clone(),
            built_in: false,
            stored: Some(stored),
        }
    }
}
