//! Routes in exported configurations, by name: a new database has default routes with ids of its own.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::service::{audited, check};
use super::{Route, RouteService, Target, store};
use crate::audit::Change;
use crate::db::{Conn, revision};
use crate::error::{Error, Result};
use crate::id::Kind as IdKind;
use crate::portable::{Item, Items, Portable};

/// More than there can be.
const ALL: i64 = i64::MAX;

/// A route in a document.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    event_type: String,
    #[serde(default)]
    condition: String,
    active: bool,
    target: Target,
}

impl Portable for RouteService {
    fn section(&self) -> &'static str {
        "routes"
    }

    fn item(&self) -> &'static str {
        "route"
    }

    fn scopes(&self) -> (&'static str, &'static str) {
        ("routes:read", "routes:write")
    }

    fn revision(&self) -> Option<&'static str> {
        Some(revision::SUBSCRIPTIONS)
    }

    fn read<'a>(&'a self, conn: &'a mut Conn) -> BoxFuture<'a, Result<Items>> {
        async move {
            let item = |route: Route| {
                let Route { name, event_type, condition, active, target, .. } = route;
                let shown = Shown { event_type, condition, active, target };
                let value = serde_json::to_value(shown).map_err(Error::internal)?;
                Ok((name, Item { value, ..Item::default() }))
            };
            store::after(conn, "", ALL).await?.into_iter().map(item).collect()
        }
        .boxed()
    }

    fn put<'a>(&'a self, conn: &'a mut Conn, items: Items) -> BoxFuture<'a, Result<Vec<String>>> {
        async move {
            for (name, item) in items {
                let shown: Shown = serde_json::from_value(item.value)
                    .map_err(|error| Error::field("route", format!("is not a route: {error}")))?;
                let (now, known) = (self.clock.now(), store::find_by_name(conn, &name).await?);
                let before = known.as_ref().map(audited);
                let (id, version, created_at) = match known {
                    Some(known) => (known.id, known.version + 1, known.created_at),
                    None => (self.ids.next(IdKind::Route), 1, now),
                };
                let Shown { event_type, condition, active, target } = shown;
                let route = Route {
                    id,
                    name,
                    event_type,
                    condition,
                    active,
                    target,
                    version,
                    created_at,
                    updated_at: now,
                };
                check(conn, &self.channels, &route).await?;
                let change = match before {
                    Some(before) => {
                        store::update(conn, &route).await?;
                        Change::new("route", &route.id, "update").from(before)
                    }
                    None => {
                        store::insert(conn, &route).await?;
                        Change::new("route", &route.id, "create")
                    }
                };
                self.audit.record(conn, change.to(audited(&route))).await?;
            }
            Ok(Vec::new())
        }
        .boxed()
    }

    fn remove<'a>(&'a self, conn: &'a mut Conn, names: Vec<String>) -> BoxFuture<'a, Result<()>> {
        async move {
            for name in names {
                let Some(route) = store::find_by_name(conn, &name).await? else { continue };
                store::delete(conn, &route.id).await?;
                let change = Change::new("route", &route.id, "delete").from(audited(&route));
                self.audit.record(conn, change).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn reload(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            let mut conn = self.db.reader().await?;
            self.channels.email.refresh(&mut conn).await?;
            self.channels.inbox.refresh(&mut conn).await
        }
        .boxed()
    }
}
