//! The use cases of event types.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

use super::store::{self, EventTypeRow};
use super::{Registry, compile_schema};
use crate::audit::{self, Change, Recorder};
use crate::clock::SharedClock;
use crate::db::{Conn, Db, revision};
use crate::error::{Error, Kind, Result, Violations};
use crate::event::catalogue::{self, BUILT_IN, BuiltIn, Field};
use crate::event::model::{check_data, check_event_type};

const DESCRIPTION_LIMIT: usize = 1_024;
const SCHEMA_LIMIT: usize = 64 * 1024;
const FIELD_LIMIT: usize = 100;
const TYPES: [&str; 6] = ["string", "integer", "number", "boolean", "object", "array"];

/// A type of the catalogue.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct EventType {
    pub name: String,
    pub description: String,
    pub fields: Vec<Field>,
    pub json_schema: String,
    pub sample: String,
    pub built_in: bool,
    pub version: i64,
}

/// What to change of a type; `None` leaves it.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct TypeChange {
    pub description: Option<String>,
    pub fields: Option<Vec<Field>>,
    pub json_schema: Option<String>,
    pub sample: Option<String>,
    pub version: Option<i64>,
}

/// The use cases.
pub struct RegistryService {
    /// The database.
    pub db: Db,
    /// Where publishes look.
    pub registry: Arc<Registry>,
    /// Records what is changed.
    pub audit: Recorder,
    /// The time.
    pub clock: SharedClock,
}

impl RegistryService {
    /// Registers a type.
    pub async fn create(&self, name: String, change: TypeChange) -> Result<EventType> {
        let mut violations = Violations::default();
        violations.check("event_type.name", check_event_type(&name));
        check(&change, &mut violations);
        violations.finish()?;
        if catalogue::find(&name).is_some() {
            return Err(built_in(&name));
        }
        let now = self.clock.now();
        let row = EventTypeRow {
            name,
            description: change.description.unwrap_or_default(),
            fields: to_json(&change.fields.unwrap_or_default()),
            json_schema: change.json_schema.unwrap_or_default(),
            sample: change.sample.unwrap_or_default(),
            version: 1,
            created_at: now,
            updated_at: now,
        };
        let (kept, audit) = (row.clone(), self.audit.clone());
        self.changed(move |conn| {
            Box::pin(async move {
                store::insert(conn, &row).await?;
                audit.record(conn, Change::new("event_type", &row.name, "create").to(audited(&row))).await
            })
        })
        .await?;
        Ok(kept.into())
    }

    /// One type.
    pub async fn get(&self, name: &str) -> Result<EventType> {
        if let Some(built_in) = catalogue::find(name) {
            return Ok(built_in.into());
        }
        let row = store::find(&mut self.db.reader().await?, name).await?;
        row.map(EventType::from).ok_or_else(|| Error::not_found("event type", name))
    }

    /// Types after `last`: the built-in ones first, then the others by name.
    pub async fn list(&self, last: Option<&str>, limit: usize) -> Result<Vec<EventType>> {
        let start = match last {
            None => 0,
            Some(last) => {
                BUILT_IN.iter().position(|built_in| built_in.name == last).map_or(BUILT_IN.len(), |at| at + 1)
            }
        };
        let mut types: Vec<EventType> = BUILT_IN[start..].iter().take(limit).map(EventType::from).collect();
        let left = limit - types.len();
        if left > 0 {
            let last = last.filter(|last| catalogue::find(last).is_none()).unwrap_or_default();
            let rows = store::after(&mut self.db.reader().await?, last, left as i64).await?;
            types.extend(rows.into_iter().map(EventType::from));
        }
        Ok(types)
    }

    /// Changes a registered type.
    pub async fn update(&self, name: String, change: TypeChange) -> Result<EventType> {
        let mut violations = Violations::default();
        check(&change, &mut violations);
        violations.finish()?;
        if catalogue::find(&name).is_some() {
            return Err(built_in(&name));
        }
        let (now, audit) = (self.clock.now(), self.audit.clone());
        let row = self
            .changed(move |conn| {
                Box::pin(async move {
                    let mut row = store::find(conn, &name)
                        .await?
                        .ok_or_else(|| Error::not_found("event type", &name))?;
                    if change.version.is_some_and(|version| version != row.version) {
                        return Err(Error::etag_mismatch(row.version.to_string()));
                    }
                    let entry = Change::new("event_type", &row.name, "update").from(audited(&row));
                    row.description = change.description.unwrap_or(row.description);
                    row.fields = change.fields.map_or(row.fields, |fields| to_json(&fields));
                    row.json_schema = change.json_schema.unwrap_or(row.json_schema);
                    row.sample = change.sample.unwrap_or(row.sample);
                    row.version += 1;
                    row.updated_at = now;
                    store::update(conn, &row).await?;
                    audit.record(conn, entry.to(audited(&row))).await?;
                    Ok(row)
                })
            })
            .await?;
        Ok(row.into())
    }

