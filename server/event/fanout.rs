//! What a channel adds to a publish.
//!
//! A channel keeps in memory who wants which events, with the revision of the database that it was read at.  Inside a
//! publish's transaction it may add events that follow from those that are published, plans its deliveries and writes them;
//! after the commit it takes them in hand.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::model::{Event, Fact};
use crate::clock::Timestamp;
use crate::db::{Conn, PostgresWriter, QueryResult, SqliteWriter};
use crate::error::Result;

/// A channel, as a publish sees it.
pub trait Fanout: Send + Sync + 'static {
    /// The revision of the subscriptions that it plans by.
    fn revision(&self) -> i64;

    /// Reads the subscriptions anew.
    fn refresh<'a>(&'a self, conn: &'a mut Conn) -> BoxFuture<'a, Result<()>>;

    /// Events that follow from these, and are published with them.  What follows from those is not asked.
    fn derive(&self, _facts: &[Arc<Fact>], _now: Timestamp) -> Vec<Arc<Fact>> {
        Vec::new()
    }

    /// The deliveries that it wants for these events; `None` when there are none.
    fn plan(&self, events: &[Event], now: Timestamp) -> Option<Box<dyn Planned>>;
}

/// Deliveries that are not written yet.
pub trait Planned: Send + Sync {
    /// Writes their rows to SQLite.
    fn sqlite(&mut self, conn: &mut SqliteWriter) -> QueryResult<()>;

    /// Writes their rows to PostgreSQL.
    fn postgres<'a>(&'a mut self, conn: &'a mut PostgresWriter) -> BoxFuture<'a, QueryResult<()>>;

    /// Their rows are durable: takes those in hand that have room.
    fn committed(self: Box<Self>);
}
