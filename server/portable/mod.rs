//! The configuration as a document: to keep a copy, and to bring it to another server.
//!
//! ```text
//! export: each part ─ read, in one view ─▶ items ─▶ document (secrets sealed under a passphrase, or left out)
//! import: document ─▶ items ─ one transaction: each part puts what differs, its audit entries with it ─▶ each part reads anew
//! ```
//! A part is what one capability has of it: settings, endpoints, templates and so on.  It knows its items, their checks and their
//! tables; what a document is, who may do what, what differs and in which order it is put, is known here.  API keys are no part:
//! the database has MACs of them, which say nothing to a server with another key.

mod document;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod passphrase;
pub mod rpc;
mod service;

pub use passphrase::{Passphrases, Sealed};
pub use service::{Configuration, Export, Import, Imported, Outcome};

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::db::Conn;
use crate::error::Result;
use crate::secret::SecretText;

/// The items of a part, by name.
pub type Items = BTreeMap<String, Item>;

/// Something that is configured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Item {
    /// All of it that may stand open; null for what is a secret as a whole.
    pub value: Value,
    /// Its secrets, by name.
    pub secrets: BTreeMap<String, SecretText>,
}

/// What one capability has of the configuration.
pub trait Portable: Send + Sync + 'static {
    /// What it is called in a document.
    fn section(&self) -> &'static str;

    /// What one of its items is called where the request is wrong about it, such as `webhook`.
    fn item(&self) -> &'static str;

    /// The scopes that its export and its import need.
    fn scopes(&self) -> (&'static str, &'static str);

    /// The revision that is to say that it has changed; `None` where putting says so itself.
    fn revision(&self) -> Option<&'static str>;

    /// Whether all items are put at once, as one change; else each is a change of its own.
    fn is_one(&self) -> bool {
        false
    }

    /// Whether an item can not be changed while this server runs.
    fn is_pinned(&self, _name: &str) -> bool {
        false
    }

    /// What there is.
    fn read<'a>(&'a self, conn: &'a mut Conn) -> BoxFuture<'a, Result<Items>>;

    /// Puts items that differ from what there is, with their audit entries, in a transaction that keeps other changes out.  An item
    /// that is there is changed, and a secret of it that is not given stays.  Answers the secrets that were needed and not given.
    fn put<'a>(&'a self, conn: &'a mut Conn, items: Items) -> BoxFuture<'a, Result<Vec<String>>>;

    /// Removes items, likewise; one that went with another is no error.
    fn remove<'a>(&'a self, conn: &'a mut Conn, names: Vec<String>) -> BoxFuture<'a, Result<()>>;

    /// Has this node see what was changed.
    fn reload(&self) -> BoxFuture<'_, Result<()>>;
}
