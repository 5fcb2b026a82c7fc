//! Settings in exported configurations: what is stored, as one change.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;

use super::super::change::{Field, Stored, Terms, Wanted, checked};
use super::super::definition;
use super::super::history::Action;
use super::super::service::SettingsService;
use super::super::store;
use crate::db::{Conn, revision};
use crate::error::{Result, Violations};
use crate::origin;
use crate::portable::{Item, Items, Portable};

const SECTION: &str = "settings";
/// What the text of a secret setting is called.
const SECRET: &str = "value";
const FIELD: Field = |key| format!("[{key}]");

impl Portable for SettingsService {
    fn section(&self) -> &'static str {
        SECTION
    }

    fn item(&self) -> &'static str {
        "setting"
    }

    fn scopes(&self) -> (&'static str, &'static str) {
        ("settings:export", "settings:write")
    }

    fn revision(&self) -> Option<&'static str> {
        None
    }

    fn is_one(&self) -> bool {
        true
    }

    fn is_pinned(&self, name: &str) -> bool {
        self.rules.pins.contains_key(name)
    }

    fn read<'a>(&'a self, conn: &'a mut Conn) -> BoxFuture<'a, Result<Items>> {
        async move {
            let stored = self.rules.portable(store::all(conn).await?)?;
            let item = |value| match value {
                Stored::Plain(value) => Item { value, ..Item::default() },
                Stored::Secret(text) => {
                    Item { value: Value::Null, secrets: [(SECRET.to_owned(), text)].into() }
                }
            };
            Ok(stored.into_iter().map(|(key, value)| (key, item(value))).collect())
        }
        .boxed()
    }

    fn put<'a>(&'a self, conn: &'a mut Conn, items: Items) -> BoxFuture<'a, Result<Vec<String>>> {
        async move {
            let (mut values, mut violations) = (BTreeMap::new(), Violations::default());
            for (key, Item { value, mut secrets }) in items {
                let secret = secrets.remove(SECRET);
                let is_secret = definition::find(&key).is_some_and(|known| known.kind.is_secret());
                let fits =
                    secrets.is_empty() && secret.is_some() == is_secret && value.is_null() == is_secret;
                if is_secret && secret.is_none() && !value.is_null() {
                    violations.add(FIELD(&key), "is a secret, and stands open in the document");
                } else if !fits && definition::find(&key).is_some() {
                    violations.add(FIELD(&key), "is not as this setting is exported");
                } else {
                    let text = secret.map(|text| Value::from(text.reveal()));
                    values.insert(key, text.unwrap_or(value));
                }
            }
            let wanted = checked(values, &mut violations, FIELD);
            violations.finish()?;
            self.change_in(conn, wanted).await?;
            Ok(Vec::new())
        }
        .boxed()
    }

    fn remove<'a>(&'a self, conn: &'a mut Conn, names: Vec<String>) -> BoxFuture<'a, Result<()>> {
        async move {
            let known = names.iter().filter_map(|name| definition::find(name));
            self.change_in(conn, known.map(|known| (known.key, None)).collect()).await
        }
        .boxed()
    }

    fn reload(&self) -> BoxFuture<'_, Result<()>> {
        Self::reload(self).boxed()
    }
}

impl SettingsService {
    async fn change_in(&self, conn: &mut Conn, wanted: Wanted) -> Result<()> {
        let origin = origin::current();
        let (actor, reason, address) = (origin.actor, origin.reason, origin.address);
        let terms = Terms { actor, address, reason, ..Terms::default() };
        let (current, now) = (revision::current(conn, revision::SETTINGS).await?, self.clock.now());
        let made = self.rules.make(conn, current, Action::Import, terms, FIELD, wanted, now).await?;
        if made.1 {
            revision::bump(conn, revision::SETTINGS).await?;
        }
        Ok(())
    }
}