    /// Removes a registered type.
    pub async fn delete(&self, name: String) -> Result<()> {
        if catalogue::find(&name).is_some() {
            return Err(built_in(&name));
        }
        let audit = self.audit.clone();
        self.changed(move |conn| {
            Box::pin(async move {
                let row = store::find(conn, &name).await?;
                let row = row.ok_or_else(|| Error::not_found("event type", &name))?;
                store::delete(conn, &name).await?;
                audit.record(conn, Change::new("event_type", name, "delete").from(audited(&row))).await
            })
        })
        .await
    }

    /// Makes a change that the publishes of every node must see, and sees it here before it answers.
    async fn changed<R, F>(&self, work: F) -> Result<R>
    where
        R: Send + 'static,
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R>> + Send + 'static,
    {
        let done = revision::change(&self.db, revision::SUBSCRIPTIONS, work).await?;
        // The change is made: that it can not be read at once must not be told as if it were not.  The next publish
        // compares the revision anyway.
        let refreshed = async { self.registry.refresh(&mut self.db.reader().await?).await };
        if let Err(error) = refreshed.await {
            tracing::warn!(%error, "a change was made and could not be read; the next publish reads it");
        }
        Ok(done)
    }
}

/// Notes what is wrong with a change.
pub(in crate::event) fn check(change: &TypeChange, violations: &mut Violations) {
    let description = change.description.as_deref().unwrap_or_default();
    let short = description.chars().count() <= DESCRIPTION_LIMIT && !description.contains('\0');
    violations.require(short, "event_type.description", "must have at most 1024 characters");
    let schema = change.json_schema.as_deref().unwrap_or_default();
    if schema.len() > SCHEMA_LIMIT {
        violations.add("event_type.json_schema", "must have at most 64 KiB");
    } else {
        violations.check("event_type.json_schema", compile_schema(schema));
    }
    if let Some(sample) = change.sample.as_deref().filter(|sample| !sample.is_empty()) {
        violations.check("event_type.sample", check_data(sample));
    }
    let fields = change.fields.as_deref().unwrap_or_default();
    violations.require(fields.len() <= FIELD_LIMIT, "event_type.fields", "must have at most 100 entries");
    for (index, field) in fields.iter().enumerate() {
        let path = |name: &str| format!("event_type.fields[{index}].{name}");
        violations.require(!field.name.is_empty(), &path("name"), "is required");
        let known = TYPES.contains(&field.json_type.as_str());
        violations.require(known, &path("type"), "must be string, integer, number, boolean, object or array");
    }
}

/// A type as the audit log tells it.
pub(super) fn audited(row: &EventTypeRow) -> Map<String, Value> {
    let fields: Value = serde_json::from_str(&row.fields).unwrap_or_default();
    audit::fields(&json!({
        "description": row.description,
        "fields": fields,
        "json_schema": row.json_schema,
        "sample": row.sample,
    }))
}

/// What whoever would change a type of the server's own is told.
pub(super) fn built_in(name: &str) -> Error {
    Error::new(
        Kind::FailedPrecondition,
        "EVENT_TYPE_BUILT_IN",
        format!("the event type {name:?} comes with the server"),
    )
    .with("name", name)
}

/// Fields as they are kept.
pub(super) fn to_json(fields: &[Field]) -> String {
    serde_json::to_string(fields).expect("fields are plain text")
}

impl From<EventTypeRow> for EventType {
    fn from(row: EventTypeRow) -> Self {
        Self {
            name: row.name,
            description: row.description,
            fields: serde_json::from_str(&row.fields).unwrap_or_default(),
            json_schema: row.json_schema,
            sample: row.sample,
            built_in: false,
            version: row.version,
        }
    }
}

impl From<&BuiltIn> for EventType {
    fn from(built_in: &BuiltIn) -> Self {
        Self {
            name: built_in.name.into(),
            description: built_in.description.into(),
            fields: built_in.fields(),
            json_schema: String::new(),
            sample: built_in.sample.into(),
            built_in: true,
            version: 0,
        }
    }
}
