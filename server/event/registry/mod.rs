//! The registry of event types: the built-in catalogue and the types that applications registered, with their schemas.
//!
//! Publishes check their payloads here, in memory.  A change on another node is seen within about a second, by the
//! revision that endpoints and routes share.

mod portable;
mod service;
mod store;

#[cfg(any(test, fuzzing))]
pub(super) use service::check as check_type;
pub use service::{EventType, RegistryService, TypeChange};

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use super::catalogue;
use crate::db::{Conn, revision};
use crate::error::{Result, Violations};

/// The most violations of a schema that are reported.
const REPORTED: usize = 10;

/// The event types, for publishes.
#[derive(Default)]
pub struct Registry {
    known: ArcSwap<Known>,
    strict: AtomicBool,
}

#[derive(Default)]
struct Known {
    revision: i64,
    types: HashMap<String, Option<jsonschema::Validator>>,
}

impl Registry {
    /// The revision that it was read at.
    pub fn revision(&self) -> i64 {
        self.known.load().revision
    }

    /// Whether types that are not in the catalogue are refused.
    pub fn set_strict(&self, strict: bool) {
        self.strict.store(strict, Ordering::Relaxed);
    }

    /// Reads the registered types anew.
    pub async fn refresh(&self, conn: &mut Conn) -> Result<()> {
        let revision = revision::current(conn, revision::SUBSCRIPTIONS).await?;
        let compile = |row: store::EventTypeRow| {
            // What was registered has compiled before; if it does not any more, events go on without the check.
            let validator = compile_schema(&row.json_schema).unwrap_or_default();
            (row.name, validator)
        };
        let types = store::all(conn).await?.into_iter().map(compile).collect();
        let read = Arc::new(Known { revision, types });
        // Two refreshes may overlap; the older one must not win.
        self.known.rcu(|known| if known.revision > revision { Arc::clone(known) } else { Arc::clone(&read) });
        Ok(())
    }

    /// Checks that a type may be published and that a payload satisfies its schema.
    pub fn check(
        &self,
        event_type: &str,
        data: &str,
        violations: &mut Violations,
        path: &dyn Fn(&str) -> String,
    ) {
        let known = self.known.load();
        match known.types.get(event_type) {
            Some(Some(validator)) => {
                let Ok(value) = serde_json::from_str(data) else {
                    return;
                };
                for error in validator.iter_errors(&value).take(REPORTED) {
                    let place = error.instance_path().to_string();
                    violations.add(
                        path("data"),
                        format!("does not satisfy the type's schema at {place:?}: {error}"),
                    );
                }
            }
            Some(None) => {}
            None if catalogue::find(event_type).is_some() => {}
            None if self.strict.load(Ordering::Relaxed) => violations.add(
                path("event_type"),
                "is not in the catalogue, and the setting events.strict_types refuses such events",
            ),
            None => {}
        }
    }
}

/// Compiles a schema and holds a payload against it, as a registration and a publish do: both end.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(schema: &str, data: &str) {
    let registry = Registry::default();
    let Ok(validator @ Some(_)) = compile_schema(schema) else { return };
    registry
        .known
        .store(Arc::new(Known { revision: 1, types: HashMap::from([("a".to_owned(), validator)]) }));
    let mut violations = Violations::default();
    registry.check("a", data, &mut violations, &str::to_owned);
    if let Err(error) = violations.finish() {
        assert!(error.violations().len() <= REPORTED);
    }
}

/// Compiles a schema; `None` for an empty one.
fn compile_schema(text: &str) -> Result<Option<jsonschema::Validator>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let schema: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
    // References to other documents would have to be fetched; `jsonschema` is built without that.
    jsonschema::validator_for(&schema).map(Some).map_err(|error| format!("is not a JSON Schema: {error}"))
}
