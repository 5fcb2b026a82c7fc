//! Recipient lists in exported configurations.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::RecipientListService;
use super::service::{ListChange, audited, check, check_name};
use super::store::{self, RecipientList};
use crate::audit::Change;
use crate::db::{Conn, revision};
use crate::error::{Error, Kind, Result, Violations};
use crate::event::route;
use crate::portable::{Item, Items, Portable};

/// More than there can be.
const ALL: i64 = i64::MAX;

/// A list in a document.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    #[serde(default)]
    description: String,
    addresses: Vec<String>,
}

impl Portable for RecipientListService {
    fn section(&self) -> &'static str {
        "recipient_lists"
    }

    fn item(&self) -> &'static str {
        "recipient_list"
    }

    fn scopes(&self) -> (&'static str, &'static str) {
        ("email:read", "email:write")
    }

    fn revision(&self) -> Option<&'static str> {
        Some(revision::SUBSCRIPTIONS)
    }

    fn read<'a>(&'a self, conn: &'a mut Conn) -> BoxFuture<'a, Result<Items>> {
        async move {
            let item = |list: RecipientList| {
                let shown = Shown { description: list.description, addresses: list.addresses.0 };
                let value = serde_json::to_value(shown).map_err(Error::internal)?;
                Ok((list.name, Item { value, ..Item::default() }))
            };
            store::after(conn, "", ALL).await?.into_iter().map(item).collect()
        }
        .boxed()
    }

    fn put<'a>(&'a self, conn: &'a mut Conn, items: Items) -> BoxFuture<'a, Result<Vec<String>>> {
        async move {
            for (name, item) in items {
                let shown: Shown = serde_json::from_value(item.value)
                    .map_err(|error| Error::field("recipient_list", format!("is not a list: {error}")))?;
                self.place(conn, name, shown).await?;
            }
            Ok(Vec::new())
        }
        .boxed()
    }

    fn remove<'a>(&'a self, conn: &'a mut Conn, names: Vec<String>) -> BoxFuture<'a, Result<()>> {
        async move {
            for name in names {
                let list = store::find(conn, &name).await?;
                if let Some(route) = route::uses_recipient_list(conn, &name).await? {
                    let message =
                        format!("the route {route:?} sends to the list {name:?}: change the route first");
                    return Err(Error::new(Kind::FailedPrecondition, "RECIPIENT_LIST_IN_USE", message)
                        .with("route", route));
                }
                store::delete(conn, &name).await?;
                let change = Change::new("recipient_list", name, "delete").from(audited(&list));
                self.audit.record(conn, change).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn reload(&self) -> BoxFuture<'_, Result<()>> {
        async move { self.routes.refresh(&mut self.db.reader().await?).await }.boxed()
    }
}

impl RecipientListService {
    async fn place(&self, conn: &mut Conn, name: String, shown: Shown) -> Result<()> {
        let (description, addresses) = (Some(shown.description), Some(shown.addresses));
        let change = ListChange { description, addresses, version: None };
        let mut violations = Violations::default();
        check_name(&name, &mut violations);
        let addresses = check(&change, &mut violations).unwrap_or_default();
        violations.finish()?;
        let now = self.clock.now();
        let known = match store::find(conn, &name).await {
            Ok(known) => Some(known),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => return Err(error),
        };
        let (version, created_at) =
            known.as_ref().map_or((1, now), |known| (known.version + 1, known.created_at));
        let list = RecipientList {
            name,
            description: change.description.unwrap_or_default(),
            addresses: addresses.into(),
            version,
            created_at,
            updated_at: now,
        };
        let change = match known {
            Some(known) => {
                store::update(conn, &list).await?;
                Change::new("recipient_list", &list.name, "update").from(audited(&known))
            }
            None => {
                store::insert(conn, &list).await?;
                Change::new("recipient_list", &list.name, "create")
            }
        };
        self.audit.record(conn, change.to(audited(&list))).await
    }
}
