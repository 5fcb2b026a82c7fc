//! What a change is, before it is an entry.

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::store::Entry;
use crate::clock::Timestamp;
use crate::origin::Origin;

/// How many bytes of JSON a value has at most; a longer one is told by its digest.
const VALUE_LIMIT: usize = 4 * 1024;

/// A change to be recorded.
#[derive(Debug, Clone)]
pub struct Change {
    action: String,
    resource: (&'static str, String),
    before: Map<String, Value>,
    after: Map<String, Value>,
    actor: Option<String>,
    reason: Option<String>,
}

impl Change {
    /// Something that is done to one resource, such as `update` to a `webhook`.
    pub fn new(resource_type: &'static str, id: impl Into<String>, verb: &str) -> Self {
        Self {
            action: format!("{resource_type}.{verb}"),
            resource: (resource_type, id.into()),
            before: Map::new(),
            after: Map::new(),
            actor: None,
            reason: None,
        }
    }

    /// What the resource was like before.
    #[must_use]
    pub fn from(mut self, before: Map<String, Value>) -> Self {
        self.before = before;
        self
    }

    /// What it is like after.
    #[must_use]
    pub fn to(mut self, after: Map<String, Value>) -> Self {
        self.after = after;
        self
    }

    /// Who does it, where that is not the caller of the request.
    #[must_use]
    pub fn by(mut self, actor: impl Into<String>) -> Self {
        self.actor = Some(actor.into());
        self
    }

    /// Why, where the request itself says it.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into()).filter(|reason| !reason.is_empty());
        self
    }

    /// The entry, but for its own hash.
    pub(super) fn entry(self, origin: &Origin, seq: i64, now: Timestamp, prev_hash: String) -> Entry {
        let Self { action, resource: (resource_type, resource_id), before, after, actor, reason } = self;
        let (before, after) = differences(&before, &after);
        Entry {
            seq,
            created_at: now,
            actor: storable(actor.unwrap_or_else(|| origin.actor.clone())),
            action,
            resource_type: resource_type.to_owned(),
            resource_id: storable(resource_id),
            before: Value::from(before).to_string(),
            after: Value::from(after).to_string(),
            reason: storable(reason.unwrap_or_else(|| origin.reason.clone())),
            request_id: storable(origin.request_id.clone()),
            address: origin.address.map(|address| address.to_string()).unwrap_or_default(),
            prev_hash,
            hash: String::new(),
        }
    }
}

/// The fields of something that serializes to an object.
pub fn fields(of: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(of) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// What differs: fields that say nothing are as good as missing, and long values are told by their digest.
fn differences(
    before: &Map<String, Value>,
    after: &Map<String, Value>,
) -> (Map<String, Value>, Map<String, Value>) {
    let other = |of: &Map<String, Value>, than: &Map<String, Value>| {
        let differs =
            |(name, value): &(&String, &Value)| says_something(value) && than.get(*name) != Some(*value);
        of.iter().filter(differs).map(|(name, value)| (name.clone(), short(value))).collect()
    };
    (other(before, after), other(after, before))
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

fn short(value: &Value) -> Value {
    let text = value.to_string();
    if text.len() <= VALUE_LIMIT {
        return value.clone();
    }
    let digest: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
    Value::from(format!("sha256:{digest} ({} bytes)", text.len()))
}

/// PostgreSQL has no text with NUL in it.
fn storable(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "") } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: &Value) -> Map<String, Value> {
        fields(value)
    }

    #[test]
    fn only_what_changed_is_told() {
        let before = object(&json!({"name": "a", "active": true, "gone": 1, "empty": "", "same": [1]}));
        let after = object(&json!({"name": "b", "active": true, "new": 2, "empty": null, "same": [1]}));
        let (before, after) = differences(&before, &after);
        assert_eq!(before, object(&json!({"name": "a", "gone": 1})));
        assert_eq!(after, object(&json!({"name": "b", "new": 2})));
    }

    #[test]
    fn long_values_are_told_by_their_digest() {
        let (one, other) = ("a".repeat(VALUE_LIMIT), "b".repeat(VALUE_LIMIT));
        let (before, after) = differences(&object(&json!({"text": one})), &object(&json!({"text": other})));
        for told in [&before["text"], &after["text"]] {
            assert!(
                told.as_str()
                    .is_some_and(|told| told.starts_with("sha256:") && told.ends_with("(4098 bytes)"))
            );
        }
        assert_ne!(before, after);
    }
}
