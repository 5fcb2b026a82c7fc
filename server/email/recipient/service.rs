//! The use cases of recipient lists.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

use super::store::{self, RecipientList};
use crate::audit::{self, Change, Recorder};
use crate::clock::SharedClock;
use crate::db::{Conn, Db, revision};
use crate::email::address;
use crate::error::{Error, Kind, Result, Violations};
use crate::event::route::{self, RouteTarget};

const NAME_LIMIT: usize = 64;
const DESCRIPTION_LIMIT: usize = 1_024;
const ADDRESS_LIMIT: usize = 1_000;

/// What to set of a list; `None` leaves it.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct ListChange {
    pub description: Option<String>,
    pub addresses: Option<Vec<String>>,
    pub version: Option<i64>,
}

/// The use cases.
pub struct RecipientListService {
    /// The database.
    pub db: Db,
    /// Uses the lists.
    pub routes: Arc<dyn RouteTarget>,
    /// Records what is changed.
    pub audit: Recorder,
    /// The time.
    pub clock: SharedClock,
}

impl RecipientListService {
    /// Adds a list.
    pub async fn create(&self, name: String, change: ListChange) -> Result<RecipientList> {
        let mut violations = Violations::default();
        check_name(&name, &mut violations);
        let addresses = check(&change, &mut violations);
        violations.finish()?;
        let now = self.clock.now();
        let list = RecipientList {
            name,
            description: change.description.unwrap_or_default(),
            addresses: addresses.unwrap_or_default().into(),
            version: 1,
            created_at: now,
            updated_at: now,
        };
        let audit = self.audit.clone();
        self.changed(move |conn| {
            Box::pin(async move {
                store::insert(conn, &list).await?;
                let entry = Change::new("recipient_list", &list.name, "create");
                audit.record(conn, entry.to(audited(&list))).await?;
                Ok(list)
            })
        })
        .await
    }

    /// One list.
    pub async fn get(&self, name: &str) -> Result<RecipientList> {
        store::find(&mut self.db.reader().await?, name).await
    }

    /// Lists after a name.
    pub async fn list(&self, after: &str, limit: i64) -> Result<Vec<RecipientList>> {
        store::after(&mut self.db.reader().await?, after, limit).await
    }

    /// Changes a list.
    pub async fn update(&self, name: String, change: ListChange) -> Result<RecipientList> {
        let mut violations = Violations::default();
        let addresses = check(&change, &mut violations);
        violations.finish()?;
        let (now, audit) = (self.clock.now(), self.audit.clone());
        self.changed(move |conn| {
            Box::pin(async move {
                let mut list = store::find(conn, &name).await?;
                if change.version.is_some_and(|version| version != list.version) {
                    return Err(Error::etag_mismatch(list.version.to_string()));
                }
                let entry = Change::new("recipient_list", &list.name, "update").from(audited(&list));
                list.description = change.description.unwrap_or(list.description);
                list.addresses = addresses.map_or(list.addresses, Into::into);
                list.version += 1;
                list.updated_at = now;
                store::update(conn, &list).await?;
                audit.record(conn, entry.to(audited(&list))).await?;
                Ok(list)
            })
        })
        .await
    }

    /// Removes a list that no route names.
    pub async fn delete(&self, name: String) -> Result<()> {
        let audit = self.audit.clone();
        self.changed(move |conn| {
            Box::pin(async move {
                let list = store::find(conn, &name).await?;
                if let Some(route) = route::uses_recipient_list(conn, &name).await? {
                    let message = format!("the route {route:?} sends to this list: change the route first");
                    return Err(Error::new(Kind::FailedPrecondition, "RECIPIENT_LIST_IN_USE", message)
                        .with("route", route));
                }
                store::delete(conn, &name).await?;
                let entry = Change::new("recipient_list", name, "delete").from(audited(&list));
                audit.record(conn, entry).await
            })
        })
        .await
    }

    async fn changed<R, F>(&self, work: F) -> Result<R>
    where
        R: Send + 'static,
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R>> + Send + 'static,
    {
        let done = revision::change(&self.db, revision::SUBSCRIPTIONS, work).await?;
        // The change is made: that it can not be read at once must not be told as if it were not.  The next publish
        // compares the revision anyway.
        let refreshed = async { self.routes.refresh(&mut self.db.reader().await?).await };
        if let Err(error) = refreshed.await {
            tracing::warn!(%error, "a change was made and could not be read; the next publish reads it");
        }
        Ok(done)
    }
}

/// A list as the audit log tells it.
pub(super) fn audited(list: &RecipientList) -> Map<String, Value> {
    audit::fields(&json!({"description": list.description, "addresses": list.addresses.0}))
}

/// Checks the name of a list.
pub(super) fn check_name(name: &str, violations: &mut Violations) {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let name_ok = (1..=NAME_LIMIT).contains(&name.len()) && name.bytes().all(word);
    violations.require(name_ok, "recipient_list.name", "must have 1 to 64 of a-z, 0-9 and _");
}

/// Checks a change; answers the addresses in their one written form.
pub(super) fn check(change: &ListChange, violations: &mut Violations) -> Option<Vec<String>> {
    let description = change.description.as_deref().unwrap_or_default();
    let short = description.chars().count() <= DESCRIPTION_LIMIT && !description.contains('\0');
    violations.require(short, "recipient_list.description", "must have at most 1024 characters");
    let read = |(index, text): (usize, &String)| {
        violations
            .check(&format!("recipient_list.addresses[{index}]"), address::parse_list(text))
            .unwrap_or_default()
    };
    let addresses: Vec<String> = change.addresses.as_ref()?.iter().enumerate().flat_map(read).collect();
    let addresses = address::without_duplicates(addresses);
    violations.require(
        addresses.len() <= ADDRESS_LIMIT,
        "recipient_list.addresses",
        "must have at most 1000 addresses",
    );
    Some(addresses)
}
