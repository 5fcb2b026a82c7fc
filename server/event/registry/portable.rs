//! Event types in exported configurations: those that applications registered.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::service::{audited, built_in, check, to_json};
use super::store::{self, EventTypeRow};
use super::{RegistryService, TypeChange};
use crate::audit::Change;
use crate::db::{Conn, revision};
use crate::error::{Error, Result, Violations};
use crate::event::catalogue::{self, Field};
use crate::event::model::check_event_type;
use crate::portable::{Item, Items, Portable};

/// A type in a document.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Shown {
    description: String,
    fields: Vec<Field>,
    json_schema: String,
    sample: String,
}

impl Portable for RegistryService {
    fn section(&self) -> &'static str {
        "event_types"
    }

    fn item(&self) -> &'static str {
        "event_type"
    }

    fn scopes(&self) -> (&'static str, &'static str) {
        ("events:read", "events:admin")
    }

    fn revision(&self) -> Option<&'static str> {
        Some(revision::SUBSCRIPTIONS)
    }

    fn read<'a>(&'a self, conn: &'a mut Conn) -> BoxFuture<'a, Result<Items>> {
        async move {
            let item = |row: EventTypeRow| {
                let EventTypeRow { name, description, fields, json_schema, sample, .. } = row;
                let fields = serde_json::from_str(&fields).map_err(Error::internal)?;
                let shown = Shown { description, fields, json_schema, sample };
                let value = serde_json::to_value(shown).map_err(Error::internal)?;
                Ok((name, Item { value, ..Item::default() }))
            };
            store::all(conn).await?.into_iter().map(item).collect()
        }
        .boxed()
    }

    fn put<'a>(&'a self, conn: &'a mut Conn, items: Items) -> BoxFuture<'a, Result<Vec<String>>> {
        async move {
            for (name, item) in items {
                let shown: Shown = serde_json::from_value(item.value)
                    .map_err(|error| Error::field("event_type", format!("is not an event type: {error}")))?;
                if catalogue::find(&name).is_some() {
                    return Err(built_in(&name));
                }
                let Shown { description, fields, json_schema, sample } = shown;
                let change = TypeChange {
                    description: Some(description),
                    fields: Some(fields),
                    json_schema: Some(json_schema),
                    sample: Some(sample),
                    version: None,
                };
                let mut violations = Violations::default();
                violations.check("event_type.name", check_event_type(&name));
                check(&change, &mut violations);
                violations.finish()?;
                self.place(conn, name, change).await?;
            }
            Ok(Vec::new())
        }
        .boxed()
    }

    fn remove<'a>(&'a self, conn: &'a mut Conn, names: Vec<String>) -> BoxFuture<'a, Result<()>> {
        async move {
            for name in names {
                let Some(row) = store::find(conn, &name).await? else { continue };
                store::delete(conn, &name).await?;
                let change = Change::new("event_type", name, "delete").from(audited(&row));
                self.audit.record(conn, change).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn reload(&self) -> BoxFuture<'_, Result<()>> {
        async move { self.registry.refresh(&mut self.db.reader().await?).await }.boxed()
    }
}

impl RegistryService {
    async fn place(&self, conn: &mut Conn, name: String, change: TypeChange) -> Result<()> {
        let (now, known) = (self.clock.now(), store::find(conn, &name).await?);
        let (version, created_at) =
            known.as_ref().map_or((1, now), |known| (known.version + 1, known.created_at));
        let row = EventTypeRow {
            name,
            description: change.description.unwrap_or_default(),
            fields: to_json(&change.fields.unwrap_or_default()),
            json_schema: change.json_schema.unwrap_or_default(),
            sample: change.sample.unwrap_or_default(),
            version,
            created_at,
            updated_at: now,
        };
        let change = match known {
            Some(known) => {
                store::update(conn, &row).await?;
                Change::new("event_type", &row.name, "update").from(audited(&known))
            }
            None => {
                store::insert(conn, &row).await?;
                Change::new("event_type", &row.name, "create")
            }
        };
        self.audit.record(conn, change.to(audited(&row))).await
    }
}
