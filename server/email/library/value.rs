//! What a template sees of its variables.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{Enumerator, Object, ObjectRepr};
use serde_json::{Number, Value as Json};

/// Whole numbers up to this size are exact as a double, and are written without a fraction.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A variable that was not given: prints as nothing, is false, and has no entries.
#[derive(Debug)]
struct Absent;

impl Object for Absent {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, _key: &Value) -> Option<Value> {
        Some(absent())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Empty
    }

    fn render(self: &Arc<Self>, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Values by name.
#[derive(Debug)]
struct Fields(BTreeMap<String, Value>);

impl Object for Fields {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_str()?).cloned()
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.0.get(key).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.keys().map(|name| Value::from(name.as_str())).collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.0.len())
    }
}

/// Values by name, as one value.
pub(super) fn fields(fields: BTreeMap<String, Value>) -> Value {
    Value::from_object(Fields(fields))
}

/// A variable that was not given.
pub(super) fn absent() -> Value {
    Value::from_object(Absent)
}

/// Whether a value stands for a variable that was not given.
pub(super) fn is_absent(value: &Value) -> bool {
    value.downcast_object_ref::<Absent>().is_some()
}

/// A value as templates see it: text without control characters, and nothing for `null`.
pub(super) fn of(json: &Json) -> Value {
    match json {
        Json::Null => absent(),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => of_number(number),
        Json::String(text) => Value::from(clean(text)),
        Json::Array(entries) => Value::from(entries.iter().map(of).collect::<Vec<_>>()),
        Json::Object(entries) => {
            fields(entries.iter().map(|(name, value)| (clean(name), of(value))).collect())
        }
    }
}

fn of_number(number: &Number) -> Value {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(whole), _, _) => Value::from(whole),
        (_, Some(whole), _) => Value::from(whole),
        (_, _, Some(value)) if value.fract() == 0.0 && value.abs() < EXACT => Value::from(value as i64),
        (_, _, value) => Value::from(value.unwrap_or_default()),
    }
}

/// Text without the characters that break or disguise it; lines end in `\n`.
pub(super) fn clean(text: &str) -> String {
    let is_odd = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.replace("\r\n", "\n").replace('\r', "\n").replace(is_odd, " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_print_as_people_write_them() {
        for (json, printed) in [
            (json!(3.0), "3"),
            (json!(3.5), "3.5"),
            (json!(u64::MAX), "18446744073709551615"),
            (json!(null), ""),
            (json!("a\r\nb\u{0}c\u{202e}"), "a\nb c "),
            (json!(true), "True"),
        ] {
            assert_eq!(of(&json).to_string(), printed);
        }
        assert!(is_absent(&of(&json!(null))) && !of(&json!(null)).is_true());
    }
}
